"""Few padded shapes for images of many sizes, so that few programs are compiled."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Size = tuple[int, int]
Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Batch(Generic[Item]):
    """At most `rows` items whose images are run together, in a padded shape (height, width)."""

    bucket: Size
    rows: int
    items: tuple[Item, ...]


def choose_buckets(sizes: Iterable[Size], count: int, multiple: int) -> tuple[Size, ...]:
    """At most `count` (height, width) shapes into which all `sizes` fit, with little padding.

    Sides are multiples of `multiple`. Starting with one shape per size, the two shapes are merged
    whose union costs the fewest extra pixels over all images, until few enough are left. The
    outcome depends on the sizes only, not on their order.
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
    """The bucket with the fewest pixels that `size` fits into."""
    fitting = [b for b in buckets if b[0] >= size[0] and b[1] >= size[1]]
    if not fitting:
        raise ValueError(f"no bucket holds an image of {size}")
    return min(fitting, key=lambda b: (b[0] * b[1], b))


def batches(
    items: Iterable[tuple[Size, Item]], buckets: Iterable[Size], pixels: int
) -> Iterator[Batch[Item]]:
    """Items in batches of one bucket, small buckets first, in their order in each.

    Args:
      items: with the sizes of their images, which fit into one of the buckets.
      buckets: see `choose_buckets`.
      pixels: what a batch holds at most, padding included, unless it is one item.
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
