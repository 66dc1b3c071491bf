"""Resizing agrees with a per-pixel loop, with padding and with its own transpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_jax.host.interpolation import interpolation_matrix
from wsss_jax.ops import resize
from wsss_jax.ops.resize import (
    resize_bilinear,
    resize_planes,
    scaled_size,
    valid_size,
)

SIZES = [((5, 7), (11, 4)), ((1, 3), (4, 1)), ((8, 8), (3, 3)), ((6, 5), (6, 10)), ((9, 2), (2, 9))]


resized = jax.jit(resize_bilinear, static_argnames=("size", "align_corners"))


def random_maps(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def loop(x: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Bilinear interpolation of [h, w], pixel by pixel."""

    def position(i: int, n: int, m: int) -> tuple[int, int, float]:
        if align_corners:
            p = i * (n - 1) / (m - 1) if m > 1 else 0.0
        else:
            p = min(max((i + 0.5) * n / m - 0.5, 0.0), n - 1.0)
        low = int(p)
        return low, min(low + 1, n - 1), p - low

    out = np.zeros(size)
    for i in range(size[0]):
        top, bottom, v = position(i, x.shape[0], size[0])
        for j in range(size[1]):
            left, right, u = position(j, x.shape[1], size[1])
            upper = (1 - u) * x[top, left] + u * x[top, right]
            lower = (1 - u) * x[bottom, left] + u * x[bottom, right]
            out[i, j] = (1 - v) * upper + v * lower
    return out


def test_known_values():
    line = jnp.arange(2.0)[None, :, None, None]
    corners = resize_bilinear(line, (4, 1), align_corners=True)[0, :, 0, 0]
    areas = resize_bilinear(line, (4, 1), align_corners=False)[0, :, 0, 0]
    np.testing.assert_allclose(corners, [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(areas, [0, 0.25, 0.75, 1], rtol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "out"), SIZES)
def test_equals_loop(size, out, align_corners):
    x = np.asarray(random_maps(1, *size, 2))
    result = np.asarray(resized(x, out, align_corners=align_corners))
    for c in range(2):
        expected = loop(x[0, :, :, c], out, align_corners)
        np.testing.assert_allclose(result[0, :, :, c], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(13, 4), (3, 9)])
def test_half_pixel_equals_jax_without_antialiasing(size):
    x = random_maps(2, 7, 6, 3)
    expected = jax.image.resize(x, (2, *size, 3), "linear", antialias=False)
    result = resize_bilinear(x, size, align_corners=False)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "out"), SIZES)
def test_derivative_is_the_transpose(size, out, align_corners):
    x, cotangent = random_maps(2, *size, 3), random_maps(2, *out, 3)
    _, vjp = jax.vjp(lambda x: resized(x, out, align_corners=align_corners), x)
    rows = interpolation_matrix(size[0], out[0], align_corners)
    columns = interpolation_matrix(size[1], out[1], align_corners)
    expected = np.einsum("oh,pw,bopc->bhwc", rows, columns, cotangent)
    np.testing.assert_allclose(vjp(cotangent)[0], expected, atol=1e-5)


def test_products_equal_gathers(monkeypatch):
    x = random_maps(2, 9, 5, 3)
    gathered = resize_bilinear(x, (4, 12), align_corners=True)
    monkeypatch.setattr(resize.jax, "default_backend", lambda: "gpu")
    multiplied = resize_bilinear(x, (4, 12), align_corners=True)
    np.testing.assert_allclose(multiplied, gathered, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_padding_changes_nothing(align_corners):
    in_size = jnp.asarray([[5, 9], [8, 3]], jnp.int32)
    out_size = jnp.asarray([[11, 4], [3, 12]], jnp.int32)
    x = random_maps(2, 8, 9, 2)  # what lies outside the valid part must not matter
    result = jax.jit(
        lambda x, a, b: resize_bilinear(
            x, (12, 12), align_corners=align_corners, in_size=a, out_size=b
        )
    )(x, in_size, out_size)
    for i, ((h, w), (p, q)) in enumerate(zip(in_size.tolist(), out_size.tolist(), strict=True)):
        alone = resized(np.asarray(x)[i : i + 1, :h, :w], (p, q), align_corners=align_corners)[0]
        np.testing.assert_allclose(result[i, :p, :q], alone, atol=1e-6)
        assert not result[i, p:].any() and not result[i, :, q:].any()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), m=st.integers(1, 40), align_corners=st.booleans())
def test_constant_stays_constant_and_order_is_kept(n, m, align_corners):
    matrix = interpolation_matrix(n, m, align_corners)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    assert (matrix >= 0).all()
    assert (np.diff(matrix @ np.arange(n)) >= -1e-5).all()


def test_keeps_dtype_and_rejects_half_given_sizes():
    x = random_maps(1, 4, 4, 1).astype(jnp.bfloat16)
    assert resize_bilinear(x, (8, 8), align_corners=True).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="in_size and out_size or neither"):
        resize_bilinear(x, (8, 8), align_corners=True, in_size=jnp.ones((1, 2), jnp.int32))


def test_sizes():
    assert scaled_size((448, 333), 0.3) == (134, 99)
    assert scaled_size((2, 10), 0.3) == (1, 3)
    valid = np.zeros((2, 6, 8), bool)
    valid[0, :3, :8] = valid[1, :6, :5] = True
    assert valid_size(jnp.asarray(valid)).tolist() == [[3, 8], [6, 5]]


@pytest.mark.parametrize(
    ("file", "image", "small", "align_corners"),
    [("seam", "image", "img2", True), ("ssenet", "image", "image_small", False)],
)
def test_golden(shared, file, image, small, align_corners):
    with np.load(shared / "golden" / f"{file}.npz") as golden:
        x, expected = jnp.asarray(golden[image]), golden[small]
    size = scaled_size((x.shape[1], x.shape[2]), 0.3)
    result = resize_bilinear(x, size, align_corners=align_corners)
    # The reference forms the sampling positions in float32, a few 1e-6 of a pixel off.
    np.testing.assert_allclose(result, expected, atol=5e-5)


@pytest.mark.parametrize("size", [(9, 13), (4, 3), (9, 3), (7, 5)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_planes_equal_channels_last(size, align_corners):
    x = jax.random.normal(jax.random.key(0), (2, 7, 5, 3))
    expected = resized(x, size, align_corners=align_corners)
    planes = jax.jit(lambda x: resize_planes(x, size, align_corners=align_corners))
    found = np.asarray(planes(np.moveaxis(np.asarray(x), -1, 1)))
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), expected, atol=1e-6)
