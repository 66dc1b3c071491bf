"""Dense convolution whose kernel gradient is fast on every backend.

On a CPU XLA turns the kernel gradient of a wide convolution into one convolution with a kernel as
large as the image, three to six times slower than the forward pass of the same number of
operations. One matrix product per tap is as fast as the forward pass.

A 1×1 convolution is a product of two matrices, and has to be written as one: of a contraction over
three axes XLA's CPU compiler makes a transposed copy, fused with whatever made the gradient, which
walks memory with a stride of all channels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.depthwise import Padding

WIDE = 128
"""Channels on both sides from which the products win; measured, see docs/benchmarks.md."""


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c d"],
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "b p q d"]:
    """Cross-correlation, as all frameworks call convolution.

    Args:
      x: features.
      kernel: height, width, channels in, channels out.
      stride: the same for both axes.
      dilation: distance between the taps.
      padding: zeros added ((top, bottom), (left, right)).
    """
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        x = x[:, ::stride, ::stride]
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[3])
    if min(kernel.shape[2:]) < WIDE:
        return _plain(x, kernel, stride, dilation, padding)
    return _wide(x, kernel, stride, dilation, padding)


def _plain(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _wide(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding) -> Array:
    return _plain(x, kernel, stride, dilation, padding)


def _forward(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding):
    return _plain(x, kernel, stride, dilation, padding), (x, kernel)


def _backward(stride: int, dilation: int, padding: Padding, residuals, g: Array):
    x, kernel = residuals
    _, to_x = jax.vjp(lambda x: _plain(x, kernel, stride, dilation, padding), x)

    def automatic(x: Array, g: Array) -> Array:
        _, to_kernel = jax.vjp(lambda k: _plain(x, k, stride, dilation, padding), kernel)
        return to_kernel(g)[0]

    def products(x: Array, g: Array) -> Array:
        gradient = _product_per_tap(x, g, kernel.shape[:2], stride, dilation, padding)
        return gradient.astype(kernel.dtype)

    return to_x(g)[0], lax.platform_dependent(x, g, cpu=products, default=automatic)


_wide.defvjp(_forward, _backward)


def _product_per_tap(
    x: Array, g: Array, taps: tuple[int, ...], stride: int, dilation: int, padding: Padding
) -> Array:
    """[k, l, c, d]: what each tap saw, [c, pixels], times the output's gradient, [pixels, d]."""
    batch, height, width, outputs = g.shape
    inputs = x.shape[-1]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    pixels = g.reshape(-1, outputs)
    products = []
    for i in range(taps[0]):
        for j in range(taps[1]):
            top, left = i * dilation, j * dilation
            seen = lax.slice(
                padded,
                (0, top, left, 0),
                (batch, top + (height - 1) * stride + 1, left + (width - 1) * stride + 1, inputs),
                (1, stride, stride, 1),
            )
            products.append(
                lax.dot_general(
                    seen.reshape(-1, inputs),
                    pixels,
                    (((0,), (0,)), ((), ())),
                    preferred_element_type=jnp.float32,
                )
            )
    return jnp.stack(products).reshape(*taps, inputs, outputs)
