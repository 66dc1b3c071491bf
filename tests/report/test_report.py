"""The report of a small, made-up run: eight drawn images of two classes."""

import dataclasses
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests.toys.made_up_run import (
    CLASSES,
    EVIL_ID,
    IDS,
    NAMES,
    THRESHOLDS,
    DrawnSource,
    LostContext,
    Page,
    Unlabeled,
    make_run,
    recipe,
    report_context,
)
from tests.toys.sections import run_section
from wsss_jax.files import write_json
from wsss_jax.pipeline import graph
from wsss_jax.report import render, wording
from wsss_jax.report.collect import collect
from wsss_jax.report.gallery import make_gallery, map_folders, shown_evaluation
from wsss_jax.report.page import build_page
from wsss_jax.report.picture import draw_picture
from wsss_jax.stages.report import Report
from wsss_jax.viz.sheet import Sheet


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Any, str, Page]:
    ctx = make_run(tmp_path_factory.mktemp("run"))
    metrics = run_section(Report, ctx, ctx.config.report, {})
    text = (ctx.stage_dir / "report.html").read_text()
    assert metrics["page_bytes"] == len(text.encode()) < 4_000_000
    assert metrics["images_shown"] == 6
    return ctx, text, Page(text)


def test_page_is_well_formed_and_copied(made):
    ctx, text, page = made
    assert page.open == []
    assert (ctx.workdir / "report.html").read_text() == text
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids)), "an id may occur once"
    anchors = [a["href"] for a in page.named("a") if a.get("href")]
    assert {"#gallery", "#scores", "#classes", "#training", "#settings"} <= set(anchors)
    assert {str(a).lstrip("#") for a in anchors} <= set(ids)


def test_page_needs_no_network(made):
    _, text, page = made
    without_pictures = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text)
    assert "://" not in without_pictures
    assert not re.search(r"""(src|href)=["']//|@import|url\(""", without_pictures)
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#"))


def test_pictures_are_complete_and_described(made):
    _, _, page = made
    shown = [a["data-id"] for a in page.named("article", class_="sample")]
    # Scores fall with the index: two best, two median, the very worst first.
    assert shown == [IDS[0], IDS[1], IDS[3], IDS[4], IDS[7], IDS[6]]
    kinds = [a["data-kind"] for a in page.named("figure", class_="tile")]
    assert kinds == ["image", "truth", "heat", "mask"] * 6
    pictures = [a for a in page.named("img") if a.get("src")]
    assert len(pictures) == 6 * 4 + 3
    assert all(a.get("alt") for a in pictures)
    texts = "".join(page.text)
    assert "Best" in texts and "Median" in texts and "Worst" in texts
    assert texts.count("Parameters: backbone 1,200.") == 1


def test_names_cannot_break_the_page(made):
    _, text, page = made
    scripts = page.named("script")
    run = [a for a in scripts if "type" not in a]
    assert len(run) == 2 and len(scripts) == 3 + len(IDS), "the rest is data, which is not run"
    assert {a.get("type") for a in scripts if a not in run} == {"application/json", "text/plain"}
    assert "<script>alert" not in text and "<img src=x" not in text
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert EVIL_ID in page.text and CLASSES[1] in page.text, "shown as they are"


def test_scores_say_how_they_were_measured(made):
    ctx, _, page = made
    texts = " ".join(page.text)
    for told in ("0.5, 1", "strict", "shapes (generated)", "best on these images", "oracle"):
        assert told in texts
    miou = json.loads((ctx.workdir / "eval_cam" / "metrics.json").read_text())["miou"]
    assert f"{100 * miou:.1f}" in page.text
    assert "best 50.0 at 0.20" in page.text, "the best threshold is marked"
    assert "3:07" in page.text and "SEAM" in page.text


def test_charts_carry_their_values(made):
    _, _, page = made
    charts = [json.loads(str(a["data-chart"])) for a in page.named("figure", class_="chart")]
    by_unit = {}
    for chart in charts:
        by_unit.setdefault(chart["u"], []).append([s["n"] for s in chart["s"]])
        assert all(len(s["y"]) == len(chart["x"]) for s in chart["s"])
    assert by_unit["background threshold"] == [["mIoU", "precision", "recall"]]
    assert by_unit["step"] == [["loss"], ["cls", "er"], ["learning rate"], ["images per second"]]
    assert charts[0]["x"] == THRESHOLDS
    assert charts[1]["s"][0]["y"][6] is None, "the step without a finite loss"
    assert charts[2]["log"], "terms of very different size"


def test_class_table_is_sortable_with_every_class_and_stage(made):
    ctx, _, page = made
    assert len(page.named("th", **{"aria-sort": "none"})) == 3  # class and every evaluation
    (group,) = page.named("div", class_="measures")
    assert "hidden" in group, "the script shows it"
    measures = [text for text in page.text if text in ("IoU", "Precision", "Recall")]
    assert measures[-3:] == ["IoU", "Precision", "Recall"]
    metrics = json.loads((ctx.workdir / "eval_cam" / "metrics.json").read_text())
    rows = [json.loads(str(a["data-measures"])) for a in page.named("tr") if "data-measures" in a]
    assert len(rows) == len(NAMES) + 1
    for name, row in zip(NAMES, rows, strict=False):
        for measure, values in zip(("iou", "precision", "recall"), row, strict=True):
            expected = metrics["per_class"][name][measure]
            assert values == pytest.approx([expected, expected], abs=1e-5)
    means = [metrics[key] for key in ("miou", "precision", "recall")]
    assert [row[0] for row in rows[-1]] == pytest.approx(means, abs=1e-5)
    values = [a["data-value"] for a in page.named("th", scope="row") if "data-value" in a]
    assert values == list(NAMES)


def test_settings_hold_every_value(made):
    _, _, page = made
    assert len(page.named("details")) == 6 and not page.named("details", open="")
    texts = page.text
    assert "method.backbone.width" in texts and "augment.crop" in texts and "seed" in texts


def test_picture_is_a_png_of_sane_size(made):
    ctx, _, _ = made
    data = (ctx.stage_dir / "report.png").read_bytes()
    assert data == (ctx.workdir / "report.png").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.width == 1600 and 900 <= image.height <= 1500
        colors = image.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colors is not None and len(colors) > 1000, "there is something to see"
    seen = {color: count for count, color in colors}
    assert seen[0xB0, 0x2A, 0x5B] > 500, "curves"
    assert seen[0x14, 0x12, 0x2E] > 100_000, "the dark band"
    assert len(data) < 1_500_000


def test_same_run_same_report(made):
    ctx, text, _ = made
    before = (ctx.stage_dir / "report.png").read_bytes()
    run_section(Report, ctx, ctx.config.report, {})
    assert (ctx.stage_dir / "report.html").read_text() == text
    assert (ctx.stage_dir / "report.png").read_bytes() == before


def test_nothing_but_the_recipe(tmp_path):
    ctx: Any = report_context(recipe(), tmp_path)
    metrics = run_section(Report, ctx, ctx.config.report, {})
    page = Page((tmp_path / "report.html").read_text())
    texts = " ".join(page.text)
    assert metrics["images_shown"] == 0 and page.open == []
    assert "No result yet from: train, cam, eval_cam, masks, eval_masks." in texts
    for sentence in ("there are no images", "Nothing was evaluated", "No training figures"):
        assert sentence in texts
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_warnings_stand_on_top(tmp_path, monkeypatch):
    monkeypatch.setattr("wsss_jax.stages.report.draw_picture", lambda *_: b"")
    ctx = make_run(tmp_path)
    warnings = ["the classifier has <b>learned</b> nothing"]
    write_json(tmp_path / "train/metrics.json", {"images": 8, "warnings": warnings})
    run_section(Report, ctx, ctx.config.report, {})
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert f"Warning of train: {warnings[0]}." in " ".join("".join(page.text).split())


def test_warnings_are_in_the_picture(made, monkeypatch):
    """In lines that fit, below the figures."""
    ctx, _, _ = made
    found = collect(ctx.stages, ctx.config, ctx.workdir, "report")
    before = Image.open(io.BytesIO(draw_picture(found, [], CLASSES)))
    train, *others = found.stages
    told: list[str] = []
    text = Sheet.text

    def drawn(
        sheet: Sheet, left: float, base: float, words: str, *more: Any, **named: Any
    ) -> float:
        told.append(words)
        return text(sheet, left, base, words, *more, **named)

    monkeypatch.setattr(Sheet, "text", drawn)
    for count, last in ((1, "word"), (9, "… The page has all warnings.")):
        train = dataclasses.replace(train, metrics={"warnings": ["word " * 60] * count})
        one = dataclasses.replace(found, stages=(train, *others))
        told.clear()
        after = Image.open(io.BytesIO(draw_picture(one, [], CLASSES)))
        assert after.height > before.height
        assert any(words.startswith("Warning of train: word") for words in told)
        assert max(map(len, told)) <= 190 and any(words.endswith(last) for words in told)


def test_classes_of_masks_without_scores(tmp_path):
    ctx = make_run(tmp_path)
    for name in ("eval_cam", "eval_masks"):
        (tmp_path / name / "metrics.json").unlink()
    shares = {"background": 0.7, CLASSES[0]: 0.25, CLASSES[1]: 0.05, "ignore": 0.0}
    images = {"background": 8, CLASSES[0]: 1234, CLASSES[1]: 3, "ignore": 0}
    metrics = {"images": 8, "class_shares": shares, "class_images": images}
    write_json(tmp_path / "masks/metrics.json", metrics)
    run_section(Report, ctx, ctx.config.report, {})
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    texts = page.text
    start = texts.index("Labeled")
    rows = [text for text in texts[start:] if text.strip()]
    first = rows.index(CLASSES[0])
    assert rows[first : first + 4] == [CLASSES[0], "8", "1,234", "25.0"], "labeled, masks, pixels"
    second = rows.index(CLASSES[1])
    assert rows[second : second + 4] == [CLASSES[1], "4", "3", "5.0"]
    assert "ignore" not in rows[first : second + 5]


@pytest.mark.parametrize("lost", ["masks", "cam", "eval_cam", "eval_masks", "train"])
def test_a_missing_stage_is_left_out(tmp_path, monkeypatch, lost):
    monkeypatch.setattr(
        "wsss_jax.stages.report.draw_picture", lambda *_: b""
    )  # has a test of its own
    ctx = make_run(tmp_path)
    (tmp_path / lost).rename(tmp_path / f"{lost}_moved_away")
    metrics = run_section(Report, ctx, ctx.config.report, {})
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert f"No result yet from: {lost}." in " ".join(page.text)
    assert metrics["images_shown"] == 6
    kinds = {a["data-kind"] for a in page.named("figure", class_="tile")}
    assert ("heat" in kinds) == (lost != "cam")


@pytest.mark.parametrize("lost", ["eval_cam", "train"])
def test_picture_without_a_chart(made, lost):
    ctx, _, _ = made
    found = collect(ctx.stages, ctx.config, ctx.workdir, "report")
    evaluation = found.evaluations[1]
    samples = make_gallery(evaluation, DrawnSource(), 1)
    kept = tuple(e for e in found.evaluations if e.stage.name != lost)
    trained = () if lost == "train" else found.trainings
    without = dataclasses.replace(found, evaluations=kept, trainings=trained)
    with Image.open(io.BytesIO(draw_picture(without, samples, CLASSES))) as image:
        left = np.asarray(image.convert("RGB"))[300:, :500].reshape(-1, 3)
    # One card fills the column where two would share it.
    assert (left == 255).all(-1).mean() > 0.7


def test_moved_photographs_leave_the_scores(tmp_path):
    ctx = make_run(tmp_path)
    lost = LostContext(ctx.config, ctx.workdir, ctx.stage, ctx.stage_dir, stages=ctx.stages)
    assert run_section(Report, lost, ctx.config.report, {})["images_shown"] == 0
    page = Page((tmp_path / "report.html").read_text())
    assert "The images are left out: expected images in /gone" in " ".join(page.text)
    assert page.named("table", class_="scores")


def test_only_the_first_process_writes(tmp_path):
    ctx = make_run(tmp_path)
    second = dataclasses.replace(ctx, process_index=1, process_count=2)
    assert run_section(Report, second, ctx.config.report, {}) == {}
    assert not (tmp_path / "report.html").exists()


def test_threshold_taken_over_from_another_split(tmp_path):
    ctx = make_run(tmp_path)
    section = {"type": "evaluate", "needs": {"pred": "cam", "train": "eval_cam"}, "split": "val"}
    with ctx.config.unlocked():
        ctx.config.eval_masks = ConfigDict({**section, "threshold": "from:train"})
    write_json(tmp_path / "eval_masks" / "config.json", ctx.config.eval_masks.to_dict())
    metrics = json.loads((tmp_path / "eval_cam" / "metrics.json").read_text())
    metrics |= {"split": "val", "threshold_choice": "fixed"}
    write_json(tmp_path / "eval_masks" / "metrics.json", metrics)
    val = collect(graph.stages(ctx.config), ctx.config, tmp_path, "report").evaluations[1]
    assert wording.name(val) == "Seed · val"
    assert wording.threshold_note(val) == "threshold 0.20, the best on train"
    assert "best one on split train" in wording.choice_sentence(val)


def test_samples_without_scores_or_masks(tmp_path):
    ctx = make_run(tmp_path)
    (tmp_path / "eval_cam" / "per_image.json").unlink()
    found = collect(ctx.stages, ctx.config, tmp_path, "report")
    evaluation = next(e for e in found.evaluations if e.stage.name == "eval_cam")
    samples = make_gallery(evaluation, DrawnSource(), 1)
    assert [(s.id, s.group, s.miou) for s in samples] == [
        (name, "sample", None) for name in IDS[:3]
    ]
    # The maps' own threshold makes the mask.
    mask = samples[0].view("mask")
    assert mask is not None and samples[0].tags[0].iou is not None and samples[0].tags[0].iou > 0.5
    shown = shown_evaluation(found)
    assert shown is not None and shown.stage.name == "eval_masks"


def test_a_run_that_could_not_be_scored_shows_its_masks(tmp_path):
    ctx = make_run(tmp_path)
    for name in ("eval_cam", "eval_masks"):
        (tmp_path / name / "metrics.json").unlink()
    found = collect(ctx.stages, ctx.config, tmp_path, "report")
    assert not found.evaluations
    shown = shown_evaluation(found)
    assert shown is not None and shown.stage.name == "masks" and shown.split == "train"
    samples = make_gallery(shown, DrawnSource(), 1)
    assert [s.group for s in samples] == ["sample"] * 3
    assert samples[0].view("mask") is not None


def test_masks_of_a_network_are_shown_beside_the_maps_of_the_run(tmp_path):
    ctx = make_run(tmp_path)
    found = collect(ctx.stages, ctx.config, tmp_path, "report")
    masks = found.evaluations[1]
    # As where a network made the masks: no maps upstream.
    alone = dataclasses.replace(masks, chain=masks.chain[:1])
    assert make_gallery(alone, DrawnSource(), 1)[0].view("heat") is None
    sample = make_gallery(alone, DrawnSource(), 1, map_folders(found))[0]
    assert [view.kind for view in sample.views] == ["image", "truth", "heat", "mask"]


def test_own_data_are_not_called_voc(tmp_path):
    ctx = make_run(tmp_path)
    found = collect(ctx.stages, ctx.config, tmp_path, "report")

    def name(**data: str) -> str:
        return dataclasses.replace(found, data={"builder": "voc2012", **data}).data_name

    assert name(root="/mnt/data/VOCdevkit") == "VOC 2012" == name(root="VOC2012", classes="")
    assert name(root="/mnt/data", classes="classes.txt") == "own data" == name(classes="c.txt")
    assert name(root="/home/anna/cracks", classes="classes.txt") == "cracks"


def test_why_there_are_no_scores(tmp_path):
    ctx = make_run(tmp_path)
    found = collect(ctx.stages, ctx.config, tmp_path, "report")
    assert wording.no_scores_sentence(found) == "Nothing was evaluated in this run."
    kept = tuple(stage for stage in found.stages if stage.type != "evaluate")
    own = dataclasses.replace(found, stages=kept, evaluations=())
    assert "no stage of type evaluate" in wording.no_scores_sentence(own)
    masks = found.evaluations[1]
    samples = make_gallery(masks, Unlabeled(), 1)
    page = Page(build_page(own, samples, masks, CLASSES, {}))
    assert wording.no_scores_sentence(own) in page.text
    # Three views have three columns, without an empty one for the truth.
    styles = {str(a["style"]).rpartition("--views:")[2] for a in page.named("article")}
    assert styles == {"3"}


def test_a_background_is_explained(tmp_path):
    ctx = make_run(tmp_path)
    path = tmp_path / "eval_masks" / "metrics.json"
    metrics = json.loads(path.read_text())
    (tmp_path / "masks" / "metrics.json").write_text("{}")
    write_json(tmp_path / "masks" / "config.json", {"type": "pseudo_labels", "split": "train"})
    assert not wording.background_sentences(
        collect(ctx.stages, ctx.config, tmp_path, "report").evaluations
    )
    write_json(path, {**metrics, "alpha": 8.0})
    found = collect(ctx.stages, ctx.config, tmp_path, "report")
    (sentence,) = wording.background_sentences(found.evaluations)
    assert "(1 − max)^8" in wording.threshold_note(found.evaluations[1])
    assert sentence in Page(build_page(found, [], None, CLASSES, {})).text


def test_the_title_is_of_the_network_that_makes_the_maps(tmp_path):
    ctx = make_run(tmp_path)
    config: Any = ctx.config
    config.before = config.train.copy_and_resolve_references()
    config.before.method = {"name": "cam", "backbone": {"name": "resnet", "depth": 101}}
    config.before.batch_size = 64
    config.train.needs = {"backbone": "before"}
    config.stages = ("before", *config.stages)
    (tmp_path / "before").mkdir()
    write_json(tmp_path / "before" / "config.json", config.before.to_dict())
    write_json(tmp_path / "before" / "metrics.json", {"images_per_second": 900.0})
    found = collect(graph.stages(config), config, tmp_path, "report")
    assert [t.stage.name for t in found.trainings] == ["before", "train"]
    assert (wording.title(found), found.backbone) == ("SEAM", "tiny")
    speed = next(h for h in wording.headlines(found) if h.label == "Training speed")
    assert speed.value == "50.0"
    assert speed.note.startswith("batch ") and "64" not in speed.note
    config.cam.needs.checkpoint = "before"
    found = collect(graph.stages(config), config, tmp_path, "report")
    assert (wording.title(found), wording.backbone_name(found.backbone)) == ("CAM", "ResNet-101")


def test_pictures_shrink_until_the_page_is_small_enough(made, monkeypatch):
    ctx, text, _ = made
    found = collect(ctx.stages, ctx.config, ctx.workdir, "report")
    samples = make_gallery(found.evaluations[1], DrawnSource(), 2)
    monkeypatch.setattr(render, "_MOST_BYTES", 0.7 * len(text))
    small = build_page(found, samples, found.evaluations[1], CLASSES, {})
    assert len(small) < 0.7 * len(text)
    assert len(Page(small).named("figure", class_="tile")) == 24
