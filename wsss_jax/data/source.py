"""Random access to the records of a data set."""

import importlib
import importlib.util
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from wsss_jax.errors import UserError


class Record(TypedDict):
    """One image: its id, encoded bytes, multi-hot label and, where known, encoded mask.

    `segmentation` is a single-channel PNG of class indices (0 background, 255 ignore).
    """

    id: str
    image: bytes
    label: Float[np.ndarray, "c"]
    segmentation: bytes | None


@runtime_checkable
class Source(Protocol):
    """The records of a split in the order of its list, safe to share between threads and to pickle.

    `classes` are the foreground names; `digest` changes when anything in the records does.
    """

    ids: list[str]
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


# The module of a builder whose name says more than the module's.
_MODULES = {"voc2012_wsss": "voc"}


def open_source(data: ConfigDict, split: str) -> Source:
    """The records of `split`, prepared on first use.

    Args:
      data: the data section: `builder` names a module of ``wsss_jax.data`` with a function
        ``open_source(data, split)``; the rest are that builder's options.
      split: the split's name.

    Raises:
      UserError: no such builder or split, or the builder refuses the data.
    """
    builder = str(data.builder)
    name = _MODULES.get(builder, builder)
    module = f"wsss_jax.data.{name}"
    opener = None
    if name.isidentifier() and module != __name__ and importlib.util.find_spec(module) is not None:
        opener = getattr(importlib.import_module(module), "open_source", None)
    if opener is None:
        raise UserError(
            f"expected data.builder to be voc2012_wsss, shapes or another module of wsss_jax.data,"
            f" found {builder!r}: set data.builder"
        )
    return opener(data, split)
