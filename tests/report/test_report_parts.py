"""What the report is made of: groups of samples, charts, headlines, colors."""

import dataclasses
import random

import numpy as np
import pytest

from tests.toys.light_methods import names
from tests.toys.made_up_run import make_run
from wsss_jax.data.columns import sorted_positions
from wsss_jax.report import wording
from wsss_jax.report.charts import loss_overview, training_charts
from wsss_jax.report.collect import Evaluation, StageResult, Training, collect
from wsss_jax.report.gallery import choose
from wsss_jax.training.metrics import MetricWriter, read_metrics
from wsss_jax.viz.colors import class_colors, paint_mask


def _collected(folder):
    ctx = make_run(folder)
    return ctx.stages, ctx.config, folder, "report"


@pytest.mark.parametrize("name", names())
def test_every_method_has_a_name_as_papers_write_it(name: str):
    assert wording.method_name(name) != name


@pytest.mark.parametrize(
    ("count", "per_group", "groups"),
    [
        (0, 3, ""),
        (1, 3, "b"),
        (2, 3, "bw"),
        (3, 3, "bmw"),
        (5, 3, "bmw"),
        (8, 3, "bbmmww"),
        (30, 4, "bbbbmmmmwwww"),
    ],
)
def test_groups_do_not_overlap(count, per_group, groups):
    names = [f"i{number:02d}" for number in range(count)]
    random.Random(0).shuffle(names)
    values = {name: int(name[1:]) / 30 for name in names}
    unscored = ["a", *names, "z"]
    scores = np.array([np.nan, *values.values(), np.nan])
    chosen = choose(scores, sorted_positions(unscored), per_group)
    assert "".join(group[0] for group, _ in chosen) == groups
    names = [unscored[position] for _, position in chosen]
    assert len(set(names)) == len(names)
    if count == 30:
        assert names[0] == "i29" and names[8] == "i00"
        middle = sorted(values[name] for name in names[4:8])
        assert middle[0] <= np.median(list(values.values())) <= middle[-1]


def test_ties_are_broken_by_id():
    ids = ["d", "b", "a", "c"]
    chosen = choose(np.array([0.5, 0.5, 0.5, 0.5]), sorted_positions(ids), 1)
    assert [(group, ids[position]) for group, position in chosen] == [
        ("best", "a"),
        ("median", "b"),
        ("worst", "d"),
    ]


def test_class_colors_differ():
    colors = class_colors(20).astype(int)
    assert colors.shape == (21, 3)
    distance = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(21, dtype=int)
    assert distance.min() >= 20


def test_painted_mask_shows_class_ignore_and_background():
    image = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    mask[8] = 255
    painted = paint_mask(image, mask, class_colors(1)).astype(int)
    color = class_colors(1)[1].astype(int)
    assert np.abs(painted[4, 4] - (0.72 * color + 0.28 * 80)).max() <= 1
    assert (painted[2, 2] == 255).all(), "outline"
    assert painted[8, 4].sum() > painted[0, 0].sum(), "ignored pixels are paler than background"


def test_headlines_of_a_long_chain(tmp_path):
    ctx = make_run(tmp_path)
    found = collect(ctx.stages, ctx.config, tmp_path, "report")

    def scored(kind: str, split: str, miou: float) -> Evaluation:
        stage = dataclasses.replace(found.stages[1], name=kind, type=kind)
        metrics = {"miou": miou, "split": split}
        evaluation = dataclasses.replace(found.evaluations[0].stage, metrics=metrics)
        return Evaluation(evaluation, (stage,))

    chain = [("infer_cam", "train", 0.5), ("infer_cam", "val", 0.4), ("crf", "train", 0.56)]
    chain += [("crf", "train", 0.6), ("random_walk", "train", 0.62), ("predict", "val", 0.64)]

    def figures(evaluations: list[tuple[str, str, float]]) -> list[str]:
        run = dataclasses.replace(found, evaluations=tuple(scored(*e) for e in evaluations))
        return [h.value for h in wording.headlines(run) if h.score is not None]

    assert figures(chain) == ["50.0", "40.0", "62.0", "64.0"]
    network = scored(*chain[-1])
    mixed = dataclasses.replace(network.stage, metrics={"miou": 0.6, "alpha": 8.0})
    assert wording.threshold_note(dataclasses.replace(network, stage=mixed)) == ""
    assert figures(chain[1:5]) == ["40.0", "60.0", "62.0"]  # the better of the two CRFs


def test_backgrounds_are_told_as_they_were(tmp_path):
    ctx = make_run(tmp_path)
    found = collect(ctx.stages, ctx.config, tmp_path, "report")

    def made(kind: str, **metrics: float) -> StageResult:
        return dataclasses.replace(found.stages[1], type=kind, section={}, metrics=metrics)

    def note(*chain: StageResult, **scores: float) -> str:
        stage = dataclasses.replace(found.evaluations[0].stage, metrics=scores, section={})
        return wording.threshold_note(Evaluation(stage, chain))

    crf = made("crf", alpha_unit=2.5)
    assert note(crf, alpha=0.5) == "background (1 − max)^1.25"
    assert note(made("pseudo_labels", alpha=0.5), crf) == "background (1 − max)^1.25"
    assert note(made("random_walk", alpha=3.0), made("train"), crf) == "background (1 − max)^3"
    assert note(made("crf"), alpha=24.0) == "background (1 − max)^24"


def test_what_evaluators_measured_is_drawn_beside_the_loss(tmp_path):
    """Each evaluator has steps of its own, some of them steps of the loss."""
    found = collect(*_collected(tmp_path)).trainings[0]
    with MetricWriter(tmp_path / "train") as writer:
        for step in range(10, 61, 10):
            writer.scalars(step, {"loss": 2.0 / step})
            writer.scalars(step, {"val/miou": 0.5 - abs(step - 40) / 100})
            writer.scalars(step + 5, {"train_few/miou": 0.6})
    training = dataclasses.replace(found, rows=read_metrics(tmp_path / "train"))
    loss, miou, *_ = training_charts(training)
    assert (loss.title, miou.title) == ("Loss", "mIoU while training")
    assert list(loss.x) == list(range(10, 61, 10)) and None not in loss.series[0].y
    assert list(miou.x) == list(range(10, 66, 5))
    few, val = miou.series
    assert (few.name, val.name) == ("train_few", "val") and few.joined and val.joined
    assert [value for value in val.y if value is not None] == pytest.approx(
        [20, 30, 40, 50, 40, 30]
    )
    assert val.legend == "val: best 50.0 at step 40"
    assert [(mark.x, mark.y) for mark in miou.marks] == [(15, 60.0), (40, 50.0)]
    assert [mark.text for mark in miou.marks] == ["", ""], "the legend says it"
    rows = [{"step": 7, "val/miou": 0.25}, {"step": 9, "train/miou": None}]
    alone = dataclasses.replace(training, rows=rows)
    (only,) = training_charts(alone)
    assert only.marks[0].text == "best 25.0 at step 7"


def test_losses_of_several_trainings_share_a_chart(tmp_path):
    found = collect(*_collected(tmp_path)).trainings[0]
    short = [{"step": step, "loss": 1.0} for step in (5, 6)]
    other = Training(dataclasses.replace(found.stage, name="other"), short)
    chart = loss_overview([found, other, dataclasses.replace(found, rows=[{"step": 1, "lr": 0.1}])])
    assert chart is not None and [s.name for s in chart.series] == ["train", "other"]
    assert list(chart.x) == list(range(1, 41))
    assert [x for x, y in zip(chart.x, chart.series[1].y, strict=True) if y is not None] == [5, 6]
    assert loss_overview([]) is None


def test_the_page_says_what_a_network_starts_from(tmp_path):
    ctx = make_run(tmp_path)
    training = collect(ctx.stages, ctx.config, tmp_path, "report").trainings[0]
    older = dataclasses.replace(training.stage, metrics={"images": 1})
    assert wording.weights_note(dataclasses.replace(training, stage=older)) == ""
    start = dict(file="b0.pth", format="torch legacy", sha256="ab" * 32, notes=[], matched=260)
    start |= dict(catalogue="efficientnet_lite0", resized=[], unexpected=["fc.bias"])
    metrics = {
        "parameters_of": {
            "backbone": {"trained": 3_000_000, "frozen": 400_000},
            "head": {"trained": 1_000, "frozen": 0},
        },
        "initial_weights": [start, {"stage": "train", "part": "", "sha256": "cd" * 32}],
    }
    stage = dataclasses.replace(training.stage, metrics={**training.stage.metrics, **metrics})
    assert wording.weights_note(dataclasses.replace(training, stage=stage)) == (
        "Parameters: backbone 3,400,000 (400,000 frozen), head 1,000. The backbone starts from"
        " b0.pth (efficientnet_lite0, torch legacy, SHA-256 abababababababab): 260 arrays matched,"
        " 1 left out. The network starts from stage train (SHA-256 cdcdcdcdcdcdcdcd)."
    )
    metrics["initial_weights"] = [dict(metrics["initial_weights"][1], drawn=["fc8_softmax"])]
    stage = dataclasses.replace(training.stage, metrics={**training.stage.metrics, **metrics})
    assert wording.weights_note(dataclasses.replace(training, stage=stage)).endswith(
        "The network starts from stage train (SHA-256 cdcdcdcdcdcdcdcd), but fc8_softmax from"
        " random numbers."
    )
