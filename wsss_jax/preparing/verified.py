"""A data set whose files have all been opened."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Finding(NamedTuple):
    """Something that was found.

    Attributes:
      title: what it is, such as ``photographs that cannot be read``.
      names: the ids, classes or files.
      advice: what it means or what to do.
      mend: whether a training would be refused or misled.
    """

    title: str
    names: Sequence[str]
    advice: str
    mend: bool


class Image(NamedTuple):
    """What was found in the files of an id.

    Attributes:
      id: the id.
      splits: the lists that name it.
      path: the photograph.
      mask: its mask, or None.
      label: the positions of its classes, or None if it has no label.
      label_is_mask: whether its label is what its mask has.
      sha256: the digest of the photograph.
      fingerprint: 64 bits that similar photographs share.
      size: height and width as shown; zeros if it cannot be read.
      orientation: its EXIF orientation.
      error: why the photograph cannot be read, or "".
      mask_state: what is wrong with the mask, or "".
      mask_error: the file and its values.
      in_mask: the positions of the classes in the mask.
      only_ignored: whether the mask has nothing but 0 and 255, and some 255.
    """

    id: str
    splits: tuple[str, ...]
    path: Path
    mask: Path | None
    label: frozenset[int] | None
    label_is_mask: bool = False
    sha256: str = ""
    fingerprint: int = 0
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    error: str = ""
    mask_state: str = ""
    mask_error: str = ""
    in_mask: frozenset[int] = frozenset()
    only_ignored: bool = False


@dataclasses.dataclass(frozen=True)
class Verified:
    """A data set and what was found in it.

    Attributes:
      folder: its folder.
      classes: the names of its C foreground classes.
      images: its images, sorted by id.
      splits: the number of images of each list.
      findings: what was found, the worst first.
    """

    folder: Path
    classes: tuple[str, ...]
    images: Sequence[Image]
    splits: Mapping[str, int]
    findings: Sequence[Finding]

    def counts(self, split: str) -> Int64[np.ndarray, " c"]:
        """Returns how many images of a split have each class."""
        counts = np.zeros(len(self.classes), np.int64)
        for image in self.images:
            if split in image.splits and image.label:
                counts[list(image.label)] += 1
        return counts

    def together(self) -> Int64[np.ndarray, "c c"]:
        """Returns how many images have both of two classes; the diagonal has those of one."""
        rows = np.zeros((len(self.images), len(self.classes)), np.int64)
        for row, image in zip(rows, self.images, strict=True):
            row[list(image.label or ())] = 1
        return rows.T @ rows


def lines(data: Verified) -> Iterator[str]:
    """Yields what was found as lines of text; those that begin with ! must be mended."""
    yield f"{data.folder}: {len(data.images):,} images, {len(data.classes)} classes"
    for name, count in data.splits.items():
        masks = sum(one.mask is not None for one in data.images if name in one.splits)
        yield f"  {name:<12} {count:,} images, {masks:,} masks"
    sizes = Counter(image.size for image in data.images if not image.error)
    if sizes:
        (small, *_), (*_, large) = sorted(sizes), sorted(sizes)
        usual = sizes.most_common(1)[0][0]
        shown = [f"{width} x {height}" for height, width in (small, usual, large)]
        yield f"  sizes        {shown[0]} to {shown[2]}, most often {shown[1]}"
    width = min(30, max(map(len, data.classes)))
    by_split = {name: data.counts(name) for name in data.splits}
    for index, name in enumerate(data.classes[:40]):
        counts = ", ".join(f"{counts[index]:,} {split}" for split, counts in by_split.items())
        yield f"  {index + 1:>3} {name:<{width}} {counts}"
    together = data.together()
    np.fill_diagonal(together, 0)
    pairs = np.argsort(-np.triu(together), axis=None)[:5]
    shown_pairs = [np.unravel_index(int(pair), together.shape) for pair in pairs]
    often = [
        f"{data.classes[int(a)]} and {data.classes[int(b)]} ({together[a, b]})"
        for a, b in shown_pairs
        if together[a, b]
    ]
    if often:
        yield f"  together     {', '.join(often)}"
    for one in data.findings:
        some = ", ".join(one.names[:5]) + (", ..." if len(one.names) > 5 else "")
        named = f": {len(one.names):,} ({some})" if some else ""
        yield f"{'!' if one.mend else ' '} {one.title}{named}: {one.advice}"
    wrong = sum(one.mend for one in data.findings)
    yield f"{wrong} to mend" if wrong else "nothing to mend"
