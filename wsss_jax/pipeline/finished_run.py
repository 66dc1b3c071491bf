"""Finds the networks of a run that has ended."""

import dataclasses
from pathlib import Path
from typing import Any, Generic, TypeVar

from wsss_jax.data.class_names import read_classes
from wsss_jax.errors import UserError
from wsss_jax.files import START, with_tuples
from wsss_jax.pipeline.record import is_done
from wsss_jax.records import check_fields, read_record
from wsss_jax.settings import name_of
from wsss_jax.stages.base import Stage

Applies = TypeVar("Applies", bound=Stage)
"""The kind of stage that applies a network."""


@dataclasses.dataclass(frozen=True)
class Trained(Generic[Applies]):
    """A trained network and the settings with which a stage of its run applies it.

    Attributes:
      checkpoint: the folder of the training stage.
      settings: the settings of the stage that applies the network.
      classes: the names of the foreground classes.
    """

    checkpoint: Path
    settings: Applies
    classes: tuple[str, ...]


def find_network(
    workdir: Path, kind: type[Applies], stage: str = "", classes: str = "", **changes: Any
) -> Trained[Applies]:
    """Finds a network of a run, and the stage of the run that applies it.

    Args:
      workdir: the working directory of the run.
      kind: the kind of the stage, such as `wsss_jax.stages.predict.Predict`.
      stage: the name of a stage of this kind, or empty for the last one.
      classes: a file of class names, for a run that does not record them.
      **changes: settings of the stage that replace those of the run.

    Raises:
      UserError: there is no such run or stage, or the training is not finished.
    """
    path = workdir / "results.json"
    if not path.exists():
        if any((one / START).is_file() for one in workdir.glob("*")):
            raise UserError(
                f"expected a finished run in {workdir}, found one that is not: run its command"
                " again, which goes on with it"
            )
        raise UserError(
            f"expected the folder of a run, with results.json, at {workdir}, found none: check the"
            " path"
        )
    remedy = "run the command of the recipe again, which writes it"
    config = read_record(path, {"config": dict, "config.stages": list[str]}, remedy)["config"]
    for one in config["stages"]:
        check_fields(path, config, {one: dict, f"{one}.type": str}, remedy)
    config = with_tuples(config)
    kind_name = name_of(kind)
    found = [name for name in config["stages"] if config[name]["type"] == kind_name]
    if not found or (stage and stage not in found):
        raise UserError(
            f"expected {stage or 'a stage'} among those of {workdir} of type {kind_name}, found"
            f" {', '.join(found) or 'none'}: "
            + ("name one of them with --stage" if found else "run a recipe that has one")
        )
    name = stage or found[-1]
    check_fields(path, config[name], {"needs": dict, "needs.checkpoint": str}, remedy)
    try:
        settings = Stage.from_config(config[name] | {"split": ""} | changes, name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(settings, kind)  # The section has this type.
    checkpoint = workdir / config[name]["needs"]["checkpoint"]
    if not is_done(checkpoint):
        raise UserError(
            f"expected a trained network in {checkpoint}, found an unfinished stage: finish the run"
        )
    if classes:
        return Trained(checkpoint, settings, tuple(read_classes(classes)))
    again = f"make it again with --only {checkpoint.name} --force"
    metrics = read_record(checkpoint / "metrics.json", {}, again, {"classes": list[str]})
    names = metrics.get("classes")
    if not names:
        raise UserError(
            f"expected the names of the classes in {checkpoint / 'metrics.json'}, found none,"
            " because an older version wrote it: name a file of them with --classes (or voc)"
        )
    return Trained(checkpoint, settings, tuple(names))
