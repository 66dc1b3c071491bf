"""Formats scores as tables of text, in percent."""

from collections.abc import Sequence
from typing import Any

from wsss_jax.scoring.score_files import PER_CLASS


def class_table(scores: dict[str, Any]) -> str:
    """Returns the per-class table of a `wsss_jax.scoring.score_files.summary`."""
    columns = ("IoU", "precision", "recall", "FP rate", "FN rate")
    width = max(len("background"), *map(len, scores["per_class"]))
    lines = [f"{'class':<{width}}" + "".join(f"{column:>11}" for column in columns)]
    for name, values in scores["per_class"].items():
        lines.append(f"{name:<{width}}" + "".join(_cell(values[key]) for key in PER_CLASS))
    means = [scores["miou"], scores["precision"], scores["recall"]]
    lines.append(f"{'mean':<{width}}" + "".join(map(_cell, means)))
    lines.append(f"pixel accuracy {100 * scores['pixel_accuracy']:.2f}")
    if "boundary_miou" in scores:
        lines.append(f"boundary mIoU {100 * scores['boundary_miou']:.2f}")
    return "\n".join(lines)


def confidence_table(parts: Sequence[dict[str, float | None]]) -> str:
    """Returns the table of what `wsss_jax.scoring.score_files.by_confidence` found."""
    rows = {"confidence": "least", "pixels": "kept", "mIoU": "miou"}
    return "\n".join(
        f"{name:<{len('background')}}" + "".join(_cell(part[key]) for part in parts)
        for name, key in rows.items()
    )


def _cell(value: float | None) -> str:
    return f"{'–':>11}" if value is None else f"{100 * value:>11.2f}"
