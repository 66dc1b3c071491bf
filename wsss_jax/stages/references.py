"""Settings of the form ``from:NEED``, whose value comes from another stage."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from wsss_jax.errors import UserError
from wsss_jax.files import make_again
from wsss_jax.host.background import alpha_of_threshold
from wsss_jax.records import check_fields, read_record
from wsss_jax.stages.base import Needs, expect


def named_need(setting: float | str, needs: Collection[str]) -> str | None:
    """Returns the need that ``from:NEED`` names, or None for other settings.

    Raises:
      UserError: the stage has no such need.
    """
    if not (isinstance(setting, str) and setting.startswith("from:")):
        return None
    need = setting.removeprefix("from:")
    if need not in needs:
        raise UserError(
            f"expected from:NEED with a need of the stage ({', '.join(needs)}), found {setting!r}:"
            " change it"
        )
    return need


def best_threshold(evaluation: Path) -> tuple[float, str]:
    """Returns the threshold that a stage found, and how: `contrast`, `held_out` or `oracle`.

    Args:
      evaluation: the folder of an evaluation of CAMs, or of a threshold stage.

    Raises:
      UserError: there is no finished stage, or it is an evaluation of masks.
    """
    path = evaluation / "metrics.json"
    metrics = read_record(path, {}, make_again(path))
    if "best_threshold" not in metrics:
        raise UserError(
            f"expected the scores of CAMs in {evaluation}, found those of masks, which have no"
            " threshold: name an evaluation of an infer_cam stage, or give a number"
        )
    kinds = {"best_threshold": float, "threshold_choice": str}
    check_fields(path, metrics, kinds, make_again(path))
    choice = metrics["threshold_choice"]
    # Whatever threshold an evaluation used, its best one was found with the ground truth.
    known = choice in ("contrast", "held_out")
    return float(metrics["best_threshold"]), choice if known else "oracle"


def check_alpha(setting: float | str, name: str, needs: Needs) -> None:
    """Refuses a setting that `resolved_alpha` would refuse, before the other stage has run.

    Raises:
      UserError: the setting is neither a number above 0 nor ``from:NEED`` with a need whose stage
        finds a threshold.
    """
    need = named_need(setting, needs)
    if need is None:
        _positive(setting, name)
    else:
        expect(needs, need, "metrics.json")


def resolved_alpha(setting: float | str, name: str, inputs: Mapping[str, Path]) -> float:
    """Returns the exponent of the background (1 − max)^α from a number or ``from:NEED``.

    The latter means the α whose background equals the score at the threshold that the other stage
    found; see `best_threshold`.

    Args:
      setting: the value of the setting.
      name: the name of the setting, for messages.
      inputs: the folders of the needed stages.

    Raises:
      UserError: `check_alpha` would refuse the setting, or the stage found a threshold of 0 or 1.
    """
    need = named_need(setting, inputs)
    if need is None:
        return _positive(setting, name)
    threshold, _ = best_threshold(inputs[need])
    if not 0 < threshold < 1:
        raise UserError(
            f"expected a threshold between 0 and 1 in {inputs[need]}, found {threshold:g}, which"
            f" no background (1 − max)^alpha has: give a number instead of {setting!r}"
        )
    return alpha_of_threshold(threshold)


def _positive(setting: float | str, name: str) -> float:
    try:
        value = float(setting)
    except ValueError as error:
        raise UserError(
            f"expected a number or from:NEED as {name}, found {setting!r}: change it"
        ) from error
    if not 0 < value < math.inf:
        raise UserError(f"expected {name} above 0, found {value:g}: change it")
    return value


def fraction(setting: float | str, name: str) -> float:
    """Returns a setting that is a score of 0 to 1.

    Raises:
      UserError: it is a number outside of this range.
      ValueError: it is no number.
    """
    value = float(setting)
    if not 0 <= value <= 1:
        raise UserError(f"expected {name} from 0 to 1, as maps have, found {value:g}: change it")
    return value
