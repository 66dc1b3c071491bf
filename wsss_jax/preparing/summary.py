"""Tells what a data set will be, before it is written."""

from collections.abc import Iterator

import numpy as np

from wsss_jax.errors import first
from wsss_jax.preparing.data_set import DataSet

_MOST = 40  # classes that are shown


def summary(data: DataSet, what: str) -> str:
    """Returns the summary of a data set as lines of text.

    Args:
      data: the data set.
      what: where its labels come from.
    """
    return "\n".join(_lines(data, what))


def _lines(data: DataSet, what: str) -> Iterator[str]:
    ids = [one.id for one in data.photographs]
    yield f"photographs  {len(ids):,}{_sizes(data)}"
    yield f"labels       {what}"
    if data.masks:
        yield f"masks        {len(data.masks):,}"
    for name, chosen in data.splits.items():
        some = f" ({first([ids[p] for p in chosen], 3)})" if chosen else ""
        yield f"{name:<12} {len(chosen):,}{some}"
    yield f"classes      {len(data.classes)}"
    counts = data.labels.sum(axis=0, dtype=int)
    shares = [data.labels[list(chosen)].sum(axis=0, dtype=int) for chosen in data.splits.values()]
    width = min(30, max([len(name) for name in data.classes] or [0]))
    for index in range(min(len(data.classes), _MOST)):
        by_split = ", ".join(
            f"{share[index]} {name}" for name, share in zip(data.splits, shares, strict=True)
        )
        examples = [ids[p] for p in np.flatnonzero(data.labels[:, index])[:2]]
        shown = f" · {first(examples)}" if examples else ""
        name = f"{data.classes[index]:<{width}}"
        yield f"  {index + 1:>3} {name} {counts[index]:>6,} ({by_split}){shown}"
    if len(data.classes) > _MOST:
        yield f"  ... and {len(data.classes) - _MOST} more"
    for remark in data.remarks:
        yield f"note: {remark}"


def _sizes(data: DataSet) -> str:
    if not data.photographs:
        return ""
    sides = sorted(one.size for one in data.photographs)
    (h0, w0), (h1, w1) = sides[0], sides[-1]
    return f", {w0} x {h0}" + (f" to {w1} x {h1}" if (h0, w0) != (h1, w1) else "") + " pixels"
