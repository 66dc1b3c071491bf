"""What a stage takes over from another one: settings that read ``from:NEED``."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from wsss_jax.errors import UserError
from wsss_jax.files import read_json
from wsss_jax.host.background import alpha_of_threshold
from wsss_jax.stages.base import Needs, expect


def named_need(setting: float | str, needs: Collection[str]) -> str | None:
    """The need that ``from:NEED`` names; None for settings of another kind.

    Raises:
      UserError: the stage has no such need.
    """
    if not (isinstance(setting, str) and setting.startswith("from:")):
        return None
    need = setting.removeprefix("from:")
    if need not in needs:
        raise UserError(f"{setting!r} names no need of the stage ({', '.join(needs)})")
    return need


def best_threshold(evaluation: Path) -> tuple[float, str]:
    """The threshold that a stage found, and how: `contrast`, `held_out` or `oracle`.

    Args:
      evaluation: folder of an evaluation of CAMs, or of a threshold stage.

    Raises:
      UserError: no finished stage there, or an evaluation of masks.
    """
    metrics = read_json(evaluation / "metrics.json")
    if "best_threshold" not in metrics:
        raise UserError(
            f"expected the scores of CAMs in {evaluation}, found those of masks, which have no"
            " threshold; need an evaluation of infer_cam, or give a number"
        )
    choice = metrics["threshold_choice"]
    # Whatever threshold an evaluation scored with, its best one was found by looking at the truth.
    known = choice in ("contrast", "held_out")
    return float(metrics["best_threshold"]), choice if known else "oracle"


def check_alpha(setting: float | str, name: str, needs: Needs) -> None:
    """Refuses a setting that `resolved_alpha` would refuse, before the other stage has run.

    Raises:
      UserError: neither a number above 0 nor ``from:NEED`` with the name of a stage that leaves a
        threshold.
    """
    need = named_need(setting, needs)
    if need is None:
        _positive(setting, name)
    else:
        expect(needs, need, "metrics.json")


def resolved_alpha(setting: float | str, name: str, inputs: Mapping[str, Path]) -> float:
    """A power of the background (1 − max)^α: a number, or ``from:NEED``.

    The latter is the α whose background meets the score at the threshold that the other stage
    found, see `best_threshold`.

    Args:
      setting: the value.
      name: the setting's, for messages.
      inputs: folders of the needed stages.

    Raises:
      UserError: see `check_alpha`; or the stage found a threshold of 0 or 1.
    """
    need = named_need(setting, inputs)
    if need is None:
        return _positive(setting, name)
    threshold, _ = best_threshold(inputs[need])
    if not 0 < threshold < 1:
        raise UserError(
            f"expected a threshold between 0 and 1 in {inputs[need]}, found {threshold:g}, which"
            f" no background (1 − max)^alpha has: give a number in place of {setting!r}"
        )
    return alpha_of_threshold(threshold)


def _positive(setting: float | str, name: str) -> float:
    try:
        value = float(setting)
    except ValueError as error:
        raise UserError(f"expected a number or from:NEED as {name}, found {setting!r}") from error
    if not 0 < value < math.inf:
        raise UserError(f"expected {name} above 0, found {value:g}: change it")
    return value
