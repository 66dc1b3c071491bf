from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.data.images import decode_image
from wsss_jax.host.dense_crf import IRN, PSA, CrfSettings, DenseCrf, label_unary, score_unary
from wsss_jax.ops.dense_crf_jax import DenseCrfBatch, dense_crf_batch

WINDOW = np.s_[200:270, 200:290]


@pytest.fixture(scope="module")
def cases(shared: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Windows of the two images with golden values: image, scores behind background, labels."""
    found = []
    for number in (0, 1):
        with np.load(shared / f"golden/crf_{number}.npz") as golden:
            golden = dict(golden)
        folder = shared / "data/voc_mini/VOCdevkit/VOC2012/JPEGImages"
        path = folder / f"{golden['id']}.jpg"
        image = decode_image(path.read_bytes(), path.name)[WINDOW]
        scores = golden["scores"].astype(np.float32)[WINDOW]
        scores = np.concatenate([(1 - scores) ** np.float32(4), scores], -1)
        found.append((image, scores, golden["irn_input"][WINDOW]))
    return found


def on_host(image: np.ndarray, unary: np.ndarray, how: CrfSettings) -> np.ndarray:
    crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral)
    return crf.infer(unary, how.iterations)


def in_batch(images: np.ndarray, unary: np.ndarray, how: CrfSettings, **more) -> np.ndarray:
    q = dense_crf_batch(
        jnp.asarray(images),
        jnp.asarray(unary),
        gaussian=how.gaussian,
        bilateral=how.bilateral,
        iterations=how.iterations,
        **more,
    )
    return np.asarray(q)


def assert_same(q: np.ndarray, expected: np.ndarray) -> None:
    assert (q.argmax(-1) == expected.argmax(-1)).mean() >= 0.9999
    assert np.abs(q - expected).mean() < 1e-6


def batch_of(cases) -> tuple[np.ndarray, np.ndarray]:
    """Images and unaries; all tests have these shapes, which compile once."""
    images = np.stack([image for image, *_ in cases])
    return images, np.stack([score_unary(scores) for _, scores, _ in cases])


@pytest.mark.parametrize("how", [PSA, IRN], ids=["psa", "irn"])
def test_a_batch_agrees_with_the_host(cases, how: CrfSettings):
    unaries = [
        score_unary(scores) if how is PSA else label_unary(labels, 2, 0.7)
        for _, scores, labels in cases
    ]
    q = in_batch(np.stack([image for image, *_ in cases]), np.stack(unaries), how)
    for (image, *_), unary, one in zip(cases, unaries, q, strict=True):
        assert_same(one, on_host(image, unary, how))
        assert (one.argmax(-1) != unary.argmin(-1)).mean() > 0.05  # the CRF does something


def test_padding_has_no_influence(cases):
    images, unaries = batch_of(cases)
    valid = np.ones(images.shape[:3], bool)
    valid[1, 64:] = valid[1, :, 71:] = False
    q = in_batch(images, unaries, PSA, valid=jnp.asarray(valid))
    assert_same(q[0], on_host(images[0], unaries[0], PSA))
    part = np.s_[1, :64, :71]
    assert_same(q[part], on_host(np.ascontiguousarray(images[part]), unaries[part], PSA))
    np.testing.assert_allclose(q[1, 64:].sum(-1), 1, atol=1e-5)


def test_lattices_grow_when_an_image_needs_it_and_serve_several_unaries(cases):
    images, unaries = batch_of(cases)
    crf = DenseCrfBatch(
        jnp.asarray(images), gaussian=(3, 3), bilateral=(80, 13, 10), capacity=(1 << 14, 64)
    )
    assert crf.capacity[0] == 1 << 14 and crf.capacity[1] in (1 << n for n in range(7, 16))
    for other in (unaries, unaries / 2):
        q = np.asarray(crf.infer(jnp.asarray(other), 10))
        for index in range(2):
            assert_same(q[index], on_host(images[index], other[index], PSA))


def test_equal_labels_stay_equal(cases):
    images, unaries = batch_of(cases)
    np.testing.assert_allclose(in_batch(images, unaries * 0, PSA), 1 / 2, atol=1e-6)


def test_wrong_widths_are_refused():
    image, unary = np.zeros((1, 40, 50, 3), np.uint8), np.zeros((1, 40, 50, 2), np.float32)
    with pytest.raises(ValueError, match="widths above 0"):
        dense_crf_batch(
            jnp.asarray(image),
            jnp.asarray(unary),
            gaussian=(0, 3),
            bilateral=PSA.bilateral,
            iterations=1,
        )
    with pytest.raises(ValueError, match="or use the host's version"):
        in_batch(image, unary, CrfSettings(bilateral=(80.0, 1.0, 10.0)))
