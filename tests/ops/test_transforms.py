"""Moved maps: known cases, what has a source, composition, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops import transforms

MAPS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 9, 9)), jnp.float32)


def test_flip_twice_is_the_identity():
    once, valid = transforms.flip(MAPS)
    assert valid is None
    np.testing.assert_array_equal(once[..., 0], MAPS[..., -1])
    np.testing.assert_array_equal(transforms.flip(once)[0], MAPS)


def test_rotation_by_nothing_is_the_identity():
    same, valid = jax.jit(transforms.rotate)(MAPS[..., :8], jnp.zeros(2))
    np.testing.assert_array_equal(same, MAPS[..., :8])
    assert valid is not None and valid.all()


def test_rotation_by_right_angles_counter_clockwise_each_image_its_own():
    turned, valid = jax.jit(transforms.rotate)(MAPS, jnp.asarray([90.0, -90.0]))
    assert valid is not None and valid.all()
    np.testing.assert_allclose(turned[0], np.rot90(MAPS[0], 1, (1, 2)), atol=1e-5)
    np.testing.assert_allclose(turned[1], np.rot90(MAPS[1], -1, (1, 2)), atol=1e-5)


def test_rotation_of_a_plane_is_a_plane_and_leaves_out_what_has_no_source():
    """Bilinear interpolation is exact on a plane, so the rotated plane is known everywhere."""
    y, x = np.mgrid[:12, :16].astype(np.float32)
    angle = np.deg2rad(17.0)
    plane = 2 * x - 3 * y
    turned, valid = jax.jit(transforms.rotate)(
        jnp.asarray(plane)[None, None], jnp.asarray([17.0], jnp.float32)
    )
    assert valid is not None
    dy, dx = y - 5.5, x - 7.5
    source_x, source_y = (
        np.cos(angle) * dx - np.sin(angle) * dy + 7.5,
        np.cos(angle) * dy + np.sin(angle) * dx + 5.5,
    )
    inside = (source_x >= 0) & (source_x <= 15) & (source_y >= 0) & (source_y <= 11)
    np.testing.assert_array_equal(valid[0], inside)
    assert 0.5 < inside.mean() < 1
    expected = np.where(inside, 2 * source_x - 3 * source_y, 0)
    np.testing.assert_allclose(turned[0, 0], expected, atol=1e-4)


def test_translation_moves_whole_pixels():
    moved, valid = transforms.translate(MAPS, jnp.asarray([[2, -3], [0, 0]]))
    assert valid is not None
    np.testing.assert_array_equal(moved[0, :, 2:, :-3], MAPS[0, :, :-2, 3:])
    assert not moved[0, :, :2].any() and not moved[0, :, :, -3:].any()
    expected = np.zeros((9, 9), bool)
    expected[2:, :-3] = True
    np.testing.assert_array_equal(valid[0], expected)
    np.testing.assert_array_equal(moved[1], MAPS[1])


def test_translation_beyond_the_image_leaves_nothing():
    moved, valid = transforms.translate(MAPS, jnp.asarray([[20, 0], [0, -9]]))
    assert valid is not None and not valid.any() and not moved.any()


def test_without_kinds_nothing_moves():
    same, valid = transforms.draw_transform((), jax.random.key(0), 2)(MAPS)
    assert valid is None
    np.testing.assert_array_equal(same, MAPS)


def test_drawn_transforms_repeat_differ_between_images_and_keep_their_limits():
    draw = functools.partial(transforms.draw_transform, ("translation",), batch=400, max_pixels=2)
    picture = jnp.zeros((400, 1, 7, 7)).at[:, :, 3, 3].set(1)
    move = jax.jit(lambda key: draw(key)(picture)[0])
    moved = move(jax.random.key(0))
    np.testing.assert_array_equal(moved, move(jax.random.key(0)))
    places = {tuple(place) for place in np.argwhere(np.asarray(moved[:, 0]))[:, 1:].tolist()}
    assert places == {(y, x) for y in range(1, 6) for x in range(1, 6)}
    assert not np.array_equal(moved, move(jax.random.key(1)))

    turn = transforms.draw_transform(("rotation",), jax.random.key(0), 400, max_degrees=10.0)
    y = np.mgrid[:7, :7][0].astype(np.float32) - 3
    turned, _ = jax.jit(turn)(np.broadcast_to(y, (400, 1, 7, 7)))
    sines = np.asarray(turned)[:, 0, 3, 4]  # one pixel to the right of the center
    angles = np.rad2deg(np.arcsin(sines))
    assert -10 <= angles.min() < -9 and 9 < angles.max() <= 10


def test_a_chain_leaves_out_what_any_step_lost():
    ones = jnp.ones((8, 1, 20, 24))
    kinds = transforms.KINDS
    moved, valid = jax.jit(transforms.draw_transform(kinds, jax.random.key(3), 8, 20.0, 5))(ones)
    assert valid is not None and 0.3 < valid.mean() < 0.95
    # Where every source is there, the interpolated ones are one, and only there.
    np.testing.assert_array_equal(valid, moved[:, 0] > 1 - 1e-3)


@pytest.mark.parametrize("kind", [(kind,) for kind in transforms.KINDS] + [transforms.KINDS])
def test_derivative_is_the_adjoint(kind):
    """⟨T x, y⟩ = ⟨x, Tᵀ y⟩, which the derivative of a linear function gives."""
    transform = transforms.draw_transform(kind, jax.random.key(2), 2, 30.0, 3)
    other = jnp.asarray(np.random.default_rng(1).normal(size=MAPS.shape), jnp.float32)

    @jax.jit
    def both(x, y):
        moved, back = jax.vjp(lambda x: transform(x)[0], x)
        return (moved * y).sum(), (x * back(y)[0]).sum()

    forward, backward = both(MAPS, other)
    assert float(forward) == pytest.approx(float(backward), rel=1e-4)


def test_resized_valid_keeps_pixels_of_valid_ones_alone():
    valid = jnp.ones((1, 9, 9), bool).at[0, 0, 0].set(False)
    assert transforms.resized_valid(None, (5, 5)) is None
    small = transforms.resized_valid(valid, (5, 5))
    assert small is not None
    np.testing.assert_array_equal(np.argwhere(~np.asarray(small)), [[0, 0, 0]])
    large = transforms.resized_valid(valid, (17, 17))
    assert large is not None
    np.testing.assert_array_equal(
        np.argwhere(~np.asarray(large[0])), [[0, 0], [0, 1], [1, 0], [1, 1]]
    )
