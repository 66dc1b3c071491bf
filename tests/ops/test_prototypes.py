"""Prototypes of classes: assignment, means over other images, memory."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.slow_prototypes import normal
from wsss_jax.ops import prototypes as proto


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_assignment_by_hand():
    cam = np.zeros((1, 2, 1, 4), np.float32)
    cam[0, 0, 0] = [10, 2, 3, -5]
    cam[0, 1, 0] = [0.9, 0.4, 0, 0]
    both, first = jnp.ones((1, 2)), jnp.asarray([[1.0, 0.0]])
    # Divided by their maxima: 1, .2, .3, 0 and 1, .44, 0, 0; the lower class wins a tie.
    assert proto.assign(jnp.asarray(cam), both, 0.25)[0, 0].tolist() == [1, 2, 1, 0]
    assert proto.assign(jnp.asarray(cam), first, 0.25)[0, 0].tolist() == [1, 0, 1, 0]


def test_prototypes_against_loops(rng: np.random.Generator):
    features = rng.normal(0, 1, (3, 4, 5, 6)).astype(np.float32)
    classes = rng.integers(0, 3, (3, 4, 5))
    classes[1][classes[1] == 2] = 0
    found, present = proto.class_prototypes(jnp.asarray(features), jnp.asarray(classes), 4)
    expected, there = np.zeros((3, 4, 6), np.float32), np.zeros((3, 4), bool)
    for b in range(3):
        for k in range(4):
            members = normal(features[b][classes[b] == k])
            if len(members):
                expected[b, k], there[b, k] = normal(members.sum(0)), True
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(present, there)
    assert not there[1, 2] and not there[:, 3].any()

    others = np.zeros_like(expected)
    for b in range(3):
        for k in range(4):
            rest = [expected[j, k] for j in range(3) if j != b and there[j, k]]
            if rest:
                others[b, k] = normal(np.mean(rest, 0))
    np.testing.assert_allclose(proto.leave_one_out(found, present), others, atol=1e-5)
    mean = normal((expected * there[..., None]).sum(0))
    np.testing.assert_allclose(proto.batch_mean(found, present)[1], mean, atol=1e-6)


def test_an_images_own_prototype_never_enters_its_contrast(rng: np.random.Generator):
    values = normal(rng.normal(0, 1, (4, 3, 5)).astype(np.float32))
    present = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
    contrast = np.asarray(proto.leave_one_out(jnp.asarray(values), jnp.asarray(present)))
    for i in range(4):
        other = values.copy()
        other[i] = normal(rng.normal(0, 1, (3, 5)))
        changed = np.asarray(proto.leave_one_out(jnp.asarray(other), jnp.asarray(present)))
        np.testing.assert_allclose(changed[i], contrast[i], atol=2e-6)
    assert not contrast[2, 2].any()  # nobody else has the class
    # What is absent may hold anything.
    noise = np.where(present[..., None], values, rng.normal(0, 9, values.shape)).astype(np.float32)
    np.testing.assert_array_equal(
        proto.leave_one_out(jnp.asarray(noise), jnp.asarray(present)), contrast
    )


def test_memory_keeps_the_newest_of_each_class(rng: np.random.Generator):
    queue = jnp.zeros((2, 3, 4))
    said: list[list[np.ndarray]] = [[], []]
    for _ in range(6):
        values = normal(rng.normal(0, 1, (3, 2, 4)).astype(np.float32))
        present = rng.random((3, 2)) < 0.6
        queue = proto.remember(queue, jnp.asarray(values), jnp.asarray(present))
        for b in range(3):
            for k in range(2):
                if present[b, k]:
                    said[k].insert(0, values[b, k])
    for k in range(2):
        assert len(said[k]) > 3
        np.testing.assert_array_equal(queue[k], np.stack(said[k][:3]))
        np.testing.assert_allclose(
            proto.recalled(queue)[k], normal(np.sum(said[k][:3], 0)), atol=1e-6
        )
