"""What the report is made of: groups of samples, markup, charts, colours."""

import dataclasses
import json
import re

import numpy as np
import pytest

from tests.toys.made_up_run import Page, make_run
from wsss_jax.report import wording
from wsss_jax.report.charts import Series, axis, line_chart, smooth
from wsss_jax.report.collect import Evaluation, StageResult, collect
from wsss_jax.report.gallery import choose
from wsss_jax.report.markup import Html, element
from wsss_jax.viz.colors import class_colours, paint_mask


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
    values = {f"i{number:02d}": number / 30 for number in range(count)}
    chosen = choose(values, per_group)
    assert "".join(group[0] for group, _ in chosen) == groups
    names = [name for _, name in chosen]
    assert len(set(names)) == len(names)
    if count == 30:
        assert names[0] == "i29" and names[8] == "i00"
        middle = sorted(values[name] for name in names[4:8])
        assert middle[0] <= np.median(list(values.values())) <= middle[-1]


def test_markup_escapes_all_but_itself():
    made = element("p", "<b>", Html("<i></i>"), 3, None, ["&", ("x",)], title='"', data_x=[1, "<"])
    assert made == '<p title="&quot;" data-x="[1,&quot;&lt;&quot;]">&lt;b&gt;<i></i>3&amp;x</p>'
    assert element("img", src="a", hidden=True, alt=None) == '<img src="a" hidden>'


def test_axis_has_round_ticks_around_the_values():
    found = axis([0.03, 0.91])
    assert found.ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert (found.place(0.0), found.place(1.0)) == (0.0, 1.0)
    logarithmic = axis([0.004, 3.0], log=True)
    assert logarithmic.ticks == (0.001, 0.01, 0.1, 1.0, 10.0)
    assert logarithmic.place(0.1) == pytest.approx(0.5)
    for constant in (0.0, 5.0, -2.0):
        level = axis([constant, constant])
        assert level.low < constant < level.high


def test_long_series_are_thinned_not_cut():
    steps = [float(step) for step in range(1, 5001)]
    chart = line_chart("Loss", steps, [Series("loss", steps, 1)], x_name="step")
    (attributes,) = Page(chart).named("figure")
    data = json.loads(str(attributes["data-chart"]))
    assert 150 < len(data["x"]) <= 300
    assert data["x"][-1] == 5000 and data["s"][0]["y"][0] == pytest.approx(np.mean(steps[:17]))


def test_one_point_makes_a_chart():
    chart = line_chart("Loss", [1.0], [Series("loss", [0.5], 1)], x_name="step")
    assert Page(chart).open == []
    assert re.search(r'd="M[\d.]+ [\d.]+h0" class="line s1"', chart), "a dot"


def test_smooth_is_centred_and_skips_gaps():
    line = [float(value) for value in range(120)]
    assert smooth(line)[30:90] == pytest.approx(line[30:90])
    assert smooth([1.0, None, 3.0]) == [1.0, None, 3.0]


def test_class_colours_differ():
    colours = class_colours(20).astype(int)
    assert colours.shape == (21, 3)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(21, dtype=int)
    assert distance.min() >= 20


def test_painted_mask_shows_class_ignore_and_background():
    image = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    mask[8] = 255
    painted = paint_mask(image, mask, class_colours(1)).astype(int)
    colour = class_colours(1)[1].astype(int)
    assert np.abs(painted[4, 4] - (0.72 * colour + 0.28 * 80)).max() <= 1
    assert (painted[2, 2] == 255).all(), "outline"
    assert painted[8, 4].sum() > painted[0, 0].sum(), "ignored pixels are paler than background"


def test_headlines_of_a_long_chain(tmp_path):
    ctx = make_run(tmp_path)
    found = collect(ctx.stages, ctx.config, tmp_path, "report")

    def scored(kind: str, split: str, miou: float) -> Evaluation:
        stage = dataclasses.replace(found.stages[1], name=kind, type=kind)
        metrics = {"miou": miou, "split": split}
        evaluation = dataclasses.replace(found.evaluations[0].stage, metrics=metrics)
        return Evaluation(evaluation, (stage,), {})

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
        return wording.threshold_note(Evaluation(stage, chain, {}))

    crf = made("crf", alpha_unit=2.5)
    assert note(crf, alpha=0.5) == "background (1 − max)^1.25"
    assert note(made("pseudo_labels", alpha=0.5), crf) == "background (1 − max)^1.25"
    assert note(made("random_walk", alpha=3.0), made("train"), crf) == "background (1 − max)^3"
    assert note(made("crf"), alpha=24.0) == "background (1 − max)^24"
