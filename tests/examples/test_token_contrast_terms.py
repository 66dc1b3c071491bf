"""The terms of the example: each against a slow version of its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import token_contrast as example


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_token_contrast_is_its_definition():
    tokens, label = drawn(2, 3, 4, 5), np.random.default_rng(1).choice([0, 1, 3, 255], (2, 3, 4))
    sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for image in range(2):
        flat, marks = tokens[image].reshape(12, 5), label[image].ravel()
        for i, j in itertools.permutations(range(12), 2):
            if 255 not in (marks[i], marks[j]):
                cosine = flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j])
                sums[marks[i] == marks[j]] += abs(cosine)
                counts[marks[i] == marks[j]] += 1
    alike, apart = (sums[equal] / (counts[equal] + 1) for equal in (True, False))
    found = example.token_contrast(jnp.asarray(tokens), jnp.asarray(label))
    assert min(counts.values()) > 10
    np.testing.assert_allclose(found, 0.5 * (1 - alike) + 0.5 * apart, rtol=1e-5)


def test_token_contrast_without_known_tokens_teaches_nothing():
    tokens = jnp.asarray(drawn(1, 2, 2, 3))
    label = jnp.full((1, 2, 2), example.UNKNOWN)
    value, gradient = jax.value_and_grad(example.token_contrast)(tokens, label)
    assert value == 0.5 and not gradient.any()


def test_crop_contrast_is_its_definition():
    taught, views = (
        x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (drawn(2, 4), drawn(2, 3, 4))
    )
    positive = np.array([[True, False, True], [True, False, False]])
    total = 0.0
    for i in range(2):
        alike = np.array([np.exp(taught[i] @ view / 0.5) for view in views[i]])
        negative = alike[~positive[i]].sum()
        terms = [-np.log(a / (a + negative + 1e-4)) for a in alike[positive[i]]]
        total += sum(terms) / len(terms)
    found = example.crop_contrast(
        jnp.asarray(taught), jnp.asarray(views), jnp.asarray(positive), 0.5
    )
    np.testing.assert_allclose(found, total / 2, rtol=1e-5)


def test_labels_of_maps_and_their_regions():
    cam, labels = drawn(2, 5, 6, 3), np.array([[1, 0, 1], [0, 1, 0]], np.float32)
    valid = np.ones((2, 5, 6), bool)
    valid[1, 3:] = False
    found = example.thresholded(jnp.asarray(cam), jnp.asarray(labels), jnp.asarray(valid), 0.8, 0.2)
    region = example.regions(found)
    seen = set()
    for b, y, x in np.ndindex(2, 5, 6):
        scores = cam[b, y, x] * labels[b]
        best = scores.max()
        expected = 255 if best <= 0.8 else int(scores.argmax()) + 1
        expected = 0 if best <= 0.2 else expected
        expected = expected if valid[b, y, x] else 255
        assert found[b, y, x] == expected
        assert region[b, y, x] == {0: 0, 255: 1}.get(expected, 2)
        seen.add(expected)
    assert seen == {0, 1, 2, 3, 255}


def test_means_of_boxes_count_the_pixels_inside():
    values, valid = drawn(2, 4, 5), np.ones((2, 4, 5), bool)
    valid[0, :, 3:] = False
    boxes = np.array(
        [
            [[0, 0, 16, 20], [3, 5, 7, 9], [4, 8, 4, 4]],
            [[1, 13, 2, 7], [0, 0, 1, 1], [9, 2, 7, 11]],
        ],
        np.float32,
    )
    boxes = np.concatenate([boxes, np.array([[[2, 12, 8, 8]], [[5, 5, 8, 8]]], np.float32)], 1)
    found = example.box_means(jnp.asarray(values), jnp.asarray(valid), jnp.asarray(boxes), 4)
    for b, v in np.ndindex(2, 4):
        top, left, height, width = boxes[b, v].astype(int)
        cut = np.s_[top : top + height, left : left + width]
        whole, there = (np.kron(x[b], np.ones((4, 4)))[cut] for x in (values, valid))
        expected = (whole * there).sum() / there.sum() if there.any() else 0
        np.testing.assert_allclose(found[b, v], expected, rtol=1e-5, atol=1e-6)
    assert found[0, 3] == 0  # nothing but padding


def slow_refinement(image, scores, dilations, times):
    h, w, _ = image.shape
    near = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    offsets = [(d * y, d * x) for d in dilations for y, x in near]
    distance = np.array([np.hypot(*offset) for offset in offsets])
    place = np.exp(-((distance / distance.std(ddof=1) / 0.3) ** 2))
    for _ in range(times):
        refined = np.zeros_like(scores)
        for y, x in np.ndindex(h, w):
            at = [(min(max(y + dy, 0), h - 1), min(max(x + dx, 0), w - 1)) for dy, dx in offsets]
            colors = np.array([image[p] for p in at])
            spread = colors.std(0, ddof=1) + 1e-8
            color = np.exp(-(((np.abs(colors - image[y, x]) / spread / 0.3) ** 2).mean(1)))
            weights = color / color.sum() + 0.01 * place / place.sum()
            refined[y, x] = sum(n * scores[p] for n, p in zip(weights, at, strict=True))
        scores = refined
    return scores


def test_refinement_is_its_definition():
    image, scores = np.abs(drawn(6, 7, 3)), drawn(6, 7, 2, seed=1)
    weights = example.neighbor_weights(jnp.asarray(image[None]), (1, 3))
    found = example.refine(jnp.asarray(scores[None]), weights, (1, 3), 2)
    np.testing.assert_allclose(
        found[0], slow_refinement(image, scores, (1, 3), 2), rtol=1e-4, atol=1e-5
    )


def test_golden_refinement(shared):
    with np.load(shared / "golden" / "toco_par.npz") as golden:
        image, start, expected = (jnp.asarray(golden[k]) for k in ("image", "out_0", "out_10"))
    dilations = (1, 2, 4, 8, 12, 24)
    weights = example.neighbor_weights(image, dilations)
    found = example.refine(start, weights, dilations, 10)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_maps_of_scales_and_flips():
    cams = [drawn(4, 3, 2, 2), drawn(4, 6, 4, 2, seed=1)]
    found = example.joint_cam([jnp.asarray(cam) for cam in cams], (6, 4))
    large = [
        np.asarray(example.resize_bilinear(jnp.asarray(c), (6, 4), align_corners=False))
        for c in cams
    ]
    total = np.sum([np.maximum(np.maximum(c[:2], c[2:, :, ::-1]), 0) for c in large], axis=0)
    for b, k in np.ndindex(2, 2):
        one = total[b, ..., k]
        expected = (one - one.min()) / (one.max() - one.min() + 1e-5)
        np.testing.assert_allclose(found[b, ..., k], expected, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_rank_pooling_is_its_definition(decay):
    cam, valid = drawn(2, 3, 4, 2), np.ones((2, 3, 4), bool)
    valid[1, :, 2:] = False
    found = example.rank_pool(jnp.asarray(cam), jnp.asarray(valid), decay)
    for b, k in np.ndindex(2, 2):
        ranked = np.sort(cam[b, ..., k][valid[b]])[::-1]
        weights = [decay**rank for rank in range(len(ranked))]
        np.testing.assert_allclose(found[b, k], np.average(ranked, weights=weights), rtol=1e-5)
    special = {0.0: np.max, 1.0: np.mean}
    if decay in special:
        np.testing.assert_allclose(found[0], special[decay](cam[0], (0, 1)), rtol=1e-5)
