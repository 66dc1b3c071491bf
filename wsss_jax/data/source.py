"""The contract of data sources, which give random access to the records of a split."""

from collections.abc import Sequence
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float


class Record(TypedDict):
    """An image with its label and, if known, its mask.

    Attributes:
      id: the id of the image.
      image: the encoded image.
      size: the height and width of the decoded image in pixels.
      label: the multi-hot image-level label.
      segmentation: a single-channel PNG of class indices (0 background, 255 ignore), or None.
    """

    id: str
    image: bytes
    size: tuple[int, int]
    label: Float[np.ndarray, "c"]
    segmentation: bytes | None


@runtime_checkable
class Source(Protocol):
    """The records of a split in the order of its list; threads can share it.

    Attributes:
      classes: the names of the foreground classes.
      digest: a digest that changes with the content of the records.
    """

    classes: tuple[str, ...]
    digest: str

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the records."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """The heights and widths of the images, which are available without reading an image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...
