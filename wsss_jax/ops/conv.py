"""Dense convolution that is fast on every backend, forward and backward.

On CPUs, wide 3×3 kernels get an algorithm with fewer multiplications (`wsss_jax.ops.winograd`),
and others that are wide get gradients of their own (`wsss_jax.ops.conv_gradients`). TPUs with few
images per device get a form of their own (`wsss_jax.ops.row_conv`), and GPUs another kernel
gradient if a wide kernel is dilated (`wsss_jax.ops.phases`).

A 1×1 convolution is a product of two matrices and has to be written as one. For a contraction over
three axes, XLA's CPU compiler makes a transposed copy, fused with whatever computed the gradient,
and that copy walks through memory with a stride of all channels.
"""

import functools
import math

import jax
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.conv_gradients import (
    BLOCK_PIXELS,
    input_gradient,
    product_per_rows,
    product_per_tap,
)
from wsss_jax.ops.phases import dilated_conv
from wsss_jax.ops.row_conv import FEW, row_conv
from wsss_jax.ops.sharding import target
from wsss_jax.ops.winograd import (
    is_worthwhile,
    winograd_conv,
    winograd_input_gradient,
    winograd_kernel_gradient,
)
from wsss_jax.ops.xla_conv import Padding, xla_conv

WIDE = 128
"""The kernel gradient is a sum of products from this many input and output channels on."""

PER_TAP = 256
"""From this many input and output channels on, large maps get one product per tap."""

DEEP = 512
"""The input gradient is a sum of products from this many output channels on."""


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
    platform, devices = target()
    if platform == "tpu" and len(x) % devices == 0 and 0 < len(x) // devices <= FEW:
        return _rows(x, kernel, stride, dilation, padding, devices)
    if min(kernel.shape[2:]) < WIDE:
        return xla_conv(x, kernel, stride, dilation, padding)
    return _wide(x, kernel, stride, dilation, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _rows(
    x: Array, kernel: Array, stride: int, dilation: int, padding: Padding, devices: int
) -> Array:
    return row_conv(x, kernel, stride, dilation, padding, devices)


def _rows_forward(
    x: Array, kernel: Array, stride: int, dilation: int, padding: Padding, devices: int
):
    return row_conv(x, kernel, stride, dilation, padding, devices), (x, kernel)


def _rows_backward(stride: int, dilation: int, padding: Padding, devices: int, residuals, g: Array):
    x, kernel = residuals
    _, to_x = jax.vjp(lambda x: row_conv(x, kernel, stride, dilation, padding, devices), x)
    # XLA makes no strips for the kernel gradient. As a single operation, it is also a single array
    # to exchange, while one per row of the kernel would be exchanged for each use of the kernel.
    _, to_kernel = jax.vjp(lambda kernel: xla_conv(x, kernel, stride, dilation, padding), kernel)
    return to_x(g)[0], to_kernel(g)[0]


_rows.defvjp(_rows_forward, _rows_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _wide(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding) -> Array:
    def automatic(x: Array, kernel: Array) -> Array:
        return xla_conv(x, kernel, stride, dilation, padding)

    out = jax.eval_shape(automatic, x, kernel)
    if not is_worthwhile(kernel.shape, out.shape, stride, x.dtype):
        return automatic(x, kernel)

    def tiles(x: Array, kernel: Array) -> Array:
        return winograd_conv(x, kernel, dilation, padding)

    return lax.platform_dependent(x, kernel, cpu=tiles, default=automatic)


def _forward(x: Array, kernel: Array, stride: int, dilation: int, padding: Padding):
    return _wide(x, kernel, stride, dilation, padding), (x, kernel)


def _backward(stride: int, dilation: int, padding: Padding, residuals, g: Array):
    x, kernel = residuals
    settings = (stride, dilation, padding)

    def automatic(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        _, to_x = jax.vjp(lambda x: xla_conv(x, kernel, *settings), x)
        _, to_kernel = jax.vjp(lambda kernel: xla_conv(x, kernel, *settings), kernel)
        return to_x(g)[0], to_kernel(g)[0]

    def tiles(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        to_x = winograd_input_gradient(kernel, g, dilation, padding)
        return to_x, winograd_kernel_gradient(x, g, dilation, padding)

    def products(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        if kernel.shape[3] < DEEP:
            _, backward = jax.vjp(lambda x: xla_conv(x, kernel, *settings), x)
            (to_x,) = backward(g)
        else:
            to_x = input_gradient(x, kernel, g, *settings)
        per_tap = min(kernel.shape[2:]) >= PER_TAP and math.prod(g.shape[:3]) > BLOCK_PIXELS // 2
        gradient = product_per_tap if per_tap else product_per_rows
        return to_x, gradient(x, g, kernel.shape[:2], *settings).astype(kernel.dtype)

    def phases(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        _, backward = jax.vjp(lambda x, k: dilated_conv(x, k, dilation, padding), x, kernel)
        return backward(g)

    on_cpu = tiles if is_worthwhile(kernel.shape, g.shape, stride, g.dtype) else products
    on_gpu = phases if dilation > 1 and stride == 1 else automatic
    return lax.platform_dependent(
        x, kernel, g, cpu=on_cpu, cuda=on_gpu, rocm=on_gpu, default=automatic
    )


_wide.defvjp(_forward, _backward)
