"""The dense CRF: golden results, obvious kernels, invariances, wrong arguments."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.obvious_lattice import obvious_filter
from wsss_jax.data.images import decode_image
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import (
    IRN,
    PSA,
    CrfSettings,
    DenseCrf,
    dense_crf,
    label_unary,
    score_unary,
)

SMALL = CrfSettings(gaussian=(2.0, 3.0), bilateral=(6.0, 20.0, 4.0), iterations=5)


def draw(seed: int, height: int = 11, width: int = 9, labels: int = 3):
    """A smooth image with noise, and scores that are as noisy."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height * width).reshape(height, width, 1)
    image = (ramp + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)
    return image, score_unary(rng.random((height, width, labels)).astype(np.float32))


def infer(image: np.ndarray, unary: np.ndarray, how: CrfSettings = SMALL) -> np.ndarray:
    image, unary = np.ascontiguousarray(image), np.ascontiguousarray(unary)
    return dense_crf(
        image, unary, gaussian=how.gaussian, bilateral=how.bilateral, iterations=how.iterations
    )


# The CRF


@pytest.mark.parametrize("number", [0, 1])
def test_golden_results_of_the_published_settings(shared: Path, number: int):
    with np.load(shared / f"golden/crf_{number}.npz") as golden:
        golden = dict(golden)
    folder = shared / "data/voc_mini/VOCdevkit/VOC2012/JPEGImages"
    path = folder / f"{golden['id']}.jpg"
    image = decode_image(path.read_bytes(), path.name)
    scores = golden["scores"].astype(np.float32)
    crf = DenseCrf(image, gaussian=PSA.gaussian, bilateral=PSA.bilateral)
    for alpha, name in ((4, "psa_low"), (24, "psa_high")):
        background = (1 - scores.max(-1, keepdims=True)) ** np.float32(alpha)
        unary = score_unary(np.concatenate([background, scores], -1))
        q = crf.infer(unary, PSA.iterations)
        assert (q.argmax(-1) == golden[f"{name}_label"]).mean() >= 0.9999
        assert np.abs(q - golden[name]).mean() < 1e-5
        rounded = q.astype(np.float16).astype(np.float32)
        assert np.abs(rounded - golden[name]).mean() < 1e-7  # what is left is the file's float16
    unary = label_unary(golden["irn_input"], 2, 0.7)
    label = infer(image, unary, IRN).argmax(-1)
    assert (label == golden["irn_label"]).mean() >= 0.9999
    assert (label != golden["irn_input"]).mean() > 0.005  # the CRF does something


def test_an_update_is_that_of_the_kernels_as_matrices():
    image, unary = draw(0, 5, 4)
    grid = np.indices((5, 4), np.float32)[::-1].reshape(2, -1)
    color = image.reshape(-1, 3).T.astype(np.float32)
    q = np.exp(-unary.reshape(20, 3).astype(np.float64))
    q /= q.sum(1, keepdims=True)
    matrix = np.zeros((20, 20))
    for features, weight in (
        (grid / np.float32(2), 3),
        (np.concatenate([grid / np.float32(6), color / np.float32(20)]), 4),
    ):
        unit = np.eye(20)
        kernel = np.stack([obvious_filter(features.T, column) for column in unit], 1)
        norm = 1 / np.sqrt(kernel.sum(1))
        matrix += weight * norm[:, None] * kernel * norm
    for _ in range(SMALL.iterations):
        q = np.exp(-unary.reshape(20, 3) + matrix @ q)
        q /= q.sum(1, keepdims=True)
    np.testing.assert_allclose(infer(image, unary).reshape(20, 3), q, atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.permutations(range(4)))
def test_labels_may_change_places(seed: int, order: list[int]):
    image, unary = draw(seed, labels=4)
    np.testing.assert_allclose(
        infer(image, unary[..., order]), infer(image, unary)[..., order], atol=1e-5
    )


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.booleans()
)
def test_results_are_distributions(seed: int, height: int, width: int, labels: int, fast: bool):
    image, unary = draw(seed, height, width, labels)
    q = dense_crf(image, unary, gaussian=(3, 3), bilateral=(80, 13, 10), iterations=10, fast=fast)
    assert q.shape == (height, width, labels) and q.dtype == np.float32
    assert q.min() >= 0
    np.testing.assert_allclose(q.sum(-1), 1, atol=1e-5)


def test_a_constant_image_with_a_constant_unary_stays_put():
    image = np.full((30, 40, 3), 77, np.uint8)
    p = np.array([0.5, 0.3, 0.2], np.float32)
    unary = np.broadcast_to(-np.log(p), (30, 40, 3))
    q = infer(image, unary, PSA)
    assert (q.argmax(-1) == 0).all()
    # All pixels stay alike, but for how the lattice ends at the image's border.
    inside = q[5:-5, 5:-5]
    assert np.ptp(inside, axis=(0, 1)).max() < 0.02 and (inside[..., 0] > 0.5).all()
    equal = np.zeros((30, 40, 3), np.float32)
    np.testing.assert_allclose(infer(image, equal, PSA), 1 / 3, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_commute_up_to_the_lattice(shared: Path, axis: int):
    # A mirrored image meets the lattice elsewhere. On the two images with golden values up to
    # 0.03 % (PSA) and 0.06 % (IRN) of the labels change, and Q by 0.0003 and 0.0005 on average.
    with np.load(shared / "golden/crf_0.npz") as golden:
        golden = dict(golden)
    folder = shared / "data/voc_mini/VOCdevkit/VOC2012/JPEGImages"
    path = folder / f"{golden['id']}.jpg"
    window = np.s_[100:300, 100:300]
    image = decode_image(path.read_bytes(), path.name)[window]
    scores = golden["scores"].astype(np.float32)[window]
    unary = score_unary(np.concatenate([(1 - scores) ** np.float32(4), scores], -1))
    q = infer(image, unary, PSA)
    flipped = np.flip(infer(np.flip(image, axis), np.flip(unary, axis), PSA), axis)
    assert (q.argmax(-1) == flipped.argmax(-1)).mean() > 0.998
    assert np.abs(q - flipped).mean() < 0.002
    assert 0.05 < (q.argmax(-1) == 1).mean() < 0.95


def test_fast_agrees_where_the_picture_is_plain():
    image = np.zeros((60, 81, 3), np.uint8)
    image[:, 40:] = 255
    rng = np.random.default_rng(0)
    truth = (np.arange(81) >= 40).astype(np.float32)
    noisy = np.clip(0.3 + 0.4 * truth + 0.3 * rng.standard_normal((60, 81)), 0.01, 0.99)
    unary = score_unary(np.stack([1 - noisy, noisy], -1).astype(np.float32))
    how = dict(gaussian=(3, 3), bilateral=(80, 13, 10), iterations=10)
    full, fast = (dense_crf(image, unary, **how, fast=fast) for fast in (False, True))  # pyright: ignore
    assert (unary.argmin(-1) != truth).mean() > 0.1
    assert (full.argmax(-1) == truth).all()
    assert (fast.argmax(-1) == full.argmax(-1)).mean() > 0.98


def test_one_lattice_serves_several_unaries():
    image, unary = draw(3)
    crf = DenseCrf(image, gaussian=SMALL.gaussian, bilateral=SMALL.bilateral)
    for other in (unary, unary[..., :2], -unary):
        kept = other.copy()
        np.testing.assert_array_equal(crf.infer(other, 5), infer(image, other))
        np.testing.assert_array_equal(other, kept)


def test_no_update_is_the_softmax_of_the_unary():
    image, unary = draw(4)
    q = DenseCrf(image, gaussian=(3, 3), bilateral=(80, 13, 10)).infer(unary, 0)
    expected = np.exp(-unary) / np.exp(-unary).sum(-1, keepdims=True)
    np.testing.assert_allclose(q, expected, rtol=1e-5)


def test_many_labels_are_filtered_as_few_are(monkeypatch: pytest.MonkeyPatch):
    image, unary = draw(9, labels=9)
    together = infer(image, unary)
    monkeypatch.setattr("wsss_jax.host.dense_crf._TOGETHER", 100)
    np.testing.assert_allclose(infer(image, unary), together, atol=1e-6)


def test_one_label_and_one_pixel():
    image, unary = draw(5, labels=1)
    assert (infer(image, unary) == 1).all()
    image, unary = draw(6, 1, 1, 2)
    # Alone, a pixel is its own neighbor: Q <- softmax(-unary + (3 + 4) Q).
    q = np.exp(-unary[0, 0].astype(np.float64))
    q /= q.sum()
    for _ in range(SMALL.iterations):
        q = np.exp(-unary[0, 0] + 7 * q)
        q /= q.sum()
    np.testing.assert_allclose(infer(image, unary)[0, 0], q, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_unary_that_is_not_finite_is_refused(value: float):
    image, unary = draw(7)
    unary[3, 3, 1] = value
    with pytest.raises(ValueError, match="finite"):
        infer(image, unary)


def test_wrong_arguments_are_refused():
    image, unary = draw(8)
    with pytest.raises(ValueError, match="at least 1 label"):
        infer(image, unary[..., :0])
    with pytest.raises(ValueError, match=r"unary of \(11, 9\)"):
        DenseCrf(image, gaussian=(3, 3), bilateral=(80, 13, 10)).infer(unary[:-1], 10)
    with pytest.raises(ValueError, match="image with pixels"):
        infer(image[:0], unary[:0])
    wrong: tuple[dict[str, Any], ...] = (
        {"gaussian": (0.0, 3.0)},
        {"bilateral": (80.0, -1.0, 10.0)},
        {"bilateral": (80.0, 13.0, -1.0)},
        {"bilateral": (80.0, math.nan, 1.0)},
    )
    for changed in wrong:
        kernels: dict = {"gaussian": PSA.gaussian, "bilateral": PSA.bilateral} | changed
        with pytest.raises(ValueError, match="widths above 0"):
            dense_crf(image, unary, **kernels, iterations=5)
        with pytest.raises(UserError, match="expected CRF widths above 0"):
            CrfSettings(**changed)
        with pytest.raises(UserError, match=r"expected (CRF widths above 0|bilateral .*nan)"):
            CrfSettings.from_config(changed)
    with pytest.raises(UserError, match="iterations of 0 or more, found -1"):
        CrfSettings(iterations=-1)


# Unaries


def test_unary_of_scores_is_clipped():
    scores = np.array([0, 1e-6, 0.5, 1, 3], np.float32)
    np.testing.assert_allclose(
        score_unary(scores), [-math.log(1e-5), -math.log(1e-5), math.log(2), 0, 0], rtol=1e-6
    )


def test_unary_of_labels_is_a_distribution():
    labels = np.array([[0, 2], [1, 0]], np.uint8)
    p = np.exp(-label_unary(labels, 3, 0.7))
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(p.argmax(-1), labels)
    np.testing.assert_allclose(p[0, 1], [0.15, 0.15, 0.7], rtol=1e-6)
    assert (label_unary(labels * 0, 1, 0.7) == 0).all()


@pytest.mark.parametrize(
    ("labels", "count", "confidence"), [(2, 2, 0.7), (-1, 2, 0.7), (0, 0, 0.7), (0, 2, 1.0)]
)
def test_wrong_labels_are_refused(labels: int, count: int, confidence: float):
    with pytest.raises(ValueError, match="expected"):
        label_unary(np.full((2, 2), labels), count, confidence)


def test_the_module_does_not_import_jax():
    # Processes that share the images start with it; JAX would cost them a second and memory.
    program = "import sys, wsss_jax.host.dense_crf; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
