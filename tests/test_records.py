"""Damaged records: every one of them, damaged in every way, is told in one line with a remedy."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.toys.records import FINISHED, finish
from tests.toys.toy_training import Masked, Toy
from wsss_jax.errors import UserError
from wsss_jax.files import dump_json, write_json
from wsss_jax.pipeline import memory, record
from wsss_jax.pipeline.finished_run import Trained, find_network
from wsss_jax.pipeline.photo_folder import segment
from wsss_jax.preparing import data_set
from wsss_jax.records import read_record
from wsss_jax.report.collect import collect
from wsss_jax.stages.predict import Predict
from wsss_jax.stages.references import best_threshold
from wsss_jax.training.evaluation import Evaluations
from wsss_jax.training.evaluators.miou import Miou
from wsss_jax.weights.export_weights import read_trained


@dataclasses.dataclass(frozen=True)
class Case:
    """A record, the path of a field and a value of another type, and the code that reads it."""

    path: str
    whole: Mapping[str, Any]
    field: str
    other: Any
    read: Callable[[Path], object]
    missing: bool = True  # whether the field has to be there


PARTS = {
    "format": record.FORMAT,
    "seed": 0,
    **{name: {} for name in ("section", "files", "data", "images", "needs")},
}
PREDICT = {"type": "predict", "needs": {"checkpoint": "train"}, "scales": (1.0,), "flip": False}
RESULTS = {"config": {"stages": ["train", "masks"], "train": {"type": "train"}, "masks": PREDICT}}
SEGMENT = {"network": "0", "settings": {}, "classes": ["background", "a"], "images": {}}


def network_of(folder: Path) -> Trained[Predict]:
    finish(folder / "train")
    if not (folder / "train/metrics.json").exists():
        write_json(folder / "train/metrics.json", {"classes": ["a"]})
    if not (folder / "results.json").exists():
        write_json(folder / "results.json", RESULTS)
    return find_network(folder, Predict)


def segmented(folder: Path) -> None:
    (folder / "photos").mkdir()
    cv2.imwrite(str(folder / "photos/a.png"), np.zeros((8, 8, 3), np.uint8))
    trained = network_of(folder)
    (trained.checkpoint / "weights.npz").write_bytes(b"other weights")
    segment(trained, folder / "photos", folder / "out")


def best_of(folder: Path) -> None:
    evaluators = {"val": Miou(every=1, keep_best=True, split="val")}
    source: Any = lambda split: Masked()  # noqa: E731
    Evaluations(MappingProxyType(evaluators), Toy(), source, folder).resume(8)


def reported(folder: Path) -> None:
    planned: Any = SimpleNamespace(name="train", type="train", needs={}, section={})
    collect([planned], ConfigDict(), folder, "")


CASES = {
    "start": Case(
        "a/_START.json", {"parts": PARTS}, "parts", 3, lambda f: record.recorded(f / "a")
    ),
    "start's parts": Case(
        "a/_START.json", {"parts": PARTS}, "parts.seed", "0", lambda f: record.recorded(f / "a")
    ),
    "start's time": Case(
        "a/_START.json",
        {"parts": PARTS, "seconds": 1.5},
        *("seconds", "1.5"),
        lambda f: record.read_start(f / "a"),
        missing=False,
    ),
    "done": Case("a/_DONE.json", FINISHED, "seconds", True, lambda f: record.is_done(f / "a")),
    "done's figures": Case(
        "a/_DONE.json", FINISHED, "metrics", [], lambda f: record.read_done(f / "a")
    ),
    "results": Case("results.json", RESULTS, "config", [], network_of),
    "results' stages": Case("results.json", RESULTS, "config.stages", ["train", 1], network_of),
    "results' stage": Case("results.json", RESULTS, "config.masks.type", None, network_of),
    "results' network": Case(
        "results.json", RESULTS, "config.masks.needs.checkpoint", 1, network_of
    ),
    "class names": Case(
        "train/metrics.json",
        {"classes": ["a"]},
        *("classes", "a"),
        network_of,
        missing=False,
    ),
    "threshold": Case(
        "eval/metrics.json",
        {"best_threshold": 0.4, "threshold_choice": "contrast"},
        *("threshold_choice", 0.4),
        lambda f: best_threshold(f / "eval"),
    ),
    "config": Case(
        "train/config.json",
        {"method": {"name": "cam"}},
        "method",
        "cam",
        lambda f: read_trained(f / "train"),
    ),
    "memory": Case(
        "memory.json",
        {"process": 1, "device": None},
        *("process", "1"),
        memory.read,
        missing=False,
    ),
    "segment": Case("out/predict.json", SEGMENT, "images", [], segmented),
    "segment's classes": Case("out/predict.json", SEGMENT, "classes", [1], segmented),
    "best weights": Case(
        "weights_best.json", {"step": 2, "evaluator": "val", "miou": 0.5}, "step", 2.5, best_of
    ),
    "best figure": Case(
        "weights_best.json", {"step": 2, "evaluator": "val", "miou": 0.5}, "miou", "0.5", best_of
    ),
    "prepared": Case("prepared.json", {"plan": "0"}, "plan", 0, lambda f: data_set.begin(f, "0")),
    "preparing": Case(
        ".preparing.json", {"plan": "0"}, "plan", 0, lambda f: data_set.begin(f, "0")
    ),
    "reported": Case("train/_DONE.json", {"seconds": 1.0}, "", None, reported, missing=False),
}


def changed(whole: Mapping[str, Any], field: str, value: Any, missing: bool) -> str:
    plain = json.loads(dump_json(whole))
    *outer, last = field.split(".")
    inner = plain
    for name in outer:
        inner = inner[name]
    if missing:
        del inner[last]
    else:
        inner[last] = value
    return dump_json(plain)


DAMAGES: dict[str, Callable[[Case], bytes | None]] = {
    "empty": lambda case: b"",
    "cut": lambda case: dump_json(case.whole).encode()[:-3],
    "a list": lambda case: b"[1, 2]",
    "a number": lambda case: b"3",
    "a folder": lambda case: None,
    "not UTF-8": lambda case: b'{"a": "\xff\xfe"}',
    "nested": lambda case: b"[" * 100_000,
    "field missing": lambda case: changed(case.whole, case.field, None, True).encode(),
    "field of another type": lambda case: changed(
        case.whole, case.field, case.other, False
    ).encode(),
}


def applies(damage: str, case: Case) -> bool:
    if damage == "field missing":
        return case.missing
    return damage != "field of another type" or bool(case.field)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name, case in CASES.items() for damage in DAMAGES if applies(damage, case)],
)
def test_a_damaged_record_is_one_line(name: str, damage: str, tmp_path: Path):
    case = CASES[name]
    path = tmp_path / case.path
    path.parent.mkdir(exist_ok=True)
    content = DAMAGES[damage](case)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        case.read(tmp_path)
    said = str(caught.value)
    assert said.startswith("expected ") and ", found " in said and ": " in said
    assert str(path) in said and "\n" not in said and len(said) < 500
    if damage.startswith("field"):
        assert case.field.rpartition(".")[2] + "'" in said


@pytest.mark.parametrize("name", ["start", "done", "threshold", "memory", "prepared", "reported"])
def test_a_whole_record_is_read(name: str, tmp_path: Path):
    case = CASES[name]
    path = tmp_path / case.path
    path.parent.mkdir(exist_ok=True)
    write_json(path, case.whole)
    case.read(tmp_path)


def test_messages_name_what_was_found(tmp_path: Path):
    path = tmp_path / "record.json"
    write_json(path, {"a": {"b": [1, "x"]}, "n": 3, "flag": True, "long": "x" * 100})
    fields = {"a.b": list, "a": dict[str, list], "n": float, "flag": bool, "long": str | None}
    assert read_record(path, fields, "go")
    for fields, said in (
        ({"a.b": list[int]}, "a list (each element a whole number) as 'a.b'"),
        ({"a": dict[str, int]}, "an object (each value a whole number) as 'a'"),
        ({"a": dict[str, list[str]]}, "an object (each value a list (each element a text)) as 'a'"),
        ({"flag": int}, "found true or false (True): go"),
        ({"long": int | None}, "a whole number or null as 'long'"),
        ({"long": list}, "found a text ('" + "x" * 36 + "...): go"),
        ({"a.c.d": str}, "a text as 'a.c.d' in .*, found no such field: go"),
    ):
        with pytest.raises(UserError) as caught:
            read_record(path, fields, "go")
        assert said.replace(" in .*", f" in {path}") in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_are_finite(number: str, tmp_path: Path):
    path = tmp_path / "record.json"
    path.write_text(f'{{"seconds": {number}}}')
    with pytest.raises(UserError, match="expected a finite number as 'seconds'"):
        read_record(path, {"seconds": float}, "go")


def test_a_number_of_many_digits_is_refused(tmp_path: Path):
    (tmp_path / "record.json").write_text('{"seconds": 1' + "0" * 400 + "}")
    with pytest.raises(UserError, match=r"found something else \(a number of 401 digits\): go"):
        read_record(tmp_path / "record.json", {"seconds": float}, "go")
