"""What tests of prepared folders share: labels as they come, and what was written."""

import csv
from collections.abc import Callable
from pathlib import Path

Prepare = Callable[..., str]
"""Prepares ``tmp_path/photos`` as ``tmp_path/out`` and returns what is printed."""

A_TO_D = ("a.jpg", "sub/b.jpg", "c c.png", "sub/d.JPG")
EXPECTED = {"a": {"Cat"}, "sub/b": {"Cat", "Dog"}, "c c": {"Dog"}, "sub/d": set()}


def labels(out: Path) -> dict[str, set[str]]:
    """The labels that were written, by id."""
    with (out / "labels.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", "classes"]
    return {row[0]: set(row[1:]) for row in rows}


def ids(out: Path, split: str) -> list[str]:
    return (out / f"ImageSets/Segmentation/{split}.txt").read_text().splitlines()
