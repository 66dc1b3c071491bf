"""Masks of a folder of photographs by the network that a run has trained."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from wsss_jax.data.class_names import read_classes
from wsss_jax.data.images import decode_image, decode_mask
from wsss_jax.data.photographs import Photographs, open_photographs
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, read_json, remove_unfinished, with_tuples, write_json
from wsss_jax.progress import Progress
from wsss_jax.settings import to_config
from wsss_jax.stages.base import Stage
from wsss_jax.stages.per_image import ImageWork, run_on_images
from wsss_jax.stages.predict import Predict
from wsss_jax.viz.labeled import labeled_mask

RECORD = "segment.json"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and how its masks are made.

    Attributes:
      checkpoint: folder of its training stage.
      settings: of the stage that made masks with it.
      classes: foreground names.
    """

    checkpoint: Path
    settings: Predict
    classes: tuple[str, ...]


def find_network(workdir: Path, stage: str = "", classes: str = "") -> Trained:
    """The network of a run.

    Args:
      workdir: of the run.
      stage: one of its stages of type predict; empty for the last one.
      classes: a file of class names, for a run that does not say which it has.

    Raises:
      UserError: no such stage, or its network is not finished.
    """
    if not (workdir / "results.json").is_file():
        raise UserError(
            f"expected the folder of a run, with results.json, at {workdir}, found none"
        )
    config = with_tuples(read_json(workdir / "results.json"))["config"]
    found = [name for name in config["stages"] if config[name]["type"] == "predict"]
    if not found or (stage and stage not in found):
        raise UserError(
            f"expected {stage or 'a stage'} among those of {workdir} that make a network's masks"
            f" (type predict), found {', '.join(found) or 'none'}: "
            + ("name one of them with --stage" if found else "run a recipe that has one")
        )
    name = stage or found[-1]
    try:
        # The photographs are no split, and nobody knows what they show.
        changes = {"split": "", "known_labels": False}
        settings = Stage.from_config(config[name] | changes, name)
    except UserError as error:
        raise UserError(f"{workdir / 'results.json'}: {error}") from error
    assert isinstance(settings, Predict)  # as its type says
    checkpoint = workdir / config[name]["needs"]["checkpoint"]
    if not (checkpoint / "_DONE.json").is_file():
        raise UserError(f"expected a trained network in {checkpoint}, found an unfinished stage")
    if classes:
        return Trained(checkpoint, settings, tuple(read_classes(classes)))
    names = read_json(checkpoint / "metrics.json").get("classes")
    if not names:
        raise UserError(
            f"expected the names of the classes in {checkpoint / 'metrics.json'}, found none, as an"
            " older version wrote it: give a file of them with --classes (or voc)"
        )
    return Trained(checkpoint, settings, tuple(names))


def segment(network: Trained, images: Path, out: Path) -> tuple[int, list[str]]:
    """Masks and overlays of the images of a folder.

    Returns:
      How many images there are masks of, and what was said of those that were left out.

    Raises:
      UserError: no images, or `out` holds masks of another network or other settings.
    """
    if images.resolve() in (out.resolve(), (out / "masks").resolve()):
        raise UserError("expected --out to be another folder than --images, found the same")
    if (out / "masks").is_dir():
        remove_unfinished(out)
    source, damaged = open_photographs(images, network.classes)
    _take_up(out, network, source)
    masks = network.settings.work(source, network.checkpoint)
    overlays = ImageWork(
        files=("overlays/{id}.jpg",),
        prepare=functools.partial(_overlay, source, out),
        finish=_write_overlay,
    )
    for work, label in ((masks, "masks"), (overlays, "overlays")):
        progress = functools.partial(Progress, label=label)
        run_on_images(source.ids, out, range(len(source)), work, progress)
    return len(source), [str(error) for error in damaged]


def _overlay(source: Photographs, out: Path, position: int) -> Image.Image:
    name = source.ids[position]
    image = decode_image(source[position]["image"], name)
    path = out / "masks" / f"{name}.png"
    mask = decode_mask(path.read_bytes(), str(path), len(source.classes))
    return Image.fromarray(labeled_mask(image, mask, source.classes))


def _write_overlay(picture: Image.Image, paths: tuple[Path, ...]) -> None:
    with atomic_write(paths[0]) as file:
        picture.save(file, "JPEG", quality=90, subsampling=0)


def _take_up(out: Path, network: Trained, source: Photographs) -> None:
    """Says in `out` what its masks are made with; masks of images that have changed are removed.

    Raises:
      UserError: what is there was made with something else, or nothing says with what.
    """
    weights = (network.checkpoint / "weights.npz").read_bytes()
    not_of_masks = {Predict.key, "needs", "split", *Predict.no_effect}
    settings = to_config(network.settings).to_dict()
    record = {
        "network": hashlib.sha256(weights).hexdigest()[:16],
        "settings": {k: v for k, v in settings.items() if k not in not_of_masks},
        "classes": ("background", *network.classes),
        "images": dict(zip(source.ids, source.digests, strict=True)),
    }
    found = (out / RECORD).is_file()
    before: dict[str, Any] = with_tuples(read_json(out / RECORD)) if found else {}
    if not before and any((out / "masks").glob("*.png")):
        raise UserError(
            f"expected an empty folder or results of this program in {out}, found masks of"
            " unknown origin: choose another --out"
        )
    for name in ("network", "classes", "settings"):
        if before and before[name] != record[name]:
            raise UserError(
                f"{out} holds masks that were made with other {name}"
                f"{_difference(before[name], record[name])}: choose another --out, or delete it"
            )
    old = before.get("images", {})
    for name, digest in old.items():
        if record["images"].get(name, digest) != digest:
            for path in (out / "masks" / f"{name}.png", out / "overlays" / f"{name}.jpg"):
                path.unlink(missing_ok=True)
    write_json(out / RECORD, record | {"images": old | record["images"]})


def _difference(old: Any, new: Any) -> str:
    """The first setting that differs, in brackets; nothing to say of other things."""
    if not isinstance(old, dict):
        return ""
    key = next(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    return f" ({key} was {old.get(key)}, is now {new.get(key)})"
