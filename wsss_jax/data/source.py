"""Random access to the records of a data set."""

from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float


class Record(TypedDict):
    """One image: its id, encoded bytes, size, multi-hot label and, where known, encoded mask.

    `size` is the height and the width of the decoded image in pixels. `segmentation` is a
    single-channel PNG of class indices (0 background, 255 ignore).
    """

    id: str
    image: bytes
    size: tuple[int, int]
    label: Float[np.ndarray, "c"]
    segmentation: bytes | None


@runtime_checkable
class Source(Protocol):
    """The records of a split in the order of its list, safe to share between threads and to pickle.

    `sizes` are those of the records, at hand without reading an image; `classes` are the foreground
    names; `digest` changes when anything in the records does.
    """

    ids: list[str]
    sizes: list[tuple[int, int]]
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...
