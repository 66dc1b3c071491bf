"""LPCAM on the host: which features are sampled, how they are clustered, and what is chosen."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from wsss_jax.host.cosine_kmeans import cosine_kmeans
from wsss_jax.host.feature_samples import Draw, sides_of
from wsss_jax.host.prototype_choice import contexts, probabilities, prototypes


@pytest.fixture(scope="module")
def authors(golden: Path) -> dict[str, np.ndarray]:
    """Results of the authors' program."""
    with np.load(golden / "lpcam.npz") as file:
        return dict(file)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("number", [0, 1])
def test_golden_samples(authors: dict[str, np.ndarray], number: int):
    label = authors["classes"][number]
    found: tuple[list[np.ndarray], ...] = ([], [])
    for image in range(len(authors["sizes"])):
        keys = authors[f"keys_{image}"].tolist()
        if label in keys:
            features = authors[f"features_{image}"]
            cam = authors[f"high_res_cam_{image}"][..., keys.index(label)]
            for rows, places in zip(found, sides_of(cam, features.shape[:2], 0.1), strict=True):
                rows.append(features.reshape(-1, features.shape[-1])[places])
    for rows, side in zip(found, ("fg", "other"), strict=True):
        assert_array_equal(np.concatenate(rows), authors[f"sampled_{side}_{number}"])


@pytest.mark.parametrize("tolerance", ["5", "1e-4"])
def test_golden_clusters(authors: dict[str, np.ndarray], tolerance: str):
    x = authors["km_x"]
    found = cosine_kmeans(x, x[authors["km_init"]], float(tolerance), 100)
    assert_array_equal(found.ids, authors[f"km_ids_tol{tolerance}"])
    expected = authors[f"km_centers_tol{tolerance}"]
    assert_allclose(found.centers, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert found.iterations == authors[f"km_iters_tol{tolerance}"]
    assert_array_equal(found.filled(), found.centers)


@pytest.mark.parametrize("number", [0, 1])
def test_golden_choice(authors: dict[str, np.ndarray], number: int):
    label, kernel = int(authors["classes"][number]), authors["w"].T
    inside, outside = (
        probabilities(authors[f"centers_{side}_{number}"], kernel, label)
        for side in ("fg", "other")
    )
    assert_allclose(inside, authors[f"prob_fg_{number}"], atol=1e-5)
    assert_allclose(outside, authors[f"prob_other_{number}"], atol=1e-5)
    assert_array_equal(prototypes(inside, 0.9), authors[f"kept_fg_{number}"])
    assert_array_equal(contexts(outside, (0.05, 0.9)), authors[f"kept_context_{number}"])


def test_sides_against_loops(rng: np.random.Generator):
    cam = rng.random((13, 22)).astype(np.float16)
    cam[cam > 0.8] = np.float32(0.25)
    inside, outside = sides_of(cam, (4, 7), 0.25)
    expected: tuple[list[int], list[int]] = ([], [])
    for y, x in np.ndindex(4, 7):
        value = float(cam[y * 13 // 4, x * 22 // 7])
        if value != 0.25:
            expected[value < 0.25].append(7 * y + x)
    assert (inside.tolist(), outside.tolist()) == expected
    assert len(inside) + len(outside) < 28  # some equal the threshold


def test_a_draw_does_not_depend_on_the_order_of_images(rng: np.random.Generator):
    parts = [(image, np.arange(rng.integers(0, 40)) * 3) for image in range(30)]
    given = [(image, places, rng.random(len(places))) for image, places in parts]
    total = sum(len(places) for _, places in parts)
    results = []
    for order in (range(30), range(29, -1, -1), rng.permutation(30)):
        draw = Draw(50)
        for image in order:
            draw.add(*given[image])
        assert draw.found == total > 200
        results.append(draw.drawn())
    pairs = [
        (number, image, place)
        for image, places, numbers in given
        for number, place in zip(numbers, places, strict=True)
    ]
    expected = sorted((image, place) for _, image, place in sorted(pairs)[:50])
    for images, places in results:
        assert [*zip(images.tolist(), places.tolist(), strict=True)] == expected


def test_few_pixels_are_all_drawn():
    draw = Draw(5)
    assert [one.tolist() for one in draw.drawn()] == [[], []]
    draw.add(7, np.array([4, 9]), np.array([0.9, 0.1]))
    draw.add(2, np.array([1]), np.array([0.5]))
    assert [one.tolist() for one in draw.drawn()] == [[2, 7, 7], [1, 4, 9]]


def slow_kmeans(
    x: np.ndarray, start: np.ndarray, tolerance: float, most: int
) -> tuple[list[int], np.ndarray, int]:
    """Ids, centers and iterations, one row after the other."""
    centers, iterations = [np.array(row, float) for row in start], 0
    ids: list[int] = []
    while iterations < most:
        iterations += 1
        ids = []
        for row in x.astype(float):
            distances = [1 - row @ c / (np.linalg.norm(row) * np.linalg.norm(c)) for c in centers]
            ids.append(int(np.argmin(distances)))
        shift = 0.0
        for k in range(len(centers)):
            members = [row for row, own in zip(x, ids, strict=True) if own == k]
            if members:
                new = np.mean(members, 0, dtype=float)
                shift += float(np.linalg.norm(new - centers[k]))
                centers[k] = new
        if shift**2 < tolerance:
            break
    return ids, np.stack(centers), iterations


@pytest.mark.parametrize("most", [2, 100])
def test_clusters_against_loops(rng: np.random.Generator, most: int):
    directions = rng.normal(0, 1, (4, 6))
    lengths = rng.uniform(0.1, 20, (80, 1))
    x = lengths * (directions[rng.integers(0, 4, 80)] + rng.normal(0, 0.4, (80, 6)))
    x = x.astype(np.float32)
    start = x[rng.choice(80, 5, replace=False)]
    found = cosine_kmeans(x, start, 1e-6, most)
    ids, centers, iterations = slow_kmeans(x, start, 1e-6, most)
    assert found.ids.tolist() == ids and found.iterations == iterations
    assert iterations == 2 if most == 2 else 2 < iterations < 100
    assert_allclose(found.centers, centers, rtol=1e-5)


def test_a_cluster_without_rows_is_left_out_and_nothing_becomes_nan():
    x = np.array([[1, 0], [2, 0], [0, 3], [0.1, 4]], np.float32)
    found = cosine_kmeans(x, x[[0, 1, 2]], 1e-9, 100)  # the first two have the same direction
    assert found.ids.tolist() == [0, 0, 2, 2]
    assert np.isfinite(found.centers).all()
    assert_allclose(found.filled(), [[1.5, 0], [0.05, 3.5]], rtol=1e-6)
    none = cosine_kmeans(x[:0], x[:0], 5.0, 100)
    assert none.filled().shape == (0, 2) and none.iterations == 0


def test_the_likeliest_center_stands_for_a_class_that_none_represents():
    unlikely = np.array([0.2, 0.7, 0.3, 0.7 - 1e-8])
    assert prototypes(unlikely, 0.9).tolist() == [1, 3]
    assert prototypes(unlikely, 0.25).tolist() == [1, 2, 3]
    assert prototypes(np.zeros(0), 0.9).tolist() == []
    assert contexts(np.array([0.05, 0.051, 0.9, 0.899, 1.0, 0.0]), (0.05, 0.9)).tolist() == [1, 3]


def test_probabilities_are_those_of_large_logits():
    kernel = np.array([[2000.0, 0.0, 1999.0]], np.float32)
    first, second, third = (probabilities(np.ones((1, 1)), kernel, k)[0] for k in range(3))
    assert first == pytest.approx(1 / (1 + np.exp(-1))) and second == 0
    assert first + third == pytest.approx(1)
