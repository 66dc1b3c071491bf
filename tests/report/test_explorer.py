"""The explorer's data: what a page holds gives the evaluator's counts, and fits its budget."""

import base64
import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.toys.made_up_run import (
    CLASSES,
    EVIL_ID,
    IDS,
    NAMES,
    SIZE,
    DrawnContext,
    DrawnSource,
    Page,
    Unlabeled,
    drawn_mask,
    drawn_truth,
    make_run,
)
from tests.toys.sections import run_section
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.report.collect import Evaluation, collect
from wsss_jax.report.explorer import Explorer, make_explorer
from wsss_jax.report.gallery import shown_evaluation
from wsss_jax.report.planes import map_pairs, ranks, threshold_levels
from wsss_jax.scoring.confusion import class_counts, class_scores, strongest, threshold_counts
from wsss_jax.scoring.score_files import THRESHOLDS, score_cams
from wsss_jax.stages.evaluate import Evaluate
from wsss_jax.stages.report import Report

_LEVELS = np.array(THRESHOLDS, np.float32)


def harden(workdir: Path) -> None:
    """Gives some images maps on which rounding, ties and limits would show."""
    cams, random = workdir / "cam" / "cams", np.random.default_rng(0)
    steps = random.integers(0, 101, (2, *SIZE)) / 100  # on thresholds, as far as float16 can be
    steps[1, :20] = steps[0, :20]  # ties between classes
    write_cams(cams / "scene_0.npz", np.array([0, 1]), steps)
    write_cams(cams / "scene_1.npz", np.array([1]), np.full((1, *SIZE), 0.5))
    write_cams(cams / "scene_2.npz", np.array([], np.int32), np.zeros((0, *SIZE)))
    write_cams(cams / "scene_3.npz", np.array([0]), random.uniform(0, 1, (1, *SIZE)))


def evaluated(ctx: DrawnContext) -> dict[str, Any]:
    """Scores the maps with the evaluator, as a run would."""
    folder = ctx.workdir / "eval_cam"
    one = dataclasses.replace(ctx, stage="eval_cam", stage_dir=folder)
    metrics = run_section(Evaluate, one, ctx.config.eval_cam, {"pred": ctx.workdir / "cam"})
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return metrics


def page_of(ctx: DrawnContext) -> str:
    """Makes the page of a run; its picture has tests of its own."""
    with mock.patch("wsss_jax.stages.report.draw_picture", lambda *_: b""):
        run_section(Report, ctx, ctx.config.report, {})
    return (ctx.workdir / "report.html").read_text()


def unpacked(data: bytes) -> np.ndarray:
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(SIZE)
    return np.cumsum(rows, axis=0, dtype=np.uint8)


class Embedded:
    """What a page holds, read as a browser would read it."""

    def __init__(self, text: str):
        inside = [part.split("</script>")[0] for part in text.split("<script ")[1:]]
        parts = {part.split('id="')[1].split('"')[0]: part.split(">", 1)[1] for part in inside}
        self.data = json.loads(parts.pop("explorer-data"))
        self.images = self.data["images"]
        assert list(parts) == [f"pixels-{number}" for number in range(len(self.images))]
        self.chunks = []
        for entry, found in zip(self.images, parts.values(), strict=True):
            content, start = base64.b64decode(found, validate=True), 0
            assert len(content) == sum(entry["lengths"])
            ends = np.cumsum(entry["lengths"])
            self.chunks.append(
                [content[end - n : end] for end, n in zip(ends, entry["lengths"], strict=True)]
            )
            assert self.chunks[-1][start][8:12] == b"WEBP"

    def truth(self, image: int) -> np.ndarray:
        return unpacked(self.chunks[image][1])

    def mask(self, image: int, layer: int, level: int) -> np.ndarray:
        entry = self.images[image]["layers"][layer]
        planes = [unpacked(self.chunks[image][part]) for part in entry["parts"]]
        if "keys" not in entry:
            return planes[0]
        return np.where(planes[1] > level, np.array(entry["keys"], np.uint8)[planes[0]], 0)

    def pair_counts(self, image: int, layer: int, level: int) -> np.ndarray:
        """The counts of `class_counts` from the pairs by rank."""
        matrix = np.zeros((len(NAMES), len(NAMES)), np.int64)
        for truth, winner, by_rank in self.images[image]["layers"][layer]["pairs"]:
            below = sum(by_rank[: level + 1]) if len(by_rank) > 1 else 0
            matrix[truth, winner] += sum(by_rank) - below
            matrix[truth, 0] += below
        return np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Any, Embedded, dict[str, Any], str]:
    ctx = make_run(tmp_path_factory.mktemp("run"))
    harden(ctx.workdir)
    metrics = evaluated(ctx)
    text = page_of(ctx)
    return ctx, Embedded(text), metrics, text


def test_embedded_bytes_give_the_counts_of_the_evaluator_at_every_threshold(made):
    ctx, found, metrics, _ = made
    levels = found.data["levels"]
    assert [layer["kind"] for layer in found.data["layers"]] == ["maps", "mask"]
    assert set(THRESHOLDS) <= set(levels) == {*THRESHOLDS, metrics["threshold"]}
    total = np.zeros((len(levels), 3, len(NAMES)), np.int64)
    for index, name in enumerate(IDS):
        assert found.images[index]["id"] == name
        truth = drawn_truth(index)
        np.testing.assert_array_equal(found.truth(index), truth)
        path = ctx.workdir / "cam" / "cams" / f"{name}.npz"
        expected = score_cams(path, truth, len(CLASSES), levels).classes
        total += expected
        for level in range(len(levels)):
            mask = found.mask(index, 0, level)
            np.testing.assert_array_equal(class_counts(mask, truth, 2), expected[level])
            np.testing.assert_array_equal(found.pair_counts(index, 0, level), expected[level])
    miou = class_scores(total)["miou"]
    assert miou[[levels.index(t) for t in THRESHOLDS]].tolist() == metrics["miou_curve"]
    assert len(set(metrics["miou_curve"])) > 50, "the thresholds matter"
    (scores,) = found.data["layers"][0]["scores"]
    assert scores["curve"] == metrics["miou_curve"] and scores["images"] == len(IDS)


def test_masks_are_the_files(made):
    _, found, _, _ = made
    for index in range(len(IDS)):
        mask = drawn_mask(index)
        np.testing.assert_array_equal(found.mask(index, 1, 0), mask)
        counts = class_counts(mask, drawn_truth(index), len(CLASSES))
        np.testing.assert_array_equal(found.pair_counts(index, 1, 0), counts)


def test_names_come_back_as_they_are(made):
    _, found, _, text = made
    assert found.data["classes"] == list(NAMES) and found.images[-1]["id"] == EVIL_ID
    assert "<script>alert" not in text and "<img src=x" not in text
    page = Page(text)
    assert page.open == [] and "explore" in [a.get("id") for a in page.named("section")]
    hostile = Explorer({"a": "</script><!--"}, ())
    assert "<" not in hostile.json and json.loads(hostile.json) == hostile.data


def explored(ctx: Any, source: Any = DrawnSource, **limits: Any) -> Explorer | None:
    run = collect(ctx.stages, ctx.config, ctx.workdir, "report")
    shown = shown_evaluation(run)
    assert isinstance(shown, Evaluation)
    settings: dict[str, Any] = dict(images=200, megabytes=20.0, seed=1) | limits
    return make_explorer(run, shown, lambda split: source(), **settings)


def test_what_does_not_fit_is_said(made):
    ctx = made[0]
    whole = explored(ctx)
    assert whole is not None and whole.remark == ""
    three = explored(ctx, images=3)
    assert three is not None and len(three.pixels) == 3
    assert "3 of 8 images of split train" in three.remark and "random" in three.remark
    ids = [entry["id"] for entry in three.data["images"]]
    assert ids == [name for name in IDS if name in ids], "in the order of the list"
    other = explored(ctx, images=3, seed=2)
    assert other is not None and ids != [entry["id"] for entry in other.data["images"]]
    half = explored(ctx, megabytes=0.5 * whole.bytes / 1e6)
    assert half is not None and 0 < len(half.pixels) < len(IDS)
    constant = len(Explorer(whole.data | {"images": []}, ()).json)
    assert half.bytes < 0.5 * whole.bytes + constant and "of 8 images" in half.remark
    assert explored(ctx, images=0) is None and explored(ctx, megabytes=0.0) is None


def test_the_rest_of_the_page_does_not_shrink_for_the_explorer(made, monkeypatch):
    ctx, _, _, text = made
    whole = explored(ctx)
    assert whole is not None
    monkeypatch.setattr("wsss_jax.report.render._MOST_BYTES", len(text) - whole.bytes + 1000)
    assert page_of(ctx) == text


def test_without_truth_maps_and_masks_are_there(tmp_path):
    ctx = make_run(tmp_path)
    for name in ("eval_cam", "eval_masks"):
        (tmp_path / name / "metrics.json").unlink()
    found = explored(ctx, Unlabeled)
    assert found is not None and not any(entry["truth"] for entry in found.data["images"])
    assert found.data["layers"][0]["threshold"] == 0.2, "of the pseudo masks"
    pairs = found.data["images"][1]["layers"][0]["pairs"]
    assert {truth for truth, _, _ in pairs} == {-1}
    assert sum(sum(by_rank) for _, _, by_rank in pairs) == SIZE[0] * SIZE[1]
    assert found.data["layers"][0]["scores"] == [None]


def test_a_threshold_between_those_of_the_curve_is_a_level():
    levels = threshold_levels([0.215, 0.2, -0.5])
    assert levels == sorted({*THRESHOLDS, 0.215, -0.5}) and len(threshold_levels([])) == 100
    many = threshold_levels(np.linspace(0.001, 0.999, 400).tolist())
    assert len(many) == 255 and set(THRESHOLDS) <= set(many)


def test_ranks_compare_in_float32_and_strictly():
    exact = _LEVELS[[30, 31]][None]
    assert ranks(exact, _LEVELS).tolist() == [[30, 31]], "equal scores are background"
    above = np.nextafter(exact, np.float32(1))
    assert ranks(above, _LEVELS).tolist() == [[31, 32]]
    far = np.array([[-np.inf, 0.0, 2.0]], np.float32)
    assert ranks(far, _LEVELS).tolist() == [[0, 0, 100]]


def test_pairs_of_many_classes():
    """The classes of a data set without masks may need 16 bits."""
    random = np.random.default_rng(1)
    keys = np.array([3, 299])
    winner, best = strongest(random.random((2, *SIZE), np.float32), keys)
    rank = ranks(best, _LEVELS)
    pairs = map_pairs(None, winner, rank, 101)
    assert [pair[:2] for pair in pairs] == [(-1, 4), (-1, 300)]
    truth = random.choice(np.array([0, 4, 255], np.uint8), SIZE)
    counts = threshold_counts(np.stack([best]), keys[:1], truth, THRESHOLDS, 4)
    found = map_pairs(truth, np.full(SIZE, 4, np.uint8), rank, 101)
    assert {pair[:2] for pair in found} == {(0, 4), (4, 4)}
    hits = next(by_rank for t, w, by_rank in found if (t, w) == (4, 4))
    assert [sum(hits[level + 1 :]) for level in range(100)] == counts[:, 0, 4].tolist()


def test_a_damaged_file_leaves_the_report(tmp_path):
    ctx = make_run(tmp_path)
    damaged = tmp_path / "cam" / "cams" / "scene_5.npz"  # not among the pictures
    damaged.write_bytes(damaged.read_bytes()[:200])
    page = Page(page_of(ctx))
    told = [text for text in page.text if text.startswith("The explorer is left out")]
    assert len(told) == 1 and "scene_5.npz" in told[0]
    assert len(page.named("article", class_="sample")) == 6 and len(page.named("script")) == 1


def test_files_that_are_not_there_leave_the_others(tmp_path):
    ctx = make_run(tmp_path)
    (tmp_path / "masks" / "masks" / "scene_2.png").unlink()
    found = explored(ctx)
    assert found is not None
    assert [entry["layers"][1] is None for entry in found.data["images"]] == [
        name == "scene_2" for name in IDS
    ]
