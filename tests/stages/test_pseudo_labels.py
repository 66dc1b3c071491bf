import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from tests.toys.sections import run_section
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.masks import VOC_PALETTE
from wsss_jax.errors import UserError
from wsss_jax.scoring.confusion import class_counts, threshold_counts
from wsss_jax.stages.base import Context
from wsss_jax.stages.pseudo_labels import (
    Background,
    PseudoLabels,
    label_confidence,
    label_map,
)

IDS = [f"image{i}" for i in range(5)]
SHAPE = (8, 6)


def draw_cams(seed: int, keys: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.permutation(3)[:keys], rng.random((keys, *SHAPE)).astype(np.float32)


def test_hand_made_thresholds():
    keys = np.array([2, 0])
    cam = np.array([[[0.5, 0.2, 0.6, 0.3]], [[0.4, 0.3, 0.6, 0.1]]], np.float32)
    # The stronger class; equal classes: the lower index; equal to the threshold: background.
    mask = label_map(keys, cam, Background(threshold=0.3))
    np.testing.assert_array_equal(mask, [[3, 0, 1, 0]])
    assert mask.dtype == np.uint8


def test_hand_made_alpha():
    cam = np.array([[[0.1, 0.3, 0.32, 0.5, 1.0]]], np.float32)
    # (1 - s)^3 is 0.729, 0.343, 0.314, 0.125, 0
    np.testing.assert_array_equal(
        label_map(np.array([4]), cam, Background(alpha=3.0)), [[0, 0, 5, 5, 5]]
    )


def test_hand_made_ignore_band():
    cam = np.array([[[0.05, 0.1, 0.2, 0.3, 0.31]]], np.float32)
    mask = label_map(np.array([1]), cam, Background(ignore_band=(0.1, 0.3)))
    np.testing.assert_array_equal(mask, [[0, 0, 255, 255, 2]])


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        (Background(threshold=0.3), [0.6 / 1.2, 0.3 / 0.5, 1]),
        (Background(alpha=2.0), [0.6 / 1.06, 0.64 / 0.84, 1]),
        (Background(ignore_band=(0.2, 0.4)), [0.6 / 1.2, 0.3 / 0.5, 1]),
    ],
)
def test_hand_made_confidence(background: Background, expected: list[float]):
    cam = np.array([[[0.6, 0.2, 0.0]], [[0.3, 0.0, 0.0]]], np.float32)
    sure = label_confidence(cam, background)
    assert sure.dtype == np.uint8
    np.testing.assert_array_equal(sure, np.rint(255 * np.array([expected])))


def test_where_nothing_scores_no_class_is_surer_than_another():
    cam = np.zeros((3, 2, 2), np.float32)
    sure = label_confidence(cam, Background(threshold=0.0))
    np.testing.assert_array_equal(sure, np.full((2, 2), 64))
    assert (label_confidence(cam[:0], Background(threshold=0.0)) == 255).all()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_a_mask_scores_what_the_threshold_curve_says(seed, count, threshold):
    keys, cam = draw_cams(seed, count)
    cam = np.round(cam * 8) / 8  # many ties
    truth = np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)
    mask = label_map(keys, cam, Background(threshold=threshold))
    np.testing.assert_array_equal(
        class_counts(mask, truth, 3), threshold_counts(cam, keys, truth, [threshold], 3)[0]
    )
    assert set(np.unique(mask)) <= {0, *(keys + 1)}  # no class but the image's own


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
def test_the_band_only_withholds(seed, one, other):
    low, high = sorted((one, other))
    keys, cam = draw_cams(seed)
    banded = label_map(keys, cam, Background(ignore_band=(low, high)))
    for threshold in (low, high):
        plain = label_map(keys, cam, Background(threshold=threshold))
        decided = banded != 255
        np.testing.assert_array_equal(banded[decided], plain[decided])


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([{"threshold": 0.4}, {"alpha": 4.0}]))
def test_flipping_the_maps_flips_the_mask(seed, kind):
    keys, cam = draw_cams(seed)
    mask = label_map(keys, cam, Background(**kind))
    flipped = label_map(keys, cam[:, :, ::-1], Background(**kind))
    np.testing.assert_array_equal(flipped, mask[:, ::-1])


# The stage


@dataclasses.dataclass(frozen=True)
class NoImages:
    """A source of which only ids, classes and labels are asked."""

    ids: list[str]
    sizes: tuple[()] = ()
    classes: tuple[str, ...] = ("cat", "dog", "cow")
    digest: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Masks are made from the maps alone; labels tell whether one value is wrong.
        return {"label": np.arange(3) < index % 3}


class FakeContext(Context):
    def source(self, split: str) -> Any:
        return NoImages(list(IDS))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    for index, name in enumerate(IDS):
        keys, cam = draw_cams(index, keys=index % 3)
        write_cams(tmp_path / f"cam_train/cams/{name}.npz", keys, cam)
    (tmp_path / "eval_cam").mkdir()
    (tmp_path / "labels").mkdir()
    return tmp_path


def run_stage(
    workdir: Path, process_index: int = 0, process_count: int = 1, **settings: Any
) -> dict[str, Any]:
    ctx = FakeContext(
        config=ConfigDict({"seed": 0}),
        workdir=workdir,
        stage="labels",
        stage_dir=workdir / "labels",
        process_index=process_index,
        process_count=process_count,
    )
    config = ConfigDict({"type": "pseudo_labels", "split": "train", **settings})
    inputs = {"cams": workdir / "cam_train", "scores": workdir / "eval_cam"}
    return run_section(PseudoLabels, ctx, config, inputs)


def read_masks(workdir: Path) -> dict[str, np.ndarray]:
    return {p.stem: np.array(Image.open(p)) for p in sorted((workdir / "labels/masks").iterdir())}


def test_masks_are_palette_pngs_of_every_image(workdir: Path):
    metrics = run_stage(workdir, threshold=0.4)
    masks = read_masks(workdir)
    assert list(masks) == IDS
    for index, name in enumerate(IDS):
        keys, cam = draw_cams(index, keys=index % 3)
        stored = cam.astype(np.float16).astype(np.float32)
        expected = label_map(keys, stored, Background(threshold=0.4))
        np.testing.assert_array_equal(masks[name], expected)
        with Image.open(workdir / f"labels/confidence/{name}.png") as image:
            sure = label_confidence(stored, Background(threshold=0.4))
            np.testing.assert_array_equal(np.array(image), sure)
    with Image.open(workdir / "labels/masks/image1.png") as image:
        assert image.mode == "P"
        palette = np.array(image.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(palette, VOC_PALETTE[: len(palette)])
    assert metrics["images"] == 5
    assert metrics["threshold"] == 0.4 and metrics["threshold_choice"] == "fixed"
    pixels = np.concatenate([m.ravel() for m in masks.values()])
    assert list(metrics["class_shares"]) == ["cat", "dog", "cow", "background", "ignore"]
    assert metrics["class_shares"]["dog"] == pytest.approx((pixels == 2).mean())
    assert sum(metrics["class_shares"].values()) == pytest.approx(1)
    found = {name: sum(int((m == k).any()) for m in masks.values()) for k, name in
             enumerate(("background", "cat", "dog", "cow"))}  # fmt: skip
    assert metrics["class_images"] == {"ignore": 0, **found} and found["cat"] == 3
    assert "warnings" not in metrics, "two images have no class"
    assert not (masks["image0"] > 0).any()  # no label, no maps: all background


@pytest.mark.parametrize(("choice", "named"), [("oracle", "oracle"), ("held_out", "held_out")])
@pytest.mark.parametrize("setting", [{"threshold": "from:scores"}, {}])
def test_threshold_of_an_evaluation(workdir: Path, choice: str, named: str, setting: dict):
    (workdir / "eval_cam/metrics.json").write_text(
        f'{{"best_threshold": 0.37, "threshold_choice": "{choice}"}}'
    )
    metrics = run_stage(workdir, **setting)
    assert metrics["threshold"] == 0.37 and metrics["threshold_choice"] == named
    chosen = read_masks(workdir)
    for path in (workdir / "labels/masks").iterdir():
        path.unlink()
    run_stage(workdir, threshold="0.37")
    for name, mask in read_masks(workdir).items():
        np.testing.assert_array_equal(mask, chosen[name])


def test_alpha_and_band_are_named_in_the_metrics(workdir: Path):
    assert run_stage(workdir, alpha=4)["alpha"] == 4
    for path in (workdir / "labels/masks").iterdir():
        path.unlink()
    metrics = run_stage(workdir, ignore_band=(0.3, 0.6))
    assert metrics["ignore_band"] == (0.3, 0.6) and "threshold" not in metrics
    assert metrics["class_shares"]["ignore"] > 0


def test_masks_of_one_color_are_told(workdir: Path, capsys: pytest.CaptureFixture[str]):
    assert "warnings" not in run_stage(workdir, threshold=0.4)
    for path in (workdir / "labels/masks").iterdir():
        path.unlink()
    (warning,) = run_stage(workdir, threshold=1.0)["warnings"]
    assert warning.startswith(
        "3 of 5 masks have one value only although their images have a class (image1, image2,"
        " image4), and background covers 100.0 % of all pixels: look at the masks; maps, or"
    )
    assert f"[labels] WARNING: {warning}" in capsys.readouterr().out
    assert run_stage(workdir, threshold=1.0)["warnings"] == [warning], "also of finished masks"


def test_finished_masks_are_kept_and_counted(workdir: Path):
    before = run_stage(workdir, threshold=0.4)
    path = workdir / "labels/masks/image4.png"
    unchanged = (workdir / "labels/masks/image1.png").stat().st_mtime_ns
    path.unlink()
    assert run_stage(workdir, threshold=0.4) == before
    assert path.is_file()
    assert (workdir / "labels/masks/image1.png").stat().st_mtime_ns == unchanged


def test_processes_share_the_images(workdir: Path):
    run_stage(workdir, process_index=1, process_count=2, threshold=0.4)
    assert list(read_masks(workdir)) == IDS[1::2]
    run_stage(workdir, process_index=0, process_count=2, threshold=0.4)
    assert list(read_masks(workdir)) == IDS


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threshold": "best"}, "number or from:NEED .* found 'best'"),
        ({"threshold": "from:nothing"}, "expected from:NEED with a need of the stage"),
        ({"alpha": -1.0}, "alpha above 0"),
        ({"alpha": "from:scores"}, "alpha to be a number, found 'from:scores'"),
        ({"ignore_band": (0.5, 0.1)}, "low ≤ high"),
        (
            {"ignore_band": (0.5,)},
            r"ignore_band to be \(a number, a number\) or \(\), found",
        ),
        ({"threshold": "from:scores"}, "expected a file at .*metrics.json, found none"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    workdir: Path, setting: dict, message: str
):
    with pytest.raises(UserError, match=message):
        run_stage(workdir, **setting)
    assert not (workdir / "labels/masks").exists()


def test_thresholds_that_no_map_reaches_are_refused(workdir: Path):
    for threshold in (1.7, "-0.1", "nan"):
        with pytest.raises(UserError, match="expected threshold from 0 to 1, as maps have"):
            run_stage(workdir, threshold=threshold)


def test_missing_and_damaged_maps_are_named(workdir: Path):
    path = workdir / "cam_train/cams/image3.npz"
    data = path.read_bytes()
    path.write_bytes(data[:100])
    with pytest.raises(UserError, match=r"image3\.npz"):
        run_stage(workdir, threshold=0.4)
    path.unlink()
    with pytest.raises(UserError, match="found none for 1: image3"):
        run_stage(workdir, threshold=0.4)


def test_a_written_mask_opens_elsewhere(workdir: Path):
    run_stage(workdir, ignore_band=(0.3, 0.6))
    data = (workdir / "labels/masks/image2.png").read_bytes()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    mask = read_masks(workdir)["image2"]
    np.testing.assert_array_equal(np.array(image), VOC_PALETTE[mask])
