"""Dilated convolutions on GPUs, with a kernel gradient of their own.

cuDNN has an operation for the kernel gradient of a convolution, which XLA uses, but not if the
convolution is dilated. It then convolves with a kernel as large as the image, whose input channels
are the images of the batch, so that eight images leave most of the channels of a tensor core empty.
Pixels whose rows and columns have the same remainder modulo the dilation only see each other. They
are images of their own, on which the same kernel is not dilated, and for these XLA uses cuDNN's
operation.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsss_jax.ops.xla_conv import Padding, xla_conv


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def dilated_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c_per_group d"],
    dilation: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b p q d"]:
    """Convolves like `wsss_jax.ops.xla_conv.xla_conv` with stride 1, with this kernel gradient."""
    return xla_conv(x, kernel, 1, dilation, padding, groups)


def _forward(x: Array, kernel: Array, dilation: int, padding: Padding, groups: int):
    return dilated_conv(x, kernel, dilation, padding, groups), (x, kernel)


def _backward(dilation: int, padding: Padding, groups: int, residuals, g: Array):
    x, kernel = residuals
    _, to_x = jax.vjp(lambda x: xla_conv(x, kernel, 1, dilation, padding, groups), x)
    taps = kernel.shape[0], kernel.shape[1]
    return to_x(g)[0], phase_kernel_gradient(x, g, taps, dilation, padding, groups)


dilated_conv.defvjp(_forward, _backward)


def phase_kernel_gradient(
    x: Float[Array, "b h w c"],
    g: Float[Array, "b p q d"],
    taps: tuple[int, int],
    dilation: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "k l c_per_group d"]:
    """Returns the kernel gradient of a convolution of stride 1.

    Args:
      x: the features that were convolved.
      g: the gradient of the result.
      taps: the height and width of the kernel, k and l.
      dilation: the distance between the taps.
      padding: the zeros that were added, ((top, bottom), (left, right)).
      groups: the groups of channels; as many as channels make it depthwise.
    """
    whole = [low // dilation for low, _ in padding]  # rows or columns of zeros for each phase
    extra = [low % dilation for low, _ in padding]
    inputs, results = _phases(x, dilation, extra), _phases(g, dilation, (0, 0))
    remaining = [
        (low, result + tap - 1 - low - given)
        for low, given, result, tap in zip(
            whole, inputs.shape[1:3], results.shape[1:3], taps, strict=True
        )
    ]

    def phase_conv(kernel: Array) -> Array:
        return xla_conv(inputs, kernel, 1, 1, (remaining[0], remaining[1]), groups)

    kernel = jax.ShapeDtypeStruct((*taps, x.shape[3] // groups, g.shape[3]), x.dtype)
    (gradient,) = jax.linear_transpose(phase_conv, kernel)(results)
    return gradient


def _phases(
    x: Float[Array, "b h w c"], dilation: int, low: tuple[int, int] | list[int]
) -> Float[Array, "n p q c"]:
    """Splits images into dilation² phases each, after `low` rows and columns of zeros."""
    batch, height, width, channels = x.shape
    rows, columns = (
        -(-(zeros + size) // dilation) for zeros, size in zip(low, (height, width), strict=True)
    )
    ends = rows * dilation - low[0] - height, columns * dilation - low[1] - width
    padded = jnp.pad(x, ((0, 0), (low[0], ends[0]), (low[1], ends[1]), (0, 0)))
    split = padded.reshape(batch, rows, dilation, columns, dilation, channels)
    # The batch stays in front, so that a sharded batch stays sharded.
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, rows, columns, channels)
