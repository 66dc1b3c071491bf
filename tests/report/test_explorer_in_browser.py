"""The explorer in a real browser: sliders change masks, and its scores are the evaluator's."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.test_explorer import evaluated, harden, page_of
from tests.toys.browser import Browser, find_chromium
from tests.toys.made_up_run import (
    CLASSES,
    IDS,
    DrawnContext,
    Unlabeled,
    drawn_mask,
    drawn_truth,
    make_run,
)
from wsss_jax.scoring.confusion import class_counts, class_scores, image_miou
from wsss_jax.scoring.score_files import THRESHOLDS, score_cams

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium on the path")

_SET = """(id, value, kind) => {
  const element = document.getElementById(id);
  element.value = value;
  element.dispatchEvent(new Event(kind, { bubbles: true }));
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


class Shown:
    """A page in the browser, with the counts that the evaluator has for its images."""

    def __init__(self, browser: Browser, ctx: Any):
        self.browser, self.ctx = browser, ctx
        self.page = ctx.workdir / "report.html"

    def open(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        self.browser.open(self.page, width, height, dark=dark)
        self.browser.wait("document.querySelector('#explorer').dataset.image !== undefined")

    def set(self, name: str, value: object, kind: str = "change") -> None:
        self.browser.run(f"({_SET})({name!r}, {str(value)!r}, {kind!r})")

    def text(self, name: str) -> str:
        return self.browser.run(f"document.getElementById({name!r}).textContent")

    def choose(self, name: str) -> None:
        index = IDS.index(name)
        self.browser.run(f"document.querySelector('#x-thumbs [data-index=\"{index}\"]').click()")
        self.browser.wait(f"document.querySelector('#explorer').dataset.image === {name!r}")

    def picture(self) -> str:
        return self.browser.run("document.getElementById('x-canvas').toDataURL()")

    def count(self, name: str) -> np.ndarray:
        path = self.ctx.workdir / "cam" / "cams" / f"{name}.npz"
        return score_cams(path, drawn_truth(IDS.index(name)), len(CLASSES), THRESHOLDS).classes

    def keep(self, name: str, selector: str = "") -> None:
        """Keeps a screenshot, if a folder for such files is named."""
        folder = os.environ.get("WSSS_ARTEFACTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            if selector:  # thumbnails are decoded when they come into sight
                self.browser.run("document.getElementById('x-thumbs').scrollIntoView()")
                loaded = "document.querySelector('#x-thumbs img').complete"
                self.browser.wait(f"{loaded} && document.querySelector('#x-thumbs img').src")
            self.browser.screenshot(Path(folder) / f"explorer_{name}.png", selector)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    ctx = make_run(tmp_path_factory.mktemp("run"))
    harden(ctx.workdir)
    evaluated(ctx)
    page_of(ctx)
    program = find_chromium()
    assert program is not None
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield Shown(browser, ctx)
    browser.close()


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def test_scores_in_the_page_are_those_of_the_evaluator(shown):
    shown.open()
    assert shown.text("x-scored-name") == "Maps"
    for name in ("scene_0", "scene_1", "scene_2", "scene_5"):
        shown.choose(name)
        for level in (0, 17, 50, 99):
            shown.set("x-threshold", level, "input")
            expected = percent(float(image_miou(shown.count(name)[level])))
            assert shown.text("x-image-miou") == expected, (name, level)
    total = np.sum([shown.count(name) for name in IDS], axis=0)
    for level in (0, 30, 31, 99):
        shown.set("x-threshold", level, "input")
        miou = float(class_scores(total)["miou"][level])
        value = shown.browser.run("document.getElementById('x-chosen-miou').dataset.value")
        assert float(value) == pytest.approx(miou, abs=1e-15)
        assert shown.text("x-chosen-miou") == shown.text("x-split-miou") == percent(miou)
        told = shown.browser.run("document.getElementById('x-curve').ariaValueText")
        assert told == f"threshold {THRESHOLDS[level]:.2f}, mIoU {percent(miou)}"
    shown.set("x-right", 4)  # the pseudo masks
    assert shown.text("x-scored-name") == "Pseudo masks"
    counts = class_counts(drawn_mask(5), drawn_truth(5), len(CLASSES))
    assert shown.text("x-image-miou") == percent(float(image_miou(counts)))
    assert shown.browser.errors == []


def test_sliders_change_the_masks(shown):
    shown.open()
    shown.choose("scene_5")
    shown.set("x-wipe", 0, "input")  # the right side alone
    shown.set("x-threshold", 20, "input")
    before = shown.picture()
    shown.set("x-threshold", 60, "input")
    after = shown.picture()
    assert before != after and shown.text("x-threshold-value") == "0.60"
    shown.set("x-threshold", 20, "input")
    assert shown.picture() == before
    shown.set("x-opacity", 20, "input")
    assert shown.picture() not in (before, after)
    shown.set("x-wipe", 50, "input")
    wiped = shown.picture()
    shown.set("x-left", 0)
    assert shown.picture() != wiped, "the photograph instead of the truth on the left"
    shown.browser.run("document.getElementById('x-in').click()")
    assert shown.picture() != wiped
    assert shown.browser.errors == []


def test_the_point_of_the_curve_is_the_threshold(shown):
    shown.open()
    drag = """(() => {
      const curve = document.getElementById("x-curve");
      const box = curve.getBoundingClientRect();
      const at = { clientX: box.left + (44 + 500 * 0.42) / 560 * box.width, clientY: box.top + 9 };
      curve.setPointerCapture = () => {};
      curve.dispatchEvent(new PointerEvent("pointerdown", at));
      return document.getElementById("x-threshold").value;
    })()"""
    assert shown.browser.run(drag) == "42" and shown.text("x-threshold-value") == "0.42"
    shown.browser.run("document.getElementById('x-curve').focus()")
    shown.browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert shown.text("x-threshold-value") == "0.43"
    shown.browser.run("document.getElementById('x-canvas').focus()")
    shown.browser.call("Input.dispatchKeyEvent", type="keyDown", key="[")
    assert shown.text("x-threshold-value") == "0.42"
    shown.browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    shown.browser.wait("document.querySelector('#explorer').dataset.image === 'scene_1'")


def test_filters_choose_images(shown):
    shown.open()
    both = [name for index, name in enumerate(IDS) if index % 2]
    ids = "[...document.querySelectorAll('#x-thumbs span')].map((name) => name.textContent)"
    shown.set("x-with", 2)
    assert shown.browser.run(ids) == both, "images that show the second class"
    assert shown.text("x-count") == "4 of 8 images"
    shown.set("x-also", 1)
    assert shown.browser.run(ids) == both, "with the first one beside it"
    shown.set("x-with", "")
    assert shown.browser.run(ids) == IDS
    shown.set("x-right", 4)
    shown.set("x-order", "worst")
    scores = [
        float(image_miou(class_counts(drawn_mask(i), drawn_truth(i), len(CLASSES))))
        for i in range(len(IDS))
    ]
    assert shown.browser.run(ids) == [IDS[i] for i in np.argsort(scores, kind="stable")]
    shown.set("x-most", 60)
    kept = [IDS[i] for i in np.argsort(scores, kind="stable") if scores[i] <= 0.6]
    assert 0 < len(kept) < len(IDS) and shown.browser.run(ids) == kept
    shown.set("x-size", "large")
    assert shown.browser.run(ids) == [] and "clear a filter" in shown.text("x-count")
    shown.browser.run("document.querySelector('.x-filters').reset()")
    assert shown.browser.run(ids) == IDS
    assert shown.browser.errors == []


def test_the_confusion_matrix_adds_up(shown):
    shown.open()
    shown.set("x-matrix-of", 1)
    matrix = np.zeros((3, 3))
    for index in range(len(IDS)):
        truth, mask = drawn_truth(index), drawn_mask(index)
        np.add.at(matrix, (truth[truth != 255], mask[truth != 255]), 1)
    shares = matrix / matrix.sum(1, keepdims=True)
    found = shown.browser.run(
        "[...document.querySelectorAll('#x-matrix tbody tr')]"
        ".map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
    )
    assert found == [[f"{100 * s:.0f}" if s >= 0.005 else "" for s in row] for row in shares]


def test_tables_and_texts(shown):
    shown.open()
    cells = "[...document.querySelectorAll('.classes tbody tr b')].map((b) => b.textContent)"
    before = shown.browser.run(cells)
    shown.browser.run("document.querySelectorAll('.measures button')[2].click()")
    recall = shown.browser.run(cells)
    counts = [class_counts(drawn_mask(i), drawn_truth(i), len(CLASSES)) for i in range(len(IDS))]
    total = np.sum(counts, axis=0)
    assert recall != before
    assert recall[1::2] == [percent(value) for value in class_scores(total)["recall"]]
    shown.browser.run("document.querySelectorAll('.classes th button')[2].click()")
    assert shown.browser.run(cells)[1::2] == sorted(recall[1::2], key=float, reverse=True)
    shown.browser.run("document.querySelector('[data-copy]').click()")
    shown.browser.wait("document.querySelector('[data-copy]').textContent !== 'Copy the command'")
    selected = shown.browser.run("getSelection().toString()")
    assert selected == shown.text("command") != ""


@pytest.mark.parametrize(
    ("name", "width", "height", "dark"),
    [
        ("desktop", 1280, 900, False),
        ("desktop_dark", 1280, 900, True),
        ("phone", 390, 844, False),
        ("phone_dark", 390, 844, True),
    ],
)
def test_the_page_fits_every_window(shown, name, width, height, dark):
    shown.open(width, height, dark=dark)
    assert shown.browser.run("document.documentElement.scrollWidth") == width
    widest = shown.browser.run(
        "Math.max(...[...document.querySelectorAll('#explorer *')].filter((one) =>"
        " !one.closest('#x-thumbs, .x-scroll')).map((one) => one.getBoundingClientRect().right))"
    )
    assert widest <= width, "nothing of the explorer is cut off"
    heights = shown.browser.run(
        "[...document.querySelectorAll('.x-buttons button')].map((one) => one.offsetHeight)"
    )
    assert min(heights) >= (44 if width < 600 else 36), "large enough for a finger"
    shown.keep(name, "#explore")
    shown.keep(f"{name}_top")
    assert shown.browser.errors == []


def test_the_dialog_can_be_closed_on_a_phone(shown):
    shown.open(390, 844)
    shown.browser.run("document.querySelectorAll('.tile button')[2].click()")
    found = shown.browser.run(
        "['#box', '#box-close', '#box-name', '#box-views'].map((one) =>"
        " document.querySelector(one).getBoundingClientRect()).map((b) =>"
        " [b.left, b.top, b.right, b.bottom])"
    )
    (left, top, right, _), close, name, views = found
    assert left < close[0] < close[2] <= right and top <= close[1] and close[3] < top + 60
    assert name[2] <= close[0] and close[3] <= views[1], "nothing lies over the button"
    assert views[2] <= right
    shown.keep("dialog_phone")
    shown.browser.run("document.getElementById('box-close').click()")
    assert not shown.browser.run("document.getElementById('box').open")


def test_a_page_without_truth_has_no_scores(shown, tmp_path):
    class Own(DrawnContext):
        def source(self, split: str) -> Unlabeled:
            return Unlabeled()

    ctx = make_run(tmp_path)
    for stage in ("eval_cam", "eval_masks"):
        (tmp_path / stage / "metrics.json").unlink()
    own = Own(ctx.config, tmp_path, "report", tmp_path / "report", stages=ctx.stages)
    page_of(own)
    page = Shown(shown.browser, own)
    page.open()
    hidden = (
        "['x-scores', 'x-curve-card', 'x-matrix-card', 'x-iou-row']"
        ".map((id) => document.getElementById(id).hidden)"
    )
    assert page.browser.run(hidden) == [True] * 4
    controls = (
        "['x-scored', 'x-order', 'x-with'].map((id) =>"
        " document.getElementById(id).offsetHeight > 0)"
    )
    assert page.browser.run(controls) == [False, False, True]
    page.set("x-wipe", 0, "input")
    before = page.picture()
    page.set("x-threshold", 80, "input")
    assert page.picture() != before
    page.set("x-size", "large")
    assert page.text("x-count").startswith("0 of 8")
    assert page.browser.errors == []
