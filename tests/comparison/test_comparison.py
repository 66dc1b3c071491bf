"""What a comparison shows: table, page and picture."""

import dataclasses
import io
import json

import pytest
from PIL import Image

from tests.toys.made_up_run import CLASSES, DrawnSource, Page, make_run
from wsss_jax.comparison.charts import score_chart, threshold_chart
from wsss_jax.comparison.gallery import make_gallery, shown_split
from wsss_jax.comparison.page import build_page, title
from wsss_jax.comparison.picture import draw_picture
from wsss_jax.comparison.table import as_json, chains, markdown, plus_minus
from wsss_jax.comparison.trials import Comparison, Entry, Trial, labels
from wsss_jax.report.collect import Evaluation, StageResult, collect
from wsss_jax.report.render import bar_figure, line_figure


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    ctx = make_run(tmp_path_factory.mktemp("run"))
    run = collect(ctx.stages, ctx.config, ctx.workdir, "report")
    scored = {e.split: e for e in run.evaluations if e.stage.name == "eval_cam"}
    return Trial(0, run, scored, {"process": 3 << 30, "device": None})


def scoring(trial: Trial, seed: int, miou: float) -> Trial:
    """`trial` with another seed and score."""
    evaluation = trial.scored["train"]
    curve = [miou - 0.1 * abs(t - 0.2) for t in evaluation.stage.metrics["thresholds"]]
    metrics = {**evaluation.stage.metrics, "miou": miou, "miou_curve": curve}
    stage: StageResult = dataclasses.replace(evaluation.stage, metrics=metrics)
    other: Evaluation = dataclasses.replace(evaluation, stage=stage)
    return dataclasses.replace(trial, seed=seed, scored={"train": other})


def entry(trial: Trial, recipe: str, *scores: float) -> Entry:
    trials = tuple(scoring(trial, seed, miou) for seed, miou in enumerate(scores))
    return Entry(recipe, recipe.upper(), trials)


def bound(trial: Trial) -> Entry:
    """An entry whose training learned from the true masks."""
    learned = [
        dataclasses.replace(
            t, stage=dataclasses.replace(t.stage, section={**t.stage.section, "ground_truth": True})
        )
        for t in trial.run.trainings
    ]
    run = dataclasses.replace(trial.run, trainings=tuple(learned))
    return Entry("seg", "Upper bound", (scoring(dataclasses.replace(trial, run=run), 0, 0.9),))


@pytest.fixture(scope="module")
def compared(trial: Trial) -> Comparison:
    entries = (
        entry(trial, "cam", 0.40, 0.44, 0.42),
        entry(trial, "near", 0.433, 0.437, 0.435),
        entry(trial, "far", 0.50, 0.52, 0.51),
        entry(trial, "once", 0.90),
        bound(trial),
    )
    return Comparison("cam", (0, 1, 2), entries, (("once", 1, "no space | left"),))


def test_spread_and_what_is_more_than_it(compared: Comparison):
    cam, near, far, once, seg = compared.entries
    spread = cam.score("train")
    assert spread is not None and spread.std is not None
    assert spread.mean == pytest.approx(0.42)
    assert spread.std == pytest.approx(0.02), "of a sample: n - 1"
    assert compared.gain(cam, "train") is None and compared.gain(far, "val") is None
    assert compared.gain(far, "train") == pytest.approx(0.09)
    better = [e.recipe for e in compared.entries if compared.better(e, "train")]
    # near lies 0.015 above: more than its own deviation, not more than the baseline's.
    assert compared.gain(near, "train") == pytest.approx(0.015)
    assert better == ["far"], "one seed proves nothing, an upper bound is no rival"
    assert seg.supervised and not once.supervised
    assert plus_minus(once.score("train")) == "90.0" and plus_minus(once.score("val")) == "–"
    curve = cam.curve("train")
    assert curve is not None and max(curve[1]) == pytest.approx(0.42)


def test_curves_of_different_length_share_their_beginning(compared: Comparison):
    """Evaluations of an older version stopped at a lower threshold."""
    cam = compared.entries[0]
    metrics = cam.trials[0].scored["train"].stage.metrics
    whole = len(metrics["miou_curve"])
    for key in ("thresholds", "miou_curve"):
        metrics[key] = metrics[key][:40]
    curve = cam.curve("train")
    assert whole > 40 and curve is not None and len(curve[0]) == len(curve[1]) == 40
    assert threshold_chart(compared, "val") is None, "nothing was scored there"
    drawn = threshold_chart(compared, "train")
    assert drawn is not None
    chart = line_figure(drawn, "thresholds").data
    assert chart is not None
    assert len(chart["x"]) == whole == len(chart["s"][1]["y"]), "as far as the longest"
    assert chart["s"][0]["y"][39] is not None and chart["s"][0]["y"][40:] == [None] * (whole - 40)


def test_figures_of_the_training(trial: Trial, compared: Comparison):
    assert trial.seconds == 187.2 and trial.images_per_second == 50.0
    assert compared.entries[0].peak_memory == 3 << 30
    stage = dataclasses.replace(trial.run.trainings[0].stage, metrics={"steps": 30})
    rates = [
        dataclasses.replace(
            trial.run.trainings[0],
            stage=dataclasses.replace(stage, metrics={"steps": n, "images_per_second": rate}),
        )
        for n, rate in ((30, 60.0), (10, 10.0))
    ]
    both = dataclasses.replace(trial, run=dataclasses.replace(trial.run, trainings=tuple(rates)))
    assert both.images_seen == 160
    assert both.images_per_second == pytest.approx(160 / (120 / 60 + 40 / 10))


def test_labels_are_methods_where_they_differ():
    names = labels({"cam_voc": "cam", "seam_voc": "seam", "seam_mine": "seam", "odd": ""})
    assert names == {
        "cam_voc": "CAM",
        "seam_voc": "seam_voc",
        "seam_mine": "seam_mine",
        "odd": "odd",
    }


def test_markdown_and_json(compared: Comparison):
    text = markdown(compared)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows[:7]}) == 1
    assert "| 42.0 ± 2.0 |" in rows[2] and "| 51.0 ± 1.0 ▲ |" in rows[4]
    assert "| 90.0 |" in rows[5] and "true masks" in rows[6]
    assert text.count("▲") == 2 and "Missing: once, seed 1: no space | left" in text
    found = json.loads(json.dumps(as_json(compared)))
    far = found["rows"][2]["scores"]["train"]
    assert far["more_than_std"] and far["gain"] == pytest.approx(0.09)
    assert far["miou"]["values"] == [0.5, 0.52, 0.51]
    assert len(far["miou_curve"]) == len(far["thresholds"]) == 60
    assert [row["supervision"] for row in found["rows"]] == ["labels"] * 4 + ["masks"]


def test_steps_after_what_is_compared(trial: Trial):
    """A chain's later scores are means over the seeds that have them."""

    def at(seed: int, **scores: float) -> Trial:
        changed = []
        for evaluation in trial.run.evaluations:
            name = evaluation.stage.name
            if name in scores:
                stage = dataclasses.replace(
                    evaluation.stage, metrics={**evaluation.stage.metrics, "miou": scores[name]}
                )
                changed.append(dataclasses.replace(evaluation, stage=stage))
        run = dataclasses.replace(trial.run, evaluations=tuple(changed))
        return dataclasses.replace(scoring(trial, seed, scores["eval_cam"]), run=run)

    first, later, *_ = [e.stage.name for e in trial.run.evaluations]
    assert first == "eval_cam"
    alone = Entry("cam", "CAM", (at(0, eval_cam=0.4), at(1, eval_cam=0.42)))
    trials = (
        at(0, **{"eval_cam": 0.5, later: 0.6}),
        at(1, **{"eval_cam": 0.52, later: 0.64}),
        at(2, eval_cam=0.54),
    )
    chain = Entry("chain", "Chain", trials)
    both = Comparison("cam", (0, 1, 2), (alone, chain))
    assert chains(both) == [chain]
    seed, masks = chain.steps()
    assert seed.miou.values == (0.5, 0.52, 0.54) and masks.miou.values == (0.6, 0.64)
    rows = markdown(both).partition("All steps")[2].splitlines()[4:]
    assert len(rows) == 2 and f"| `{later}` |" in rows[1] and "| 2 | 62.0 ± 2.8 |" in rows[1]
    found = as_json(both)["rows"]
    assert [step["stage"] for step in found[1]["steps"]] == ["eval_cam", later]
    assert found[1]["steps"][1]["miou"]["values"] == [0.6, 0.64]
    page = Page(build_page(both, [], "", CLASSES, {}))
    words = " ".join(page.text)
    assert "Everything that the recipes score" in words and later in words and "62.0" in page.text
    assert "All steps" not in markdown(Comparison("cam", (0, 1), (alone,)))


@pytest.fixture(scope="module")
def gallery(compared: Comparison) -> list:
    assert shown_split(compared) == "train"
    return make_gallery(compared, DrawnSource(), "train", 2)


def test_page(compared: Comparison, gallery: list):
    text = build_page(compared, gallery, "train", CLASSES, {"Command": "python <b>"})
    page = Page(text)
    assert page.open == [] and len(page.named("script")) == 1
    assert "<script>alert" not in text and "<img src=x" not in text
    for _, attributes in page.tags:
        for key in ("src", "href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#"))
    kinds = [a["data-kind"] for a in page.named("figure", class_="tile")]
    assert kinds == ["image", "truth", "cam", "near", "far", "once", "seg"] * 6
    charts = [json.loads(str(a["data-chart"])) for a in page.named("figure") if "data-chart" in a]
    assert [[s["n"] for s in chart["s"]] for chart in charts] == [
        ["CAM", "NEAR", "FAR", "ONCE", "Upper bound"]
    ]
    words = " ".join(page.text)
    assert "42.0" in page.text and "+9.0 ▲" in words and "once, seed 1: no space | left" in words
    assert "1 to 3 seeds each" in words
    assert "CAM: best 42.0 at 0.20" in page.text and "Upper bound from true masks: 90.0." in words
    assert len(page.named("use")) == 5 + 11, "the best threshold of every recipe, and every seed"
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))


def test_bars_of_every_seed(compared: Comparison):
    chart = score_chart(compared, ["train"])
    ((heading, bars),) = chart.groups
    assert heading == "" and chart.highest == pytest.approx(0.9)
    assert [bar.text for bar in bars] == [
        "42.0 ± 2.0",
        "43.5 ± 0.2",
        "51.0 ± 1.0 ▲",
        "90.0",
        "90.0",
    ]
    assert [len(bar.values) for bar in bars] == [3, 3, 3, 1, 1]
    assert bars[2].mean == pytest.approx(0.51) and bars[2].std == pytest.approx(0.01)
    svg = bar_figure(chart, "scores").svg
    assert svg.count("<use") == 11, "every seed"
    page = Page(svg)
    assert page.open == [] and {"CAM", "Upper bound", "51.0 ± 1.0 ▲"} <= set(page.text)
    both = score_chart(compared, ["train", "val"])
    assert [heading for heading, _ in both.groups] == ["train", "val"] and not both.groups[1][1]


def test_page_without_pictures_or_baseline(compared: Comparison):
    rest = dataclasses.replace(compared, entries=compared.entries[1:])
    page = Page(build_page(rest, [], "", CLASSES, {}, "The photographs are gone."))
    assert page.open == [] and "The photographs are gone." in " ".join(page.text)
    assert "▲" not in "".join(markdown(rest).splitlines()[2:7])
    alone = dataclasses.replace(compared, entries=compared.entries[:1])
    assert "▲" not in markdown(alone), "the baseline is above nothing"
    assert title(rest) == "NEAR, FAR and ONCE" and title(compared) == "4 recipes"


def test_picture(compared: Comparison, gallery: list):
    for samples in (gallery, []):
        with Image.open(io.BytesIO(draw_picture(compared, samples))) as image:
            assert image.format == "PNG" and image.width == 1600
            assert 500 < image.height < 2000
            seen = {c: n for n, c in image.convert("RGB").getcolors(maxcolors=1 << 22) or []}
        assert seen[0xB0, 0x2A, 0x5B] > 200 and seen[0x0B, 0x75, 0x7C] > 200, "curves"
