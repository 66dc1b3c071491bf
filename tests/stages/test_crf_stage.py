"""The stage that refines maps by a dense CRF: results, masks of them, mistakes."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.reference.confusion import confusion_matrix, confusion_scores
from tests.toys.sections import run_section
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.formats.crf_files import read_crf, read_crf_mask, write_crf
from wsss_jax.data.masks import decode_mask, encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.host.cam_crf import CamTask, refine_cams
from wsss_jax.host.dense_crf import PSA, CrfSettings, HostMeanField, dense_crf, score_unary
from wsss_jax.ops.mean_field import DeviceMeanField
from wsss_jax.stages.base import Context, Stage
from wsss_jax.stages.crf import Crf
from wsss_jax.stages.evaluate import Evaluate
from wsss_jax.stages.irn_labels import IrnLabels
from wsss_jax.stages.pseudo_labels import PseudoLabels

IDS = [f"image{i}" for i in range(5)]
CLASSES = ("cat", "dog", "cow")


def size_of(index: int) -> tuple[int, int]:
    return 24 + 3 * index, 30


def draw_truth(index: int) -> np.ndarray:
    truth = np.zeros(size_of(index), np.uint8)
    for key in keys_of(index):
        cv2.circle(truth, (8 + 6 * int(key), 12), 5, int(key) + 1, -1)
    return truth


def keys_of(index: int) -> np.ndarray:
    """The classes of an image; the first has none."""
    return np.array([[], [0], [2], [0, 2], [1]][index], np.int32)


def draw_image(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    colors = np.array([[90, 90, 90], [220, 60, 30], [30, 220, 60], [30, 60, 220]])
    return (colors[draw_truth(index)] + rng.integers(0, 20, (*size_of(index), 3))).astype(np.uint8)


def draw_cams(index: int) -> np.ndarray:
    """Blurred truths, as maps are."""
    truth = draw_truth(index)
    maps = [cv2.blur((truth == key + 1).astype(np.float32), (7, 7)) for key in keys_of(index)]
    return np.array(maps, np.float32).reshape(-1, *truth.shape)


class Drawn:
    """The drawings as a source."""

    ids: list[str] = IDS
    sizes: list[tuple[int, int]] = [size_of(i) for i in range(len(IDS))]  # noqa: RUF012
    classes: tuple[str, ...] = CLASSES
    digest: str = ""

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, index: int) -> Record:
        image = cv2.imencode(".png", draw_image(index)[..., ::-1])[1].tobytes()
        label = np.isin(np.arange(3), keys_of(index)).astype(np.float32)
        segmentation = encode_mask(draw_truth(index))
        return Record(
            id=IDS[index],
            image=image,
            size=size_of(index),
            label=label,
            segmentation=segmentation,
        )


@dataclasses.dataclass(frozen=True)
class DrawnContext(Context):
    def source(self, split: str) -> Drawn:
        assert split == "train"
        return Drawn()


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    for index, name in enumerate(IDS):
        write_cams(tmp_path / f"cam/cams/{name}.npz", keys_of(index), draw_cams(index))
    return tmp_path


def run_stage(
    workdir: Path,
    kind: type[Stage] = Crf,
    stage: str = "crf",
    needs: dict[str, str] | None = None,
    process: tuple[int, int] = (0, 1),
    **settings: Any,
) -> dict[str, Any]:
    (workdir / stage).mkdir(exist_ok=True)
    ctx = DrawnContext(
        config=ConfigDict({"seed": 0}),
        workdir=workdir,
        stage=stage,
        stage_dir=workdir / stage,
        process_index=process[0],
        process_count=process[1],
    )
    config = ConfigDict({"split": "train", **settings})
    inputs = {k: workdir / v for k, v in (needs or {"cams": "cam"}).items()}
    return run_section(kind, ctx, config, inputs)


def expected_q(index: int, alpha: float) -> np.ndarray:
    cam = draw_cams(index).astype(np.float16).astype(np.float32)
    background = (1 - cam.max(0, initial=0)) ** np.float32(alpha)
    unary = score_unary(np.stack([background, *cam], -1))
    how = dict(gaussian=PSA.gaussian, bilateral=PSA.bilateral, iterations=10)
    return np.moveaxis(dense_crf(draw_image(index), unary, **how), 2, 0)  # pyright: ignore


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_results_are_those_of_the_crf_whatever_the_workers(workdir: Path):
    metrics = run_stage(workdir, workers=2, crf_device="host")
    assert metrics["images"] == metrics["refined"] == 5 and metrics["workers"] == 2
    assert metrics["images_per_second"] > 0
    folder = workdir / "crf/crf"
    assert [path.stem for path in sorted(folder.iterdir())] == IDS
    for index, name in enumerate(IDS):
        for alpha in (4, 24):
            keys, q = read_crf(folder / f"{name}.npz", alpha, num_classes=3)
            np.testing.assert_array_equal(keys, keys_of(index))
            np.testing.assert_allclose(q, expected_q(index, alpha), atol=1 / 2048)
            assert q.dtype == np.float16
    nothing = read_crf(folder / "image0.npz", 4)[1]
    assert nothing.shape == (1, *size_of(0)) and (nothing == 1).all()
    before = read_all(folder)

    # Half of it again, by one worker for each of two processes: the same bytes.
    for name in IDS[::2]:
        (folder / f"{name}.npz").unlink()
    untouched = (folder / "image1.npz").stat().st_mtime_ns
    first = run_stage(workdir, process=(0, 2), workers=1, crf_device="host")
    assert first["refined"] == 3 and first["workers"] == 1
    second = run_stage(workdir, process=(1, 2), workers=1, crf_device="host")
    assert second["refined"] == 0 and second["images_per_second"] is None
    assert read_all(folder) == before
    assert (folder / "image1.npz").stat().st_mtime_ns == untouched


def labels_of(workdir: Path, stage: str) -> list[np.ndarray]:
    return [read_crf_mask(workdir / f"{stage}/crf/{name}.npz", 24) for name in IDS]


def test_the_device_and_the_host_give_the_same_labels(workdir: Path):
    run_stage(workdir, workers=1, crf_device="host")
    device = run_stage(workdir, stage="device", workers=1, crf_device="device")
    assert device["crf_device"] == "device" and device["refined"] == 5
    for ours, expected in zip(*(labels_of(workdir, s) for s in ("device", "crf")), strict=True):
        np.testing.assert_array_equal(ours, expected)
    for index, name in enumerate(IDS):
        q = read_crf(workdir / f"device/crf/{name}.npz", 4)[1]
        np.testing.assert_allclose(q, expected_q(index, 4), atol=1 / 2048)


@pytest.mark.parametrize(("kind", "folder"), [(Crf, "crf"), (IrnLabels, "masks")])
def test_the_device_gets_every_crf(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Stage], folder: str
):
    """Here the device is the host, so that the bytes are the same."""
    built: list[int] = []

    class Counting(HostMeanField):
        def __init__(self, kernels: Any):
            super().__init__(kernels)
            built.append(1)

    monkeypatch.setattr("wsss_jax.stages.crf_stage.DeviceMeanField", Counting)
    run_stage(workdir, kind, "host", workers=1, crf_device="host")
    assert not built
    run_stage(workdir, kind, "device", crf_device="device")
    assert len(built) == (5 if kind is Crf else 4)  # the first image has no classes
    host, device = (read_all(workdir / stage / folder) for stage in ("host", "device"))
    assert host == device and len(host) == 5


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_the_host_has_every_crf_without_a_trial_unless_there_is_a_gpu(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, platform: str
):
    monkeypatch.setattr("wsss_jax.stages.crf_stage.jax.default_backend", lambda: platform)
    metrics = run_stage(workdir, workers=1)
    assert metrics["crf_device"] == "host" and "crf_images_per_second" not in metrics


def test_a_gpu_is_measured_beside_the_host(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two images are refined by each, the last one by the faster."""
    monkeypatch.setattr("wsss_jax.stages.crf_stage.jax.default_backend", lambda: "gpu")
    monkeypatch.setattr("wsss_jax.stages.crf_stage._TRIAL", 2)
    used: list[int] = []

    class Counting(DeviceMeanField):
        def __init__(self, kernels: Any):
            super().__init__(kernels)
            used.append(1)

    monkeypatch.setattr("wsss_jax.stages.crf_stage.DeviceMeanField", Counting)
    metrics = run_stage(workdir, workers=1)
    speeds = metrics["crf_images_per_second"]
    assert set(speeds) == {"host", "device"} and min(speeds.values()) > 0
    faster = max(speeds, key=lambda way: speeds[way])
    assert metrics["crf_device"] == faster and metrics["refined"] == metrics["images"] == 5
    assert len(used) == (3 if faster == "device" else 2)
    log = capsys.readouterr().out
    assert f"{speeds['host']:.1f} on the host" in log and f"runs on the {faster}" in log
    for index, ours in enumerate(labels_of(workdir, "crf")):
        np.testing.assert_array_equal(
            ours, np.array([0, *(keys_of(index) + 1)])[expected_q(index, 24).argmax(0)]
        )
    again = run_stage(workdir, workers=1)  # nothing is left to measure
    assert again["refined"] == 0 and "crf_images_per_second" not in again


def test_backgrounds_can_follow_a_threshold(workdir: Path):
    found = {"best_threshold": 0.36, "threshold_choice": "contrast"}
    write_json(workdir / "threshold/metrics.json", found)
    needs = {"cams": "cam", "threshold": "threshold"}
    metrics = run_stage(
        workdir, needs=needs, alphas=(0.5, 1.0), alpha_unit="from:threshold", workers=1
    )
    unit = metrics["alpha_unit"]
    assert 0.64**unit == pytest.approx(0.36, rel=1e-12) and metrics["alphas"] == [0.5, 1.0]
    for multiple in (0.5, 1.0):
        q = read_crf(workdir / "crf/crf/image3.npz", multiple)[1]
        np.testing.assert_allclose(q, expected_q(3, multiple * unit), atol=1 / 2048)
    with pytest.raises(UserError, match="expected alpha_unit above 0, found -2"):
        run_stage(workdir, alpha_unit=-2)


def test_results_are_scored_and_made_into_masks(workdir: Path):
    for index, name in enumerate(IDS):
        for_alpha = {alpha: expected_q(index, alpha) for alpha in (4.0, 24.0)}
        write_crf(workdir / f"crf/crf/{name}.npz", keys_of(index), for_alpha)
    shares = {}
    for alpha in (4, 24):
        metrics = run_stage(workdir, Evaluate, f"eval_{alpha}", {"pred": "crf"}, alpha=alpha)
        confusion = np.zeros((4, 4), np.int64)
        for index in range(5):
            labels = np.array([0, *(keys_of(index) + 1)])[expected_q(index, alpha).argmax(0)]
            confusion += confusion_matrix(labels.astype(np.uint8), draw_truth(index), 3)
        assert metrics["miou"] == pytest.approx(confusion_scores(confusion)["miou"], abs=1e-12)
        assert metrics["alpha"] == alpha and metrics["images"] == 5

        stage = f"masks_{alpha}"
        made = run_stage(workdir, PseudoLabels, stage, {"crf": "crf"}, alpha=alpha)
        assert made["alpha"] == alpha and made["crf"]
        shares[alpha] = made["class_shares"]["background"]
        scores = run_stage(workdir, Evaluate, f"eval_masks_{alpha}", {"pred": stage})
        assert scores["miou"] == metrics["miou"] > 0.5
        path = workdir / stage / "masks/image3.png"
        mask = decode_mask(path.read_bytes(), "mask", 3)
        np.testing.assert_array_equal(mask, read_crf_mask(workdir / "crf/crf/image3.npz", alpha))
        sure = decode_mask((workdir / stage / "confidence/image3.png").read_bytes(), "sure", None)
        q = read_crf(workdir / "crf/crf/image3.npz", alpha)[1].astype(np.float32)
        assert np.abs(sure - 255 * q.max(0)).max() < 0.7  # stored probabilities are rounded
    assert shares[24] < shares[4]  # a low background lets more become foreground
    for kind, need in ((Evaluate, "pred"), (PseudoLabels, "crf")):
        with pytest.raises(UserError, match="set alpha"):
            run_stage(workdir, kind, "again", {need: "crf"})
        with pytest.raises(UserError, match=r"image\d.npz: expected .* alpha 5, found alpha 4, 24"):
            run_stage(workdir, kind, "again", {need: "crf"}, alpha=5)
        (workdir / "crf/crf/image2.npz").rename(workdir / "moved")
        with pytest.raises(UserError, match=r"CRF result .* found none for 1: image2"):
            run_stage(workdir, kind, "again", {need: "crf"}, alpha=4)
        (workdir / "moved").rename(workdir / "crf/crf/image2.npz")


def test_a_worker_tells_of_a_mistake_in_one_line_and_the_rest_is_kept(workdir: Path):
    write_cams(workdir / "cam/cams/image4.npz", np.array([1]), np.ones((1, 9, 9), np.float32))
    with pytest.raises(
        UserError, match=r"image4.npz: expected maps of 30×36 .* found 9×9"
    ) as error:
        run_stage(workdir, workers=1)
    assert "\n" not in str(error.value)
    done = {path.stem for path in (workdir / "crf/crf").iterdir()}
    assert done == set(IDS[:4])  # one worker goes through them in order
    write_cams(workdir / "cam/cams/image4.npz", keys_of(4), draw_cams(4))
    assert run_stage(workdir, workers=1)["refined"] == 1


def make_task(workdir: Path, index: int = 3, **changes: Any) -> CamTask:
    path = workdir / f"cam/cams/{IDS[index]}.npz"
    task = CamTask(IDS[index], Drawn()[index]["image"], path, num_classes=3)
    return dataclasses.replace(task, **changes)


def refine(workdir: Path, task: CamTask, how: CrfSettings = PSA) -> Path:
    """The result for an α of 4."""
    refine_cams(how, (4.0,), 1.0, task, (workdir / "out.npz",))
    return workdir / "out.npz"


def test_bad_images_and_maps_are_named(workdir: Path):
    task = make_task(workdir)
    with pytest.raises(UserError, match="truncated or damaged one in image3"):
        refine(workdir, dataclasses.replace(task, image=task.image[:300]))
    narrow = dataclasses.replace(PSA, bilateral=(1e-6, 13.0, 10.0))
    with pytest.raises(UserError, match=r"CRF of image image3: .* widen the kernel"):
        refine(workdir, task, narrow)
    maps = draw_cams(3)
    maps[1, 2, 3] = np.nan
    write_cams(task.cams, keys_of(3), maps)
    with pytest.raises(UserError, match=r"image3.npz: expected finite scores"):
        refine(workdir, task)
    assert not (workdir / "out.npz").exists()


def test_one_pixel_and_the_fast_mode(workdir: Path):
    pixel = cv2.imencode(".png", np.full((1, 1, 3), 9, np.uint8))[1].tobytes()
    write_cams(workdir / "one.npz", np.array([1]), np.full((1, 1, 1), 0.9, np.float32))
    task = make_task(workdir, image=pixel, cams=workdir / "one.npz")
    fast = dataclasses.replace(PSA, fast=True)
    for how in (PSA, fast):
        assert read_crf_mask(refine(workdir, task, how), 4).tolist() == [[2]]
    mask = read_crf_mask(refine(workdir, make_task(workdir), fast), 4)
    assert (mask == np.array([0, 1, 3])[expected_q(3, 4).argmax(0)]).mean() > 0.97
    write_cams(workdir / "none.npz", np.zeros(0, np.int32), np.zeros((0, 0, 0), np.float32))
    nothing = refine(workdir, make_task(workdir, cams=workdir / "none.npz"))
    assert read_crf(nothing, 4)[1].shape == (1, *size_of(3))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alphas": ()}, "alphas above 0"),
        ({"alphas": (4, -1)}, "alphas above 0"),
        ({"gaussian": (3,)}, "gaussian to be a tuple of 2: a number, a number"),
        ({"bilateral": (80, 0, 10)}, "widths above 0"),
        ({"iterations": -1}, "iterations"),
        ({"workers": -1}, "number of workers"),
    ],
)
def test_wrong_settings_are_refused(workdir: Path, setting: dict, message: str):
    with pytest.raises(UserError, match=message):
        run_stage(workdir, **setting)


def test_missing_maps_are_named_before_work_begins(workdir: Path):
    (workdir / "cam/cams/image1.npz").unlink()
    with pytest.raises(UserError, match=r"CAM file .* found none for 1: image1"):
        run_stage(workdir)
    assert not (workdir / "crf/crf").exists()
