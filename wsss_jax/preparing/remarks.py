"""Remarks on a source that stop nothing, but that its user should know."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from wsss_jax.errors import first
from wsss_jax.preparing.photographs import Photograph
from wsss_jax.preparing.problems import Problems

_FEW = 10


def remark_on_photographs(photographs: Sequence[Photograph], problems: Problems) -> None:
    """Remarks on photographs that change, are transparent, are renamed, or occur twice."""
    changes: dict[str, list[str]] = {}
    for one in photographs:
        if one.change:
            changes.setdefault(one.change, []).append(one.id)
    for change, ids in changes.items():
        problems.remarks.append(
            f"photographs become PNGs, {change}: {len(ids):,} ({first(ids, 3)})"
        )
    if transparent := [one.id for one in photographs if one.transparent]:
        problems.remarks.append(
            "photographs have transparent parts, whose stored colors are used:"
            f" {len(transparent):,} ({first(transparent, 3)})"
        )
    renamed = [p.id for p in photographs if not p.path.as_posix().rpartition(".")[0].endswith(p.id)]
    if renamed:
        problems.remarks.append(
            "names have signs that lists cannot hold, and are written with _:"
            f" {len(renamed):,} ({first(renamed, 3)})"
        )
    same: dict[str, list[str]] = {}
    for one in photographs:
        same.setdefault(one.sha256, []).append(one.id)
    if pairs := [" = ".join(ids) for ids in same.values() if len(ids) > 1]:
        problems.remarks.append(
            f"photographs that occur more than once: {len(pairs):,} ({first(pairs, 3)})"
        )


def remark_on_labels(
    classes: Sequence[str],
    labels: UInt8[np.ndarray, "n c"],
    splits: Mapping[str, Sequence[int]],
    problems: Problems,
) -> None:
    """Remarks on classes from which a classifier learns little."""
    train = labels[list(splits.get("train", ()))]
    counts = train.sum(axis=0, dtype=int)
    if absent := [n for n, count in zip(classes, counts, strict=True) if not count]:
        problems.remarks.append(f"no photograph of train has {first(absent)}")
    if few := [f"{n} ({c})" for n, c in zip(classes, counts, strict=True) if 0 < c < _FEW]:
        problems.remarks.append(
            f"fewer than {_FEW} photographs of train have {first(few)}: expect little of them"
        )
    everywhere = [
        n for n, count in zip(classes, counts, strict=True) if len(train) and count == len(train)
    ]
    if everywhere:
        problems.remarks.append(
            f"every photograph of train has {first(everywhere)}: a classifier learns from"
            " photographs without a class as well, so add some"
        )
    if len(labels) and (empty := int((~labels.any(axis=1)).sum())):
        problems.remarks.append(f"photographs without a class count as background: {empty:,}")
