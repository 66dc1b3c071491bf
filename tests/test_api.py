"""The Python interface gives what stages and command lines give."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import wsss_jax
from tests.reference.drawn_networks import Images, Trained, context
from tests.toys.records import finish
from tests.toys.sections import run_section
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.host.dense_crf import PSA, dense_crf, score_unary
from wsss_jax.scoring.folders import evaluate
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.predict import Predict

PHOTOS = Images((40, 40), (33, 47), (48, 30))
HOW = dict(split="val", scales=(0.5, 1.0), flip=True)
PREDICT = dict(HOW, type="predict", crf=True, bilateral=(20, 60, 30), iterations=5)
CAMS = dict(HOW, type="infer_cam")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two trained networks and what its stages made of `PHOTOS`."""
    folder = tmp_path_factory.mktemp("run")
    for name, method in (("segmentation", "segmentation"), ("classifier", "cam")):
        (folder / name).mkdir()
        Trained(folder / name, method, "tiny")
        write_json(folder / name / "metrics.json", {"classes": Images.classes})
        finish(folder / name)
    stages = {"cam": CAMS, "masks": PREDICT}
    networks = {"cam": "classifier", "masks": "segmentation"}
    config: dict = {"stages": list(stages)}
    for name, section in stages.items():
        config[name] = section | {"needs": {"checkpoint": networks[name]}}
        kind = Predict if name == "masks" else InferCam
        inputs = {"checkpoint": folder / networks[name]}
        run_section(kind, context(folder / name, PHOTOS), ConfigDict(section), inputs)
    write_json(folder / "results.json", {"config": config})
    return folder


def photo(position: int) -> np.ndarray:
    return decode_image(PHOTOS[position]["image"], "photo")


def mask_of(workdir: Path, name: str) -> np.ndarray:
    path = workdir / "masks/masks" / f"{name}.png"
    return decode_mask(path.read_bytes(), name, len(Images.classes))


def test_masks_are_those_of_the_stage(workdir: Path, tmp_path: Path):
    run = wsss_jax.load(workdir)
    assert run.classes == ("background", *Images.classes)
    (tmp_path / "one.png").write_bytes(PHOTOS[0]["image"])
    given = [tmp_path / "one.png", photo(1), Image.fromarray(photo(2))]
    results = list(run.predict_many(iter(given * 4)))  # more than are planned together
    assert len(results) == 12
    for index, result in enumerate(results):
        name = PHOTOS.ids[index % 3]
        assert np.mean(result.mask != mask_of(workdir, name)) < 2e-3  # other padded shapes
        np.testing.assert_array_equal(result.probabilities.argmax(0), result.mask)
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
        np.testing.assert_array_equal(result.image, photo(index % 3))
        assert result.overlay().shape[1:] == (result.mask.shape[1], 3)
    results[1].save(tmp_path / "mask.png")
    saved = decode_mask((tmp_path / "mask.png").read_bytes(), "mask", len(Images.classes))
    np.testing.assert_array_equal(saved, results[1].mask)


def test_labels_restrict_the_mask(workdir: Path):
    run = wsss_jax.load(workdir, crf=False)
    anything = run.predict(photo(0))
    first, second = Images.classes[:2]
    only = run.predict(photo(0), labels=[second])
    assert set(np.unique(only.mask)) <= {0, 2}
    assert only.probabilities[1].max() == 0 and anything.probabilities[1].max() > 0
    np.testing.assert_allclose(only.probabilities.sum(0), 1, atol=1e-5)
    assert set(np.unique(run.predict(photo(0), labels=first).mask)) <= {0, 1}
    assert not run.predict(photo(0), labels=[]).mask.any()


def test_maps_are_those_of_the_stage(workdir: Path):
    run = wsss_jax.load(workdir)
    for position, name in enumerate(PHOTOS.ids):
        keys, expected = read_cams(workdir / "cam/cams" / f"{name}.npz", len(Images.classes))
        labels = [Images.classes[key] for key in keys]
        found = run.cam(photo(position), labels)
        assert found.labels == tuple(labels)
        # Other padded shapes round differently.
        np.testing.assert_allclose(found.maps, expected, atol=1e-3)
    everything = run.cam(photo(0))
    assert everything.labels == Images.classes
    mask = everything.mask(0.5)
    strongest = everything.maps.max(0)
    np.testing.assert_array_equal(mask == 0, strongest <= 0.5)
    assert mask[strongest == strongest.max()][0] == everything.maps.max((1, 2)).argmax() + 1
    assert not run.cam(photo(0), []).mask(0.5).any()


@pytest.mark.parametrize("crf", [False, True])
def test_huge_images_take_bounded_memory(crf: bool, workdir: Path, monkeypatch: pytest.MonkeyPatch):
    """Masks have full size; probabilities and maps are smaller."""
    run, labels = wsss_jax.load(workdir, crf=crf), ["cat", "dog", "cow"]
    whole, whole_maps = run.predict(photo(1)), run.cam(photo(1), labels)
    monkeypatch.setattr("wsss_jax.host.logit_masks._VALUES", 33 * 47 * 4 // 4)
    if crf:
        monkeypatch.setattr("wsss_jax.host.dense_crf.MOST_PIXELS", 33 * 47 // 4)
    small, maps = run.predict(photo(1)), run.cam(photo(1), labels)
    assert small.probabilities.size <= 33 * 47 * (1.1 if crf else 1)
    assert small.mask.shape == whole.mask.shape == (33, 47)
    assert np.mean(small.mask != whole.mask) <= (0.25 if crf else 0)
    resized = np.stack(
        [cv2.resize(one, small.probabilities.shape[:0:-1]) for one in whole.probabilities]
    )
    assert np.abs(resized - small.probabilities).mean() < 0.1
    assert maps.maps.size <= 33 * 47 and maps.mask(0.5).shape == (33, 47)
    assert np.mean(maps.mask(0.5) != whole_maps.mask(0.5)) < 0.1


def test_the_crf_takes_probabilities():
    rng = np.random.default_rng(0)
    scores = rng.random((3, 20, 30), np.float32)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    unary = np.moveaxis(score_unary(scores), 0, 2)
    expected = dense_crf(
        image, unary, gaussian=PSA.gaussian, bilateral=PSA.bilateral, iterations=PSA.iterations
    )
    np.testing.assert_array_equal(np.moveaxis(wsss_jax.crf(image, scores), 0, 2), expected)
    np.testing.assert_allclose(wsss_jax.crf(image, scores, iterations=0).sum(0), 1, atol=1e-5)
    for wrong, words in (
        (scores[:, 1:], r"expected probabilities \[labels, 20, 30\]"),
        (scores * 2, "expected probabilities in 0…1"),
        (scores * np.nan, "expected probabilities in 0…1"),
    ):
        with pytest.raises(UserError, match=words):
            wsss_jax.crf(image, wrong)
    with pytest.raises(UserError, match="iterations"):
        wsss_jax.crf(image, scores, iteration=3)


def test_scores_are_those_of_the_evaluation(tmp_path: Path):
    rng = np.random.default_rng(0)
    truths = [rng.choice(np.array([0, 1, 2, 255], np.uint8), (9, 12)) for _ in range(3)]
    masks = [rng.integers(0, 3, (9, 12)) for _ in truths]
    for folder, arrays in (("pred", masks), ("gt", truths)):
        (tmp_path / folder).mkdir()
        for index, array in enumerate(arrays):
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / f"{index}.png")
    classes = ("a", "b", "c")
    for protocol in ("strict", "present"):
        expected = evaluate(
            tmp_path / "pred", tmp_path / "gt", ["0", "1", "2"], classes, protocol=protocol
        )
        assert wsss_jax.score(masks, truths, classes, protocol) == expected
    paths = [tmp_path / "pred" / f"{index}.png" for index in range(3)]
    assert wsss_jax.score(paths, truths, classes, "present") == expected


@pytest.mark.parametrize(
    ("masks", "truths", "words"),
    [
        ([], [], "found none"),
        ([np.zeros((2, 2), np.uint8)], [], "zip"),
        ([np.zeros((2, 2), np.uint8)], [np.zeros((2, 3), np.uint8)], r"the shape \(2, 3\)"),
        ([np.full((2, 2), 255)], [np.zeros((2, 2), int)], "the value 255"),
        ([np.full((2, 2), 2)], [np.zeros((2, 2), int)], "mask 0"),
        ([np.full((2, 2), 256)], [np.zeros((2, 2), int)], "found 256 to 256"),
        ([np.zeros((2, 2, 1), int)], [np.zeros((2, 2), int)], "a mask of integers"),
        ([np.zeros((2, 2))], [np.zeros((2, 2), int)], "a mask of integers"),
    ],
)
def test_masks_that_cannot_be_scored(masks: list, truths: list, words: str):
    with pytest.raises(UserError, match=words):
        wsss_jax.score(masks, truths, ("a",))


def test_mistakes(workdir: Path, tmp_path: Path):
    with pytest.raises(UserError, match="expected the folder of a run"):
        wsss_jax.load(tmp_path)
    with pytest.raises(UserError, match=r"found scale\b.*scales"):
        wsss_jax.load(workdir, scale=(1.0,))
    with pytest.raises(UserError, match="expected other among those"):
        wsss_jax.load(workdir, "other")
    run = wsss_jax.load(workdir, scales=(1.0,))
    with pytest.raises(UserError, match=r"expected labels among .*found 'nothing'"):
        run.predict(photo(0), labels=["nothing"])
    with pytest.raises(UserError, match="put it in a list"):
        next(run.predict_many(photo(0)))
    for wrong in (photo(0) / 255, photo(0)[..., :2], np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(UserError, match=r"expected RGB values uint8 \[h, w, 3\]"):
            run.predict(wrong)
    with pytest.raises(UserError, match="nowhere"):
        run.predict(tmp_path / "nowhere.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match="expected an image"):
        run.predict(tmp_path / "text.jpg")


def test_gray_images_are_repeated(workdir: Path):
    run = wsss_jax.load(workdir, crf=False)
    gray = photo(0)[..., 0]
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "PNG")
    repeated = np.repeat(gray[..., None], 3, 2)
    expected = run.predict(repeated).probabilities
    np.testing.assert_array_equal(run.predict(gray).probabilities, expected)
    np.testing.assert_array_equal(run.predict(Image.open(file)).probabilities, expected)


def test_the_package_imports_without_jax():
    program = "import sys, wsss_jax; sys.exit('jax' in sys.modules or not wsss_jax.__version__)"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        wsss_jax.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
