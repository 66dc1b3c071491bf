"""Lists of arrays in a readable form: arrays whose names differ in numbers share a line."""

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"(?<![A-Za-z])\d+|(?<=_)\d+")
_LEAF = re.compile(r"(?=[^./]*$)")  # before the last part of a name


def grouped(arrays: Mapping[str, Any]) -> list[str]:
    """Returns a line for all arrays of one shape and type whose names differ only in numbers.

    ``blocks.{0-11}.norm1.{weight,bias}  24 x  384  float32`` stands for 24 arrays.

    Args:
      arrays: the arrays by name, in the order in which they are listed.
    """
    groups: dict[tuple[str, tuple[int, ...], str], list[str]] = {}
    for name, array in arrays.items():
        key = _NUMBER.sub("\0", name), tuple(array.shape), str(array.dtype)
        groups.setdefault(key, []).append(name)
    leaves: dict[tuple[str, str, str, int], list[str]] = {}
    for (pattern, shape, dtype), names in groups.items():
        layer, leaf = _LEAF.split(_together(pattern, names), 1)
        leaves.setdefault((layer, _shape(shape), dtype, len(names)), []).append(leaf)
    rows = [
        (layer + _one_of(found), f"{count * len(found)} x", shape, dtype)
        for (layer, shape, dtype, count), found in leaves.items()
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    return [
        f"{name:<{widths[0]}}  {count:>{widths[1]}}  {shape:<{widths[2]}}  {dtype}"
        for name, count, shape, dtype in rows
    ]


def _one_of(leaves: list[str]) -> str:
    return leaves[0] if len(leaves) == 1 else "{" + ",".join(leaves) + "}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _together(pattern: str, names: list[str]) -> str:
    """Returns a pattern with the numbers that stand in each of its places."""
    found = [list(map(int, _NUMBER.findall(name))) for name in names]
    parts = pattern.split("\0")
    text = parts[0]
    for place, part in enumerate(parts[1:]):
        text += _ranges(sorted({numbers[place] for numbers in found})) + part
    return text


def _ranges(numbers: list[int]) -> str:
    """Returns ``3``, or ``{0-2,5}`` for several numbers."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return "{" + ",".join(shown) + "}"
