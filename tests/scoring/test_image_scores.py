"""The file of the scores of single images."""

import json
from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.columns import sorted_positions
from wsss_jax.errors import UserError
from wsss_jax.files import dump_json
from wsss_jax.scoring import image_scores
from wsss_jax.scoring.image_scores import FILE, read_image_scores

IDS = ["b", "ä", 'a"\n', "Z", "a", "é10", "10", "2"]


def write(folder: Path, rows: np.ndarray, positions: np.ndarray, column: int) -> None:
    with image_scores.image_scores(folder) as scores:
        for row in rows:
            scores.add(row)
        scores.write(IDS, positions, column)


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_the_file_is_that_of_a_dictionary(tmp_path: Path, monkeypatch, block: int):
    monkeypatch.setattr(image_scores, "_BLOCK_ROWS", block)
    positions = np.array([7, 0, 2, 1, 4, 6])
    rows = np.random.default_rng(0).random((6, 5))
    write(tmp_path, rows, positions, 3)
    expected = {IDS[p]: float(row[3]) for p, row in zip(positions, rows, strict=True)}
    assert (tmp_path / FILE).read_text() == dump_json(expected) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # the rows are gone
    assert read(tmp_path) == expected


def read(folder: Path) -> dict[str, float]:
    found = read_image_scores(folder, IDS, sorted_positions(IDS))
    return {name: value for name, value in zip(IDS, found, strict=True) if not np.isnan(value)}


def test_a_failure_leaves_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError), image_scores.image_scores(tmp_path) as scores:
        scores.add(np.ones(3))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    assert read(tmp_path) == {}


def test_a_file_with_another_layout_is_read(tmp_path: Path):
    (tmp_path / FILE).write_text(
        json.dumps({"other": 1, "b": None, "a": 0.5, "Z": float("nan"), "10": 1})
    )
    assert read(tmp_path) == {"a": 0.5, "10": 1.0}
    (tmp_path / FILE).write_text(json.dumps({"a": 0.5, "b": None}, indent=4))
    assert read(tmp_path) == {"a": 0.5}


DAMAGED = [
    '{\n  "a": 0.5,\n  "b" 1\n}',
    '{"a": 0',
    "",
    "[1]",
    '{\n  "a": 0.5,\n',
    '{\n  "\xff": 1\n}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_named(tmp_path: Path, text: str):
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"expected JSON in .*per_image.json.*restore the file"):
        read(tmp_path)


def test_scores_that_are_not_sorted_are_refused(tmp_path: Path):
    (tmp_path / FILE).write_text('{\n  "b": 0.5,\n  "a": 1\n}\n')
    with pytest.raises(UserError, match=r"expected sorted ids in .* found a after b"):
        read(tmp_path)


@pytest.mark.parametrize(
    "value", ["1" + "0" * 400, "Infinity", '"0.5"', "[1]", "true", "[" * 10**5]
)
def test_values_that_are_no_scores_are_refused(tmp_path: Path, value: str):
    for text in (f'{{\n"a": {value}\n}}', f'{{"a": {value}}}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UserError, match="expected JSON in"):
            read_image_scores(tmp_path, ["a"], sorted_positions(["a"]))
