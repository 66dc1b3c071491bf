"""The page on reliability: every row of its table names a test that exists."""

import ast
import functools
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "reliability.md"
ROW = re.compile(r"\| (.+) \| (.+) \| (.+) \| `(tests/[\w/]+\.py)::(test_\w+)` \|")


def rows() -> list[tuple[str, ...]]:
    table = PAGE.read_text().partition("## Faults and what was observed")[2]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    found = [ROW.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return [match.groups() for match in found if match]


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((REPOSITORY / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[4])
def test_a_row_names_a_test(row: tuple[str, ...]):
    assert row[4] in functions_of(row[3])


def test_there_are_many_rows_and_none_twice():
    pairs = [row[:2] + row[4:] for row in rows()]
    assert len(pairs) >= 40 and len(set(pairs)) == len(pairs)
