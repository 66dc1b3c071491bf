"""Finds given classes however labels spell them."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wsss_jax.data.class_names import fold
from wsss_jax.data.class_spelling import joined
from wsss_jax.errors import UserError, first, nearest

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_SHOWN = 5  # unknown classes that a message names


class Classes:
    """Finds foreground classes by name, whatever its case, or by mask index.

    Args:
      names: the names of the classes in the order of the mask indices from 1 on.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._exact = {name: position for position, name in enumerate(names)}
        self._numbers = any(_NUMBER.fullmatch(name.strip()) for name in names)
        folded = Counter(map(fold, names))
        self._folded = {
            fold(n): position for n, position in self._exact.items() if folded[fold(n)] == 1
        }

    def by_name(self, text: str) -> int | None:
        """Returns the position of a class among the foreground classes, or None."""
        return self._exact.get(text, self._folded.get(fold(text)))

    def find(self, text: str) -> int | None:
        """Does the same for a name or a mask index, which no text is if a class is called so."""
        found = self.by_name(text)
        if (
            found is None
            and not self._numbers
            and re.fullmatch(r"0*[1-9][0-9]{0,8}(\.0+)?", text, re.ASCII)
        ):
            index = int(text.partition(".")[0])
            found = index - 1 if index <= len(self._names) else None
        return found

    def find_all(self, text: str) -> list[int]:
        """Does the same for a name or for several, such as ``cat and dog``; else nothing."""
        found = self.find(text)
        if found is not None:
            return [found]
        return [self._folded[fold(part)] for part in joined(text, self._folded)]

    def unknown(self, wrong: Sequence[tuple[str, str]], path: Path) -> UserError:
        """Returns the error about all `wrong` classes, each with the id of its image."""
        distinct = dict(reversed(wrong))  # the first image of each
        (text, image), *others = reversed(distinct.items())
        also = ", ".join(f"{one!r} for {where}" for one, where in others[: _SHOWN - 1])
        more = f" and {len(others) - _SHOWN + 1} more" if len(others) >= _SHOWN else ""
        return UserError(
            f"expected a class name or an index of 1 to {len(self._names)} (0 is the background),"
            f" found {text!r} for {image}{', ' if also else ''}{also}{more} in {path}"
            f"{nearest(text, self._names)}: the classes are {', '.join(self._names)}; for others"
            " set data.classes to a file of their names"
        )


def multi_hot(
    labels: Sequence[str], names: Sequence[str], remedy: str
) -> Float32[np.ndarray, " c"]:
    """Returns which of the classes `names` are among `labels`, whatever their case.

    Raises:
      UserError: one of the labels is no class; `remedy` ends the message.
    """
    classes, found = Classes(names), np.zeros(len(names), np.float32)
    for label in labels:
        position = classes.by_name(label)
        if position is None:
            raise UserError(
                f"expected labels among {first(names, 20)}, found {label!r}"
                f"{nearest(label, names)}: {remedy}"
            )
        found[position] = 1
    return found
