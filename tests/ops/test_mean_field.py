"""Mean-field updates on JAX's device: the host's results, exact ties, few programs, threads."""

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss_jax.data.images import decode_image
from wsss_jax.host.dense_crf import (
    IRN,
    PSA,
    CrfSettings,
    DenseCrf,
    HostMeanField,
    MakeMeanField,
    crf_of,
    label_unary,
    score_unary,
)
from wsss_jax.ops import mean_field
from wsss_jax.ops.mean_field import DeviceMeanField

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = CrfSettings(gaussian=(2.0, 3.0), bilateral=(6.0, 20.0, 4.0), iterations=5)


def draw(seed: int, height: int = 21, width: int = 19, labels: int = 3):
    """A smooth image with noise, and a unary of scores that are as noisy."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height * width).reshape(height, width, 1)
    image = (ramp + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)
    return image, score_unary(rng.random((height, width, labels)).astype(np.float32))


def infer(
    image: np.ndarray,
    unary: np.ndarray,
    how: CrfSettings = SMALL,
    make: MakeMeanField = DeviceMeanField,
) -> np.ndarray:
    return crf_of(image, "image", how, make).infer(unary, how.iterations)


def golden_case(shared: Path, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image and the arrays of a golden file."""
    with np.load(shared / f"golden/crf_{number}.npz") as arrays:
        golden = dict(arrays)
    folder = shared / "data/voc_mini/VOCdevkit/VOC2012/JPEGImages"
    path = folder / f"{golden['id']}.jpg"
    return decode_image(path.read_bytes(), path.name), golden


def unary_of(scores: np.ndarray, alpha: float) -> np.ndarray:
    scores = scores.astype(np.float32)
    background = (1 - scores.max(-1, keepdims=True)) ** np.float32(alpha)
    return score_unary(np.concatenate([background, scores], -1))


def check_golden_results(shared: Path) -> None:
    for number in (0, 1):
        image, golden = golden_case(shared, number)
        unary = unary_of(golden["scores"], 24)
        q, host = (infer(image, unary, PSA, make) for make in (DeviceMeanField, HostMeanField))
        assert (q.argmax(-1) == golden["psa_high_label"]).mean() >= 0.9999
        assert np.abs(q - golden["psa_high"]).mean() < 1e-5
        np.testing.assert_array_equal(q.argmax(-1), host.argmax(-1))
        assert np.abs(q - host).max() < 1e-5
        label = infer(image, label_unary(golden["irn_input"], 2, 0.7), IRN).argmax(-1)
        assert (label == golden["irn_label"]).mean() >= 0.9999
        assert (label != golden["irn_input"]).mean() > 0.005  # the CRF does something


@pytest.mark.slow
def test_golden_results_of_the_published_settings(shared: Path):
    """In a process of its own, since programs that are not optimized take minutes."""
    program = (
        "from pathlib import Path; from tests.ops.test_mean_field import check_golden_results;"
        f"check_golden_results(Path({str(shared)!r})); print('checked')"
    )
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.stdout == "checked\n", run.stderr


def test_a_part_of_a_photograph_has_the_labels_of_the_host(shared: Path):
    image, golden = golden_case(shared, 0)
    window = np.s_[200:250, 200:260]
    unary = unary_of(golden["scores"][window], 4)
    image = np.ascontiguousarray(image[window])
    q, host = (infer(image, unary, PSA, make) for make in (DeviceMeanField, HostMeanField))
    np.testing.assert_array_equal(q.argmax(-1), host.argmax(-1))
    assert np.abs(q - host).max() < 1e-5
    assert (q.argmax(-1) != unary.argmin(-1)).mean() > 0.01  # the CRF does something


@pytest.mark.parametrize(("labels", "fast"), [(2, False), (21, False), (3, True)])
def test_results_are_those_of_the_host(labels: int, fast: bool):
    image, unary = draw(labels, labels=labels)
    how = dataclasses.replace(SMALL, fast=fast)
    q, host = (infer(image, unary, how, make) for make in (DeviceMeanField, HostMeanField))
    np.testing.assert_allclose(q, host, atol=1e-5)
    once = infer(image, unary, dataclasses.replace(how, iterations=1))
    assert np.abs(q - once).max() > 0.001


@pytest.mark.parametrize("labels", [2, 7])
def test_equal_labels_stay_exactly_equal(labels: int):
    """A difference of one bit would grow with each update."""
    image, _ = draw(0)
    q = infer(image, np.zeros((21, 19, labels), np.float32), PSA)
    assert (q == q[0, 0, 0]).all()
    # The same with a third, unlikely label: the first two stay equal.
    unary = np.zeros((21, 19, 3), np.float32)
    unary[..., 2] = draw(1, labels=1)[1][..., 0] + 3
    q = infer(image, unary, PSA)
    np.testing.assert_allclose(q[..., 0], q[..., 1], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 16)])
def test_padding_does_not_change_results(size: tuple[int, int]):
    """Images of 1 pixel, and of as many pixels as the padded image and one more."""
    image, unary = draw(2, *size, labels=3)
    host = infer(image, unary, make=HostMeanField)
    np.testing.assert_allclose(infer(image, unary), host, atol=1e-5)


def test_images_of_similar_sizes_share_a_program():
    programs: Any = mean_field._last_message
    programs.clear_cache()  # of what other tests have compiled
    for height in (41, 43, 46):
        image, few = draw(height, height, 44)
        many = draw(height, height, 44, labels=4)[1]
        crf = DenseCrf(image, gaussian=(3, 3), bilateral=(9, 30, 10), mean_field=DeviceMeanField)
        for unary, iterations in ((few, 1), (many, 2)):
            crf.infer(unary, iterations)
    assert programs._cache_size() == 1


def test_numbers_are_rounded_up_to_few():
    assert [mean_field._up(n, 1) for n in (1, 256, 257, 512, 513)] == [256, 256, 512, 512, 1024]
    numbers = sorted({mean_field._up(n, 4) for n in range(1, 4000)})
    steps = [1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096]
    assert numbers == [256, 320, 384, 448, 512, 640, 768, 896, *steps]
    assert all(0 <= mean_field._up(n, 4) - n <= max(n / 4, 256) for n in range(1, 4000))


def test_threads_run_images_at_once():
    cases = [draw(seed, 20 + seed, 30) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: infer(*case), cases))
    for q, case in zip(found, cases, strict=True):
        np.testing.assert_allclose(q, infer(*case, make=HostMeanField), atol=1e-5)
