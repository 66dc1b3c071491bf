"""Dense convolution whose kernel gradient is fast on every backend.

On a CPU, XLA turns the kernel gradient of a wide convolution into one convolution whose kernel is
as large as the image. That is three to six times slower than the forward pass, which has the same
number of operations. Here the gradient is computed for a few rows of the image at a time, few
enough to fit into the cache: what each tap sees of them is laid side by side and goes through one
matrix product. This is nearly as fast as the forward pass.

A 1×1 convolution is a product of two matrices and has to be written as one. For a contraction over
three axes, XLA's CPU compiler makes a transposed copy, fused with whatever computed the gradient,
and that copy walks through memory with a stride of all channels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.depthwise import Padding

WIDE = 128
"""The products win from this many input and output channels on; docs/benchmarks.md measures it."""

BLOCK_BYTES = 4 << 20
"""Bytes that all taps see of a block of rows; of 2 to 12 MiB, 4 and 8 were fastest on an EPYC."""


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c d"],
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "b p q d"]:
    """Convolves features with a kernel (a cross-correlation, as in all frameworks).

    Args:
      x: the features.
      kernel: the kernel; its axes are height, width, input channels, output channels.
      stride: the stride along both axes.
      dilation: the distance between the taps.
      padding: the zeros to add, ((top, bottom), (left, right)).
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
        gradient = _product_per_rows(x, g, kernel.shape[:2], stride, dilation, padding)
        return gradient.astype(kernel.dtype)

    return to_x(g)[0], lax.platform_dependent(x, g, cpu=products, default=automatic)


_wide.defvjp(_forward, _backward)


def _product_per_rows(
    x: Array, g: Array, taps: tuple[int, ...], stride: int, dilation: int, padding: Padding
) -> Array:
    """Returns the kernel gradient [k, l, c, d] as a sum of products over blocks of rows.

    Each product multiplies what the taps see, [klc, pixels], by the output gradient, [pixels, d].
    All images of the batch take part in each product, so a sharded batch stays sharded.
    """
    batch, height, width, outputs = g.shape
    inputs = x.shape[-1]
    row_bytes = 4 * batch * width * taps[0] * taps[1] * inputs
    # A large kernel gets fewer, larger blocks, because each block adds a whole kernel to the sum.
    block_bytes = max(BLOCK_BYTES, 4 * taps[0] * taps[1] * inputs * outputs // 3)
    blocks = -(-height // max(1, block_bytes // row_bytes))
    rows = -(-height // blocks)
    blocks = -(-height // rows)
    # Rows of zeros make all blocks equally high; the input gets the rows that belong to them.
    added = blocks * rows - height
    g = jnp.pad(g, ((0, 0), (0, added), (0, 0), (0, 0)))
    (top, bottom), sides = padding
    padded = jnp.pad(x, ((0, 0), (top, bottom + added * stride), sides, (0, 0)))
    seen_rows = (rows - 1) * stride + (taps[0] - 1) * dilation + 1

    # The product is fastest when its long side, that of all taps, comes second. With more outputs
    # than inputs the kernel is large, and transposing it afterward would cost more than that saves.
    transposed = inputs >= outputs

    def add_block(total: Array, block: Array) -> tuple[Array, None]:
        seen = lax.dynamic_slice_in_dim(padded, block * (rows * stride), seen_rows, 1)
        parts = []
        for i in range(taps[0]):
            for j in range(taps[1]):
                first, left = i * dilation, j * dilation
                last = first + (rows - 1) * stride + 1
                right = left + (width - 1) * stride + 1
                parts.append(seen[:, first:last:stride, left:right:stride])
        left_side = jnp.concatenate(parts, -1).reshape(batch * rows * width, -1)
        right_side = lax.dynamic_slice_in_dim(g, block * rows, rows, 1).reshape(-1, outputs)
        if transposed:
            left_side, right_side = right_side, left_side
        product = lax.dot_general(
            left_side,
            right_side,
            (((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        return total + product, None

    shape = (taps[0] * taps[1] * inputs, outputs)
    zeros = jnp.zeros(shape[::-1] if transposed else shape, jnp.float32)
    total, _ = lax.scan(add_block, zeros, jnp.arange(blocks))
    return (total.T if transposed else total).reshape(*taps, inputs, outputs)
