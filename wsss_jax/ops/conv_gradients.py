"""Gradients of wide convolutions on CPUs, as sums of matrix products.

XLA turns the kernel gradient of a wide convolution into one convolution whose kernel is as large as
the image. On a CPU, that is three to six times slower than the forward pass, which has the same
number of operations. Here the gradient is a sum of matrix products over blocks of rows of the
image, either one product for each tap of the kernel, or one product for all of them, for which
what the taps see is laid side by side. This is nearly as fast as the forward pass.

For the input gradient, XLA convolves with a transposed copy of the kernel, and making that copy
takes up to half of the time. With many output channels, one matrix product per tap is faster,
because it reads the kernel as it is.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.xla_conv import Padding

BLOCK_PIXELS = 1600
"""Pixels of the output in a product for one tap; 400 to 3136 made little difference on an EPYC."""

BLOCK_BYTES = 4 << 20
"""Bytes that all taps see of a block of rows; of 2 to 12 MiB, 4 and 8 were fastest on an EPYC."""


class _Views:
    """What each tap sees of a padded input, in blocks of rows of the output.

    The axes of the padded input are split into blocks of `stride` pixels, so that a view is a slice
    even with a stride. All images of the batch are in each view, so a sharded batch stays sharded.
    """

    def __init__(
        self,
        x_shape: tuple[int, ...],
        g_shape: tuple[int, ...],
        taps: tuple[int, ...],
        stride: int,
        dilation: int,
        padding: Padding,
    ):
        batch, rows, columns, _ = g_shape
        blocks = max(1, round(batch * rows * columns / BLOCK_PIXELS))
        self.rows = -(-rows // blocks)
        self.blocks = -(-rows // self.rows)
        # Rows of zeros make all blocks equally high.
        self.added = self.blocks * self.rows - rows
        self.stride, self.dilation, self.taps = stride, dilation, taps
        self.split = (
            rows + self.added + (taps[0] - 1) * dilation // stride,
            columns + (taps[1] - 1) * dilation // stride,
        )
        self.config = [(0, 0, 0)]
        for length, size, (low, _) in zip(self.split, x_shape[1:3], padding, strict=True):
            self.config.append((low, length * stride - size - low, 0))
        self.config.append((0, 0, 0))
        self.shape = (batch, self.rows, 1, columns, 1, x_shape[3])
        self.numbers = jnp.arange(self.blocks * taps[0] * taps[1])

    def padded(self, x: Array) -> Array:
        """Returns `x` with padding and split axes."""
        padded = lax.pad(x, jnp.zeros((), x.dtype), self.config)
        lengths = [n for length in self.split for n in (length, self.stride)]
        return padded.reshape(len(x), *lengths, x.shape[3])

    def cropped(self, padded: Array) -> Array:
        """Returns what `padded` was made of."""
        lengths = [length * self.stride for length in self.split]
        x = padded.reshape(len(padded), *lengths, padded.shape[-1])
        inverse = [(-low, -high, 0) for low, high, _ in self.config]
        return lax.pad(x, jnp.zeros((), x.dtype), inverse)

    def position(self, number: Array) -> tuple[Array, Array, tuple[Any, ...]]:
        """Returns the tap, the first row of the output, and the start of the view."""
        block, tap = jnp.divmod(number, self.taps[0] * self.taps[1])
        i, j = (n * self.dilation for n in jnp.divmod(tap, self.taps[1]))
        row, stride = block * self.rows, self.stride
        return tap, row, (0, row + i // stride, i % stride, j // stride, j % stride, 0)


def input_gradient(
    x: Array, kernel: Array, g: Array, stride: int, dilation: int, padding: Padding
) -> Array:
    """Returns the input gradient as a sum of products, one for each tap and block of rows.

    XLA convolves the output gradient with a transposed copy of the kernel. A product reads the
    kernel as it is.
    """
    views = _Views(x.shape, g.shape, kernel.shape[:2], stride, dilation, padding)
    g = jnp.pad(g, ((0, 0), (0, views.added), (0, 0), (0, 0)))
    kernels = kernel.reshape(-1, *kernel.shape[2:])

    def add(total: Array, number: Array) -> tuple[Array, None]:
        tap, row, start = views.position(number)
        product = lax.dot_general(
            lax.dynamic_slice_in_dim(g, row, views.rows, 1).reshape(-1, g.shape[3]),
            lax.dynamic_index_in_dim(kernels, tap, keepdims=False),
            (((1,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        product = lax.dynamic_slice(total, start, views.shape) + product.reshape(views.shape)
        return lax.dynamic_update_slice(total, product, start), None

    zeros = jnp.zeros(jax.eval_shape(views.padded, x).shape, jnp.float32)
    total, _ = lax.scan(add, zeros, views.numbers)
    return views.cropped(total).astype(x.dtype)


def product_per_tap(
    x: Array, g: Array, taps: tuple[int, ...], stride: int, dilation: int, padding: Padding
) -> Array:
    """Returns the kernel gradient [k, l, c, d] as products, one for each tap and block of rows."""
    inputs, outputs = x.shape[-1], g.shape[-1]
    views = _Views(x.shape, g.shape, taps, stride, dilation, padding)
    padded = views.padded(x)
    g = jnp.pad(g, ((0, 0), (0, views.added), (0, 0), (0, 0)))
    # A transposed output gradient makes the product faster, but the gradient is transposed then. If
    # there are more outputs than inputs, undoing that costs more than it saves.
    transposed = inputs >= outputs
    if transposed:  # The barriers keep XLA from undoing the transposition inside the product.
        g = lax.optimization_barrier(jnp.moveaxis(g, 3, 0))

    def add(total: Array, number: Array) -> tuple[Array, None]:
        tap, row, start = views.position(number)
        seen = lax.dynamic_slice(padded, start, views.shape).reshape(-1, inputs)
        block = lax.dynamic_slice_in_dim(g, row, views.rows, 2 if transposed else 1)
        if transposed:
            operands, axes = (block.reshape(outputs, -1), seen), ((1,), (0,))
        else:
            operands, axes = (seen, block.reshape(-1, outputs)), ((0,), (0,))
        product = lax.dot_general(*operands, (axes, ((), ())), preferred_element_type=jnp.float32)
        product = lax.dynamic_index_in_dim(total, tap, keepdims=False) + product
        return lax.dynamic_update_index_in_dim(total, product, tap, 0), None

    shape = (taps[0] * taps[1], *((outputs, inputs) if transposed else (inputs, outputs)))
    total, _ = lax.scan(add, jnp.zeros(shape, jnp.float32), views.numbers)
    if transposed:
        total = _transposed(lax.optimization_barrier(total))
    return total.reshape(*taps, inputs, outputs)


def _transposed(x: Float[Array, "n a b"]) -> Float[Array, "n b a"]:
    """Transposes large matrices in two steps, by way of narrow matrices that fit into the cache."""
    n, a, b = x.shape
    width = math.gcd(b, 16)
    narrow = lax.optimization_barrier(x.reshape(n, a, b // width, width).swapaxes(1, 2))
    return narrow.swapaxes(2, 3).reshape(n, b, a)


def product_per_rows(
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
