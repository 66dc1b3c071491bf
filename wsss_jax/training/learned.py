"""Finds out whether a training has learned to classify, which maps of activations depend on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsss_jax.data.source import Source

_TERMS = ("loss/cls", "loss/cls1")
_LABELS = 256  # images whose labels tell how frequent classes are
_SAME = 0.01  # below this chance loss, nearly all images have the same label
_CHANCE = 0.98


def chance_loss(source: Source) -> float:
    """Returns the classification loss of guessing each class by its frequency.

    It is the mean binary entropy of the classes, estimated from at most 256 images.
    """
    drawn = np.linspace(0, len(source) - 1, min(len(source), _LABELS)).astype(int)
    share = np.mean([source[int(position)]["label"] for position in drawn], 0)
    share = np.clip(share.astype(np.float64), 1e-12, 1 - 1e-12)
    return float(-(share * np.log(share) + (1 - share) * np.log(1 - share)).mean())


def classification_loss(rows: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    """Returns the classification loss of the last tenth of a training.

    Args:
      rows: the rows of ``metrics.jsonl``. The loss is the term ``cls`` or ``cls1`` of methods that
        have one; see `wsss_jax.methods.base.Aux`.
      steps: the length of the training.

    Returns:
      The mean over the rows, or None without such a term.
    """
    found = [
        (int(row["step"]), row[name])
        for row in rows
        for name in _TERMS
        if isinstance(row.get(name), int | float)
    ]
    late = [value for step, value in found if step > 0.9 * steps] or [v for _, v in found[-1:]]
    return float(np.mean(late)) if late else None


def nothing_learned(loss: float | None, chance: float) -> str:
    """Returns a warning if a classifier is not better than guessing, and otherwise ""."""
    if loss is None or chance < _SAME or loss < _CHANCE * chance:
        return ""
    return (
        f"the classifier has learned nothing: its loss at the end is {loss:.2f}, and guessing"
        f" classes by their frequency has {chance:.2f}. Maps and masks that are made with it are"
        " noise: lower the learning rate, or train for more epochs"
    )
