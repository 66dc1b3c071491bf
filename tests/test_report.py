"""The report of a small, made-up run: eight drawn images of two classes."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from wsss_jax.context import Context
from wsss_jax.data.cam_files import write_cams
from wsss_jax.data.images import encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.ops.confusion import confusion_matrix, confusion_scores
from wsss_jax.report import page as page_module
from wsss_jax.report import wording
from wsss_jax.report.charts import Series, axis, line_chart, smooth
from wsss_jax.report.collect import collect
from wsss_jax.report.colours import class_colours, paint_mask
from wsss_jax.report.gallery import choose, make_gallery, shown_evaluation
from wsss_jax.report.markup import Html, element
from wsss_jax.report.picture import draw_picture
from wsss_jax.stages import report
from wsss_jax.writer import MetricWriter

# Names that would break a page which does not escape them.
CLASSES = ("cat", 'x"><script>alert(1)</script>')
EVIL_ID = "<img src=x onerror=alert(2)>"
IDS = [*(f"scene_{number}" for number in range(7)), EVIL_ID]
NAMES = ("background", *CLASSES)
SIZE = (40, 56)
THRESHOLDS = [round(0.01 * step, 2) for step in range(60)]


class DrawnSource:
    """Discs of one or two classes on a gradient."""

    ids: list[str] = IDS
    classes: tuple[str, ...] = CLASSES
    digest: str = "drawn"

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, index: int) -> Record:
        truth = drawn_truth(index)
        image = np.repeat(np.linspace(30, 220, SIZE[1], dtype=np.uint8)[None], SIZE[0], axis=0)
        image = np.repeat(image[..., None], 3, axis=-1)
        image[truth == 1] = (220, 120, 40)
        image[truth == 2] = (40, 120, 220)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        label = np.array([(truth == 1).any(), (truth == 2).any()], np.float32)
        encoded = encode_mask(truth)
        return Record(id=IDS[index], image=file.getvalue(), label=label, segmentation=encoded)


@dataclasses.dataclass(frozen=True)
class DrawnContext(Context):
    def source(self, split: str) -> DrawnSource:
        return DrawnSource()


class LostContext(DrawnContext):
    def source(self, split: str) -> DrawnSource:
        raise UserError("expected images in /gone, found no folder: set data.root")


def drawn_truth(index: int) -> np.ndarray:
    truth = np.zeros(SIZE, np.uint8)
    cv2.circle(truth, (14 + index, 20), 9, 255, -1)
    cv2.circle(truth, (14 + index, 20), 8, 1, -1)
    if index % 2:
        cv2.circle(truth, (44, 20), 7, 2, -1)
    return truth


def drawn_mask(index: int) -> np.ndarray:
    """The truth moved the further the higher the index, so that scores fall with it."""
    truth = drawn_truth(index)
    return np.roll(np.where(truth == 255, 0, truth), index, axis=0)


def scores(matrix: np.ndarray, **more: object) -> dict[str, object]:
    found = confusion_scores(matrix)
    per_class = {
        name: {key: float(found[key][i]) for key in ("iou", "precision", "recall")}
        for i, name in enumerate(NAMES)
    }
    return {
        "miou": float(found["miou"]),
        "iou": {name: values["iou"] for name, values in per_class.items()},
        "precision": float(found["mean_precision"]),
        "recall": float(found["mean_recall"]),
        "pixel_accuracy": float(found["pixel_accuracy"]),
        "per_class": per_class,
        "images": len(IDS),
        "protocol": "strict",
        "split": "train",
        **more,
    }


def recipe() -> Any:
    config: Any = ConfigDict({"name": "seam_drawn", "seed": 3})
    config.data = {"builder": "shapes", "root": ""}
    backbone = {"name": "tiny", "width": 8}
    config.train = {
        "type": "train",
        "split": "train",
        "batch_size": 4,
        "epochs": 2,
        "method": {"name": "seam", "backbone": backbone},
        "augment": {"crop": 32},
    }
    config.cam = {
        "type": "infer_cam",
        "needs": {"checkpoint": "train"},
        "split": "train",
        "scales": (0.5, 1.0),
        "flip": True,
    }
    config.eval_cam = {
        "type": "evaluate",
        "needs": {"pred": "cam"},
        "split": "train",
        "threshold": "oracle",
    }
    config.masks = {
        "type": "pseudo_labels",
        "needs": {"cams": "cam", "train": "eval_cam"},
        "split": "train",
        "threshold": "from:train",
    }
    config.eval_masks = {"type": "evaluate", "needs": {"pred": "masks"}, "split": "train"}
    config.report = {"type": "report"}
    config.stages = ("train", "cam", "eval_cam", "masks", "eval_masks", "report")
    return config


def make_run(workdir: Path) -> Any:
    config = recipe()
    for name in config.stages:
        (workdir / name).mkdir(parents=True)
        write_json(workdir / name / "config.json", config[name].to_dict())
    for name in ("train", "cam", "masks"):
        write_json(workdir / name / "metrics.json", {"images": len(IDS)})
    write_json(workdir / "train" / "_DONE.json", {"seconds": 187.2, "device": "1 x cpu"})
    with MetricWriter(workdir / "train") as writer:
        for step in range(1, 41):
            terms = {"loss/cls": 2.0 / step, "loss/er": 0.01 / step}
            loss = float("nan") if step == 7 else sum(terms.values())
            writer.scalars(
                step, {"loss": loss, **terms, "lr": 0.1 / step, "images_per_second": 50.0}
            )
    total, per_image = np.zeros((3, 3), np.int64), {}
    for index, name in enumerate(IDS):
        truth, mask = drawn_truth(index), drawn_mask(index)
        matrix = confusion_matrix(mask, truth, len(CLASSES))
        total += matrix
        per_image[name] = 0.9 - 0.1 * index
        safe = name.replace("/", "_")
        keys = np.array(sorted(set(np.unique(truth)) - {0, 255}), np.int32) - 1
        maps = [cv2.GaussianBlur((truth == k + 1).astype(np.float32), (0, 0), 3) for k in keys]
        write_cams(workdir / "cam" / "cams" / f"{safe}.npz", keys, np.stack(maps))
        (workdir / "masks" / "masks").mkdir(exist_ok=True)
        (workdir / "masks" / "masks" / f"{safe}.png").write_bytes(encode_mask(mask))
    curve = [0.5 - (t - 0.2) ** 2 for t in THRESHOLDS]
    maps_scores = scores(
        total,
        threshold=0.2,
        threshold_choice="oracle",
        thresholds=THRESHOLDS,
        miou_curve=curve,
        precision_curve=[0.4 + t for t in THRESHOLDS],
        recall_curve=[0.9 - t for t in THRESHOLDS],
        best_threshold=0.2,
    )
    write_json(workdir / "eval_cam" / "metrics.json", maps_scores)
    write_json(workdir / "eval_masks" / "metrics.json", scores(total))
    write_json(workdir / "masks" / "metrics.json", {"threshold": 0.2, "threshold_choice": "oracle"})
    for name in ("eval_cam", "eval_masks"):
        write_json(workdir / name / "per_image.json", per_image)
    return DrawnContext(config, workdir, "report", workdir / "report")


class Page(HTMLParser):
    """What a browser would find: tags with attributes, text, unclosed elements."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br", "hr", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def named(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.tags if name == tag]
        return [a for a in found if all(a.get(k.rstrip("_")) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Any, str, Page]:
    ctx = make_run(tmp_path_factory.mktemp("run"))
    metrics = report.run(ctx, ctx.config.report, {})
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


def test_names_cannot_break_the_page(made):
    _, text, page = made
    assert len(page.named("script")) == 1
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


def test_class_table_is_sortable_with_every_class(made):
    _, _, page = made
    assert len(page.named("th", **{"aria-sort": "none"})) == 5  # class, two IoUs, two rates
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
        colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colours is not None and len(colours) > 1000, "there is something to see"
    seen = {colour: count for count, colour in colours}
    assert seen[0xB0, 0x2A, 0x5B] > 500, "curves"
    assert seen[0x14, 0x12, 0x2E] > 100_000, "the dark band"
    assert len(data) < 1_500_000


def test_same_run_same_report(made):
    ctx, text, _ = made
    before = (ctx.stage_dir / "report.png").read_bytes()
    report.run(ctx, ctx.config.report, {})
    assert (ctx.stage_dir / "report.html").read_text() == text
    assert (ctx.stage_dir / "report.png").read_bytes() == before


def test_nothing_but_the_recipe(tmp_path):
    ctx: Any = DrawnContext(recipe(), tmp_path, "report", tmp_path / "report")
    metrics = report.run(ctx, ctx.config.report, {})
    page = Page((tmp_path / "report.html").read_text())
    texts = " ".join(page.text)
    assert metrics["images_shown"] == 0 and page.open == []
    assert "No result yet from: train, cam, eval_cam, masks, eval_masks." in texts
    for sentence in ("there are no pictures", "Nothing was evaluated", "No training figures"):
        assert sentence in texts
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("lost", ["masks", "cam", "eval_cam", "eval_masks", "train"])
def test_a_missing_stage_is_left_out(tmp_path, monkeypatch, lost):
    monkeypatch.setattr(report, "draw_picture", lambda *_: b"")  # has a test of its own
    ctx = make_run(tmp_path)
    (tmp_path / lost).rename(tmp_path / f"{lost}_moved_away")
    metrics = report.run(ctx, ctx.config.report, {})
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert f"No result yet from: {lost}." in " ".join(page.text)
    assert metrics["images_shown"] == 6
    kinds = {a["data-kind"] for a in page.named("figure", class_="tile")}
    assert ("heat" in kinds) == (lost != "cam")


@pytest.mark.parametrize("lost", ["eval_cam", "train"])
def test_picture_without_a_chart(made, lost):
    ctx, _, _ = made
    found = collect(ctx.config, ctx.workdir, "report")
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
    lost = LostContext(ctx.config, ctx.workdir, ctx.stage, ctx.stage_dir)
    assert report.run(lost, ctx.config.report, {})["images_shown"] == 0
    page = Page((tmp_path / "report.html").read_text())
    assert "The pictures are left out: expected images in /gone" in " ".join(page.text)
    assert page.named("table", class_="scores")


def test_only_the_first_process_writes(tmp_path):
    ctx = make_run(tmp_path)
    second = dataclasses.replace(ctx, process_index=1, process_count=2)
    assert report.run(second, ctx.config.report, {}) == {}
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
    val = collect(ctx.config, tmp_path, "report").evaluations[1]
    assert wording.name(val) == "Seed · val"
    assert wording.threshold_note(val) == "threshold 0.20, the best on train"
    assert "best one on split train" in wording.choice_sentence(val)


def test_samples_without_scores_or_masks(tmp_path):
    ctx = make_run(tmp_path)
    (tmp_path / "eval_cam" / "per_image.json").unlink()
    found = collect(ctx.config, tmp_path, "report")
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


def test_pictures_shrink_until_the_page_is_small_enough(made, monkeypatch):
    ctx, text, _ = made
    found = collect(ctx.config, ctx.workdir, "report")
    samples = make_gallery(found.evaluations[1], DrawnSource(), 2)
    monkeypatch.setattr(page_module, "_MOST_BYTES", 0.7 * len(text))
    small = page_module.build_page(found, samples, found.evaluations[1], CLASSES, {})
    assert len(small) < 0.7 * len(text)
    assert len(Page(small).named("figure", class_="tile")) == 24


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
