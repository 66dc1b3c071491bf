"""Plans batches of images of many sizes, so that few programs are compiled and little is padded.

Images of similar sizes form a bucket. All of them are padded to the same shape, at every scale of
the image at which a network runs, so that each bucket needs one program per scale.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

Size = tuple[int, int]
"""The height and width of an image, or of a padded shape."""
Sizes = tuple[Size, ...]
"""The sizes of an image at every scale, or the padded shapes of a bucket."""

MOST_ROWS = 32
"""The most images of a batch on a device, because jobs of small images take memory, too."""
_MOST_SHAPES = 256


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images that run together.

    Attributes:
      bucket: the padded shapes, one for every scale.
      rows: the number of images that the program of the bucket takes.
      positions: the images, at most as many as `rows`.
    """

    bucket: Sizes
    rows: int
    positions: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How images run: in which padded shapes, and which of them together.

    Attributes:
      sizes: the sizes of all images, at every scale.
      buckets: the buckets from `choose_buckets`; every image fits into one of them.
      pixels: the most padded pixels of a batch on a device at any scale, unless it is one image.
      devices: the number of devices, each of which gets the same number of images.
    """

    sizes: Sequence[Sizes]
    buckets: tuple[Sizes, ...]
    pixels: int
    devices: int = 1

    def batches(self, positions: Iterable[int]) -> list[Batch]:
        """Groups `positions` into batches, those of the largest bucket first, in their order.

        The batches of a bucket have the same number of rows, whichever images are asked for. If all
        are, they are equally large, up to one image per device, so that few rows stay empty.
        """
        members = self.members()
        batches: list[Batch] = []
        for bucket, group in sorted(self.members(positions).items(), reverse=True):
            largest = max(height * width for height, width in bucket)
            most = self.devices * min(max(self.pixels // largest, 1), MOST_ROWS)
            images = len(members[bucket])
            count = -(-images // most)
            rows = -(-images // (count * self.devices)) * self.devices
            for start in range(0, len(group), rows):
                batches.append(Batch(bucket, rows, tuple(group[start : start + rows])))
        return batches

    def members(self, positions: Iterable[int] | None = None) -> dict[Sizes, list[int]]:
        """Returns which of `positions`, by default of all images, belong to each bucket."""
        found: dict[Sizes, Sizes] = {}
        members: dict[Sizes, list[int]] = {}
        for position in range(len(self.sizes)) if positions is None else positions:
            sizes = self.sizes[position]
            if sizes not in found:
                found[sizes] = bucket_of(sizes, self.buckets)
            members.setdefault(found[sizes], []).append(position)
        return members

    def canvases(self, sizes: Sequence[Size]) -> dict[Sizes, Size]:
        """Returns the height and width that hold every image of each bucket; `sizes` are theirs."""
        return {
            bucket: (max(sizes[p][0] for p in positions), max(sizes[p][1] for p in positions))
            for bucket, positions in self.members().items()
        }

    def padding(self) -> float:
        """Returns the padded pixels per pixel of the images, which counts the empty rows."""
        batches = self.batches(range(len(self.sizes)))
        padded = sum(batch.rows * _area(batch.bucket) for batch in batches)
        pixels = sum(map(_area, self.sizes))
        return padded / pixels - 1 if pixels else 0.0


def choose_buckets(
    sizes: Iterable[Sizes], count: int, multiple: int, program_pixels: int = 0
) -> tuple[Sizes, ...]:
    """Returns at most `count` buckets that fit all images with little padding.

    Starting with a bucket per size, the two buckets whose union costs the fewest extra pixels over
    all images and scales are merged, until few enough are left and another merge would cost more
    than it saves. The result depends only on the sizes and not on their order.

    Args:
      sizes: the sizes of every image. A size that many images have weighs more than others.
      count: the most buckets.
      multiple: the number whose multiples the padded sides are.
      program_pixels: the pixels that a network could run through in the time in which one of its
        programs is compiled.
    """
    images = Counter(sizes)
    if not images:
        return ()
    while True:
        weights: Counter[Sizes] = Counter()
        for own, number in images.items():
            weights[tuple((_up(h, multiple), _up(w, multiple)) for h, w in own)] += number
        if len(weights) <= max(_MOST_SHAPES, count):
            break
        multiple *= 2  # The search compares all pairs, so it begins with fewer sizes.
    buckets = np.array(sorted(weights), np.int64)  # [n, scales, 2]
    number: Any = np.array([weight for _, weight in sorted(weights.items())], np.int64)
    area: Any = buckets.prod(2).sum(1)

    def costs(i: int) -> np.ndarray:
        """The extra pixels of merging bucket `i` with each of the others."""
        union = np.maximum(buckets[i], buckets).prod(2).sum(1)
        return (union - area[i]) * number[i] + (union - area) * number

    cost = np.stack([costs(i) for i in range(len(buckets))])
    never = np.iinfo(np.int64).max
    np.fill_diagonal(cost, never)
    saved = program_pixels * buckets.shape[1]
    while len(buckets) > 1:
        first, second = sorted(divmod(int(cost.argmin()), len(cost)))
        if len(buckets) <= max(count, 1) and cost[first, second] > saved:
            break
        buckets[first] = np.maximum(buckets[first], buckets[second])
        number[first] += number[second]
        area[first] = buckets[first].prod(1).sum()
        buckets, number, area = (np.delete(one, second, 0) for one in (buckets, number, area))
        cost = np.delete(np.delete(cost, second, 0), second, 1)
        cost[first] = cost[:, first] = costs(first)
        cost[first, first] = never
    return tuple(sorted({tuple((int(h), int(w)) for h, w in one) for one in buckets}))


def bucket_of(sizes: Sizes, buckets: Iterable[Sizes]) -> Sizes:
    """Returns the bucket with the fewest pixels that `sizes` fit into.

    Raises:
      ValueError: `sizes` fit into no bucket.
    """
    fitting = [
        bucket
        for bucket in buckets
        if all(b[0] >= s[0] and b[1] >= s[1] for b, s in zip(bucket, sizes, strict=True))
    ]
    if not fitting:
        raise ValueError(f"expected a bucket for an image of {sizes}, found none large enough")
    return min(fitting, key=lambda bucket: (_area(bucket), bucket))


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _area(sizes: Sizes) -> int:
    return sum(height * width for height, width in sizes)


def place(
    images: list[UInt8[np.ndarray, "_ _ 3"]], bucket: Size, rows: int, flip: bool = False
) -> tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n h w"]]:
    """Puts images, each followed by its flipped copy if `flip`, at the top left of `bucket`.

    Returns:
      uint8 [rows·copies, H, W, 3], which is empty where there are fewer images than `rows`, and
      masks of valid pixels.
    """
    copies = 2 if flip else 1
    canvas = np.zeros((rows * copies, *bucket, 3), np.uint8)
    valid = np.zeros((rows * copies, *bucket), bool)
    for row, image in enumerate(images):
        height, width = image.shape[:2]
        for copy in range(copies):
            canvas[copies * row + copy, :height, :width] = image[:, ::-1] if copy else image
            valid[copies * row + copy, :height, :width] = True
    return canvas, valid
