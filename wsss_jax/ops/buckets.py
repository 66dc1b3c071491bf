"""Chooses a few padded shapes for images of many sizes, so that few programs are compiled."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Size = tuple[int, int]
Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Batch(Generic[Item]):
    """At most `rows` items whose images run together in a padded shape (height, width)."""

    bucket: Size
    rows: int
    items: tuple[Item, ...]


def choose_buckets(sizes: Iterable[Size], count: int, multiple: int) -> tuple[Size, ...]:
    """Returns at most `count` shapes (height, width) that fit all `sizes` with little padding.

    Sides are multiples of `multiple`. Starting with one shape per size, the two shapes whose union
    costs the fewest extra pixels over all images are merged until few enough are left. The result
    depends only on the sizes and not on their order.
    """

    def up(side: int) -> int:
        return -(-side // multiple) * multiple

    weight = Counter((up(h), up(w)) for h, w in sizes)
    buckets = dict(sorted(weight.items()))
    while len(buckets) > max(count, 1):
        shapes = list(buckets)
        _, first, second = min(
            (_merge_cost(a, buckets[a], b, buckets[b]), a, b)
            for i, a in enumerate(shapes)
            for b in shapes[i + 1 :]
        )
        union = _union(first, second)
        total = buckets.pop(first) + buckets.pop(second) + buckets.pop(union, 0)
        buckets[union] = total
        buckets = dict(sorted(buckets.items()))
    return tuple(buckets)


def bucket_of(size: Size, buckets: Iterable[Size]) -> Size:
    """Returns the bucket with the fewest pixels that `size` fits into.

    Raises:
      ValueError: `size` fits into no bucket.
    """
    fitting = [b for b in buckets if b[0] >= size[0] and b[1] >= size[1]]
    if not fitting:
        raise ValueError(f"expected a bucket for an image of {size}, found none large enough")
    return min(fitting, key=lambda b: (b[0] * b[1], b))


def batches(
    items: Iterable[tuple[Size, Item]], buckets: Iterable[Size], pixels: int
) -> Iterator[Batch[Item]]:
    """Groups items into batches of one bucket each, small buckets first, keeping their order.

    Args:
      items: items with the sizes of their images, each of which fits into one of the buckets.
      buckets: the shapes from `choose_buckets`.
      pixels: the most pixels in a batch, including padding; a single item may have more.
    """
    shapes = tuple(buckets)
    groups: dict[Size, list[Item]] = {}
    for size, item in items:
        groups.setdefault(bucket_of(size, shapes), []).append(item)
    for bucket, group in sorted(groups.items()):
        rows = max(pixels // (bucket[0] * bucket[1]), 1)
        for start in range(0, len(group), rows):
            yield Batch(bucket, rows, tuple(group[start : start + rows]))


def _union(a: Size, b: Size) -> Size:
    return max(a[0], b[0]), max(a[1], b[1])


def _merge_cost(a: Size, a_images: int, b: Size, b_images: int) -> int:
    height, width = _union(a, b)
    area = height * width
    return (area - a[0] * a[1]) * a_images + (area - b[0] * b[1]) * b_images
