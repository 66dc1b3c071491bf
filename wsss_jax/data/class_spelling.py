"""Makes one list of classes from labels whose spelling varies."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from wsss_jax.data.class_names import fold, is_background

_NOTHING = frozenset(("", "none", "nan", "null", "nil", "-", "–", "—"))
_NOT_KNOWN = frozenset(
    (
        *("?", "??", "???", "unknown", "unclear", "unsure", "uncertain", "not sure", "undecided"),
        *("don't know", "dont know", "n/a", "#n/a", "na", "#nv", "tbd", "todo", "#ref!", "#name?"),
    )
)
_BETWEEN = re.compile(r"\s+(?:and|und|et|y|e|og|och|en|plus)\s+|\s*[&/]\s*", re.IGNORECASE)
_RARE, _TIMES, _SHORTEST = 2, 2, 3
_USUAL = 10  # images of the other classes on average, beside which a single one is suspicious


def split_cell(text: str, whole: Iterable[str] = ()) -> list[str]:
    """Returns the classes of a cell such as ``Cat;Dog``, ``Cat|Dog``, ``['Cat', 'Dog']``.

    A cell that is one of the names in `whole` stays whole, and names of nothing are left out.
    """
    text = text.strip()
    if fold(text) in set(map(fold, whole)):
        return [text]
    parts = re.split(r"[;|,\n]", text.strip("[](){}"))
    names = (re.sub(r"\s+", " ", part.strip(" \t'\"\u00a0")) for part in parts)
    return [name for name in names if not is_nothing(name)]


def is_nothing(name: str) -> bool:
    """Returns whether a name says that there is no object."""
    return name.strip().casefold() in _NOTHING or is_background(name)


def is_not_known(name: str) -> bool:
    """Returns whether a name says that nobody knows what there is, such as ``?``."""
    return name.strip().casefold() in _NOT_KNOWN


def joined(name: str, known: Collection[str]) -> list[str]:
    """Returns the parts of a name such as ``Cat and Dog`` if they all are classes, or nothing.

    Args:
      name: the name.
      known: the folded names of classes; if `name` is one of them, it has no parts.
    """
    parts = [part.strip() for part in _BETWEEN.split(name)]
    if len(parts) < 2 or fold(name) in known:
        return []
    return parts if all(part and fold(part) in known for part in parts) else []


def separated(counts: Mapping[str, int], classes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Returns the names that are several classes, such as ``Cat and Dog``, with these classes.

    They are such names if all of their parts are classes by themselves.

    Args:
      counts: how often each name occurs.
      classes: the names of the classes, if they are given.
    """
    if classes:
        known = set(map(fold, classes))
    else:
        known = {fold(name) for name in counts if len(_BETWEEN.split(name)) == 1}
    return {name: parts for name in counts if (parts := joined(name, known))}


def spellings(counts: Mapping[str, int], classes: Sequence[str] = ()) -> dict[str, str]:
    """Returns the class that each name means.

    Names that differ only in case, blanks, ``_`` and ``-`` mean one class. It is spelled as in
    `classes` or, without these, as in most of the labels.

    Args:
      counts: how often each name occurs.
      classes: the names to use, if they are given; other names are not in the result.
    """
    if classes:
        known = {fold(name): name for name in classes}
        return {name: known[fold(name)] for name in counts if fold(name) in known}
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        groups[fold(name)].append(name)
    chosen = {
        key: min(names, key=lambda name: (-counts[name], name)) for key, names in groups.items()
    }
    return {name: chosen[fold(name)] for name in counts}


def likely_misspellings(counts: Mapping[str, int]) -> dict[str, str]:
    """Returns rare names that differ by one typing error from a frequent one, with that name.

    A typing error is a letter too many, too few, or another one, or two exchanged letters. Names
    with different digits are no misspellings, such as ``type 1`` and ``type 2``.

    Args:
      counts: the number of images of each class.
    """
    order = [name for name, _ in Counter(counts).most_common()]
    found: dict[str, str] = {}
    for rare in order:
        if counts[rare] > _RARE or len(rare) < _SHORTEST:
            continue
        for frequent in order:
            if counts[frequent] < _TIMES * counts[rare]:
                break
            one, other = fold(rare), fold(frequent)
            same_digits = re.findall(r"\d+", one) == re.findall(r"\d+", other)
            if same_digits and abs(len(one) - len(other)) < 2 and _one_error(one, other):
                found[rare] = frequent
                break
    return found


def doubtful(counts: Mapping[str, int]) -> dict[str, str]:
    """Returns names that are hardly classes, each with the class that it is like, or "".

    They are likely misspellings, and names of a single image among classes that have many.

    Args:
      counts: the number of images of each class.
    """
    found = likely_misspellings(counts)
    others = [n for n in counts.values() if n > 1]
    if others and sum(others) >= _USUAL * len(others):
        found |= {name: "" for name, n in counts.items() if n == 1 and name not in found}
    return found


def _one_error(one: str, other: str) -> bool:
    """Returns whether one insertion, removal, replacement or exchange of neighbors divides them."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    first, second = one[start:], other[start:]
    exchanged = first[:2] == second[1::-1] and len(second) > 1 and first[2:] == second[2:]
    return (
        first[1:] == second[1:] or first[1:] == second or first == second[1:] or exchanged
    ) and one != other
