"""What SEAM's paper varies: the transform of the second image, and what is left out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.toys.steps import loss_function
from wsss_jax.errors import UserError
from wsss_jax.methods.seam import Seam
from wsss_jax.methods.variables import init_variables
from wsss_jax.models.tiny import Tiny

TINY = Tiny(width=8)
KEY = jax.random.key(5)


def small_seam(**fields: Any) -> Seam:
    return Seam(**{"num_classes": 3, "backbone": TINY, "dims": (4, 6, 8), "dropout": 0.0, **fields})


def a_batch() -> dict[str, jax.Array]:
    image = np.random.default_rng(0).integers(0, 256, (2, 48, 40, 3))
    return {
        "image": jnp.asarray(image, jnp.uint8),
        "valid": jnp.ones((2, 48, 40), bool),
        "label": jnp.asarray([[1.0, 0, 0], [0, 1, 1]]),
        "index": jnp.arange(2),
    }


def one_step(method: Seam) -> tuple[float, dict[str, float], dict[str, jax.Array], Any]:
    """Loss, terms, maps and gradient of the first step."""
    params, state = init_variables(method, 0)
    step = jax.jit(jax.value_and_grad(loss_function(method), has_aux=True))
    (loss, aux), gradient = step(params, state, a_batch(), KEY, jnp.int32(0))
    return float(loss), {k: float(v) for k, v in aux.terms.items()}, aux.maps, gradient


@pytest.fixture(scope="module")
def standard() -> Any:
    return one_step(small_seam())


@dataclasses.dataclass(frozen=True)
class Follower(Seam):
    """A network that every transform commutes with: a pixel's scores are functions of its color.

    Nothing is zero in an empty image, so what a transform leaves blank would be seen.
    """

    def _maps(self, variables: Any, images: Any, rng: Any) -> Any:
        del variables, rng
        colors = jnp.moveaxis(images, -1, 1)
        cam = jnp.concatenate([colors[:, :1], colors + 0.75], 1)
        return cam, cam


def follow(transform: str, **fields: Any) -> dict[str, float]:
    images = jax.random.uniform(jax.random.key(1), (2, 24, 32, 3))
    # One class each: among several, L_ECR asks for more than equivariance.
    labels = jnp.asarray([[0.0, 1, 0], [0, 0, 1]])
    method = Follower(
        num_classes=3, backbone=TINY, transform=transform, use_pcm=False, topk=1.0, **fields
    )
    _, terms, _ = jax.jit(method.objective)({}, images, labels, KEY)
    return {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize(
    "transform", ["flip", "rotation", "translation", "flip_rotation_translation"]
)
def test_equivariant_maps_cost_nothing(transform):
    terms = follow(transform)
    for name in ("er", "ecr1", "ecr2"):
        assert terms[name] == pytest.approx(0, abs=1e-5), name


def test_a_smaller_mirror_image_costs_what_the_smaller_image_does():
    straight, mirrored = follow("rescale"), follow("rescale_flip")
    assert straight["er"] > 0.01
    assert mirrored == pytest.approx(straight, rel=1e-4)


def test_far_moves_leave_nothing_to_compare():
    assert follow("translation", max_translation=10**6)["er"] == 0


SLOW = pytest.mark.slow  # one program each, and the kinds are tested above


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param("flip", marks=SLOW),
        pytest.param("rotation", marks=SLOW),
        pytest.param("translation", marks=SLOW),
        pytest.param("rescale_flip", marks=SLOW),
        "rescale_flip_rotation_translation",
    ],
)
def test_every_transform_trains(transform, standard):
    loss, terms, maps, gradient = one_step(small_seam(transform=transform))
    assert np.isfinite(loss) and terms.keys() == standard[1].keys()
    assert terms["er"] > 0 and terms["er"] != standard[1]["er"]
    assert terms["cls1"] == pytest.approx(standard[1]["cls1"], rel=1e-5)  # the first image stays
    size = (14, 12) if "rescale" in transform else (48, 40)
    assert maps["cam_small"].shape == (2, *size, 4)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and leaf.any()


def test_consistency_counts_from_its_start():
    method = small_seam(consistency_start=3)
    params, state = init_variables(method, 0)
    step = jax.jit(jax.value_and_grad(loss_function(method), has_aux=True))
    (before, aux), early = step(params, state, a_batch(), KEY, jnp.int32(2))
    (after, _), late = step(params, state, a_batch(), KEY, jnp.int32(3))
    half = sum(aux.terms[name] for name in ("cls1", "cls2", "rvmin1", "rvmin2")) / 2
    rest = sum(aux.terms[name] for name in ("er", "ecr1", "ecr2"))
    assert float(before) == pytest.approx(float(half), rel=1e-5)
    assert float(after) == pytest.approx(float(half + rest), rel=1e-5) and rest > 0.01
    without = small_seam(er_weight=0.0, ecr_weight=0.0)
    alone = jax.jit(jax.grad(loss_function(without), has_aux=True))(
        params, state, a_batch(), KEY, jnp.int32(0)
    )[0]
    for found, expected, other in zip(*map(jax.tree.leaves, (early, alone, late)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert not np.array_equal(found, other)


@pytest.mark.parametrize(
    "fields, left_out",
    [
        (dict(small_scale=0.5, er_weight=0.0), {"er"}),
        (dict(small_scale=0.7, ecr_weight=0.0), {"ecr1", "ecr2"}),
        (dict(use_pcm=False, er_weight=0.0, ecr_weight=0.0), {"er", "ecr1", "ecr2"}),
    ],
)
def test_a_weight_of_zero_leaves_its_term_out(fields, left_out, standard):
    method = small_seam(**fields)
    loss, terms, maps, gradient = one_step(method)
    assert standard[1].keys() - terms.keys() == left_out
    half = sum(terms[name] for name in ("cls1", "cls2", "rvmin1", "rvmin2")) / 2
    assert loss == pytest.approx(half + sum(terms.get(n, 0) for n in ("er", "ecr1", "ecr2")))
    size = (int(48 * method.small_scale), int(40 * method.small_scale))
    assert maps["cam_small"].shape == (2, *size, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    # Another path of the gradient remains for every layer.
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    if not method.use_pcm:  # there are no layers for the correlation
        assert {"f8_3", "f8_4", "f9"} == standard[3].keys() - gradient.keys()
        np.testing.assert_array_equal(maps["cam"], maps["cam_rv"])


@pytest.mark.parametrize("transform", ["", "rescal", "rescale_shear", "flip_flip"])
def test_unknown_transforms_are_the_users_mistake(transform):
    with pytest.raises(UserError, match="expected transform to be rescale, flip, rotation"):
        small_seam(transform=transform)
