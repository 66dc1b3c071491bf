"""Depthwise convolution that is fast on every backend.

On a CPU, XLA's grouped convolution is tens of times slower than it should be. So is the automatic
derivative of the obvious replacement, a sum of shifted products, because its reduction over the
pixels walks through memory with a large stride. Here the CPU gets shifted products with a
derivative of their own; other backends keep the grouped convolution, on GPUs with another kernel
gradient if the kernels are dilated (`wsss_jax.ops.phases`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.phases import dilated_conv
from wsss_jax.ops.xla_conv import Padding, xla_conv

_UNROLLED = 64  # images, beyond which the gradient of the kernel does not add one by one


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k 1 c"],
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = ((1, 1), (1, 1)),
) -> Float[Array, "b p q c"]:
    """Convolves every channel with its own kernel (cross-correlation, as in all frameworks).

    Args:
      x: the features.
      kernel: one square kernel per channel.
      stride: the stride along both axes, 1 or 2.
      dilation: the distance between the taps.
      padding: the zeros to add, ((top, bottom), (left, right)).
    """
    settings: dict[str, Any] = dict(stride=stride, dilation=dilation, padding=padding)
    grouped = functools.partial(_grouped, **settings)
    on_gpu = grouped
    if dilation > 1 and stride == 1:
        on_gpu = functools.partial(
            dilated_conv, dilation=dilation, padding=padding, groups=x.shape[-1]
        )
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted, **settings),
        cuda=on_gpu,
        rocm=on_gpu,
        default=grouped,
    )


def _grouped(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding) -> Array:
    return xla_conv(x, kernel, stride, dilation, padding, groups=x.shape[-1])


def _shifted(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding) -> Array:
    return _shifted_vjp(x, kernel, stride, dilation, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _shifted_vjp(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding) -> Array:
    return _sum_of_taps(_pad(x, padding), kernel, stride, dilation)


def _forward(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding):
    return _shifted_vjp(x, kernel, stride, dilation, padding), (x, kernel)


def _backward(stride: int, dilation: int, padding: Padding, residuals, g: Array):
    x, kernel = residuals
    reach = (len(kernel) - 1) * dilation
    # d/dx is the same convolution of g, spread out by the stride, with the flipped kernel.
    config = [(0, 0, 0)]
    for axis, (low, _) in enumerate(padding):
        spread = (g.shape[1 + axis] - 1) * stride + 1
        left = reach - low
        right = x.shape[1 + axis] + reach - left - spread
        config.append((left, right, stride - 1))
    config.append((0, 0, 0))
    spread_g = lax.optimization_barrier(lax.pad(g, jnp.zeros((), g.dtype), config))
    dx = _sum_of_taps(spread_g, kernel[::-1, ::-1], 1, dilation)
    dkernel = _kernel_gradient(_pad(x, padding), g, len(kernel), stride, dilation)
    return dx, dkernel.astype(kernel.dtype)


_shifted_vjp.defvjp(_forward, _backward)


def _pad(x: Array, padding: Padding) -> Array:
    # The barrier keeps XLA from fusing the padding, as a branch, into each of the taps.
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))


def _sum_of_taps(padded: Array, kernel: Array, stride: int, dilation: int) -> Array:
    size = len(kernel)
    reach = (size - 1) * dilation
    height = (padded.shape[1] - reach - 1) // stride + 1
    width = (padded.shape[2] - reach - 1) // stride + 1
    total = None
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            bottom, right = top + (height - 1) * stride + 1, left + (width - 1) * stride + 1
            tap = lax.slice(
                padded,
                (0, top, left, 0),
                (padded.shape[0], bottom, right, padded.shape[3]),
                (1, stride, stride, 1),
            )
            tap = tap * kernel[i, j, 0]
            total = tap if total is None else total + tap
    assert total is not None
    return total


def _kernel_gradient(padded: Array, g: Array, size: int, stride: int, dilation: int) -> Array:
    """Returns [k, k, 1, c]: for each tap, the sum of input times g over images and pixels.

    It works on one row at a time, so that the row stays in the cache for all taps, and
    elementwise over (column, channel), so that the innermost loop reads memory in order. The
    columns are summed at the end. The images of a row are added one by one, which is fastest,
    unless there are so many that the program would become long.
    """
    batch, height, width, channels = g.shape
    span = (width - 1) * stride + 1

    def row(sums, y):
        g_row = lax.dynamic_slice_in_dim(g, y, 1, 1)[:, 0].astype(jnp.float32)
        parts = [(b, b + 1) for b in range(batch)] if batch <= _UNROLLED else [(0, batch)]
        g_rows = [lax.slice_in_dim(g_row, *part) for part in parts]
        added = []
        for i in range(size):
            x_row = lax.dynamic_slice_in_dim(padded, y * stride + i * dilation, 1, 1)[:, 0]
            for j in range(size):
                total = sums[size * i + j]
                left = j * dilation
                for (first, last), part in zip(parts, g_rows, strict=True):
                    shifted = lax.slice(
                        x_row, (first, left, 0), (last, left + span, channels), (1, stride, 1)
                    )
                    product = shifted * part
                    total = total + (
                        product.sum(0) if last - first > 1 else lax.squeeze(product, (0,))
                    )
                added.append(total)
        return tuple(added), None

    start = tuple(jnp.zeros((width, channels), jnp.float32) for _ in range(size * size))
    sums, _ = lax.scan(row, start, jnp.arange(height))
    return jnp.stack([s.sum(0) for s in sums]).reshape(size, size, 1, channels)
