"""The layers that all networks are made of, with masks for padded images.

In shapes, b is the batch, h and w are height and width, and c is the number of channels.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wsss_jax.ops.conv import conv
from wsss_jax.ops.depthwise import depthwise_conv
from wsss_jax.ops.xla_conv import Padding

Dtype = Any

HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""The initial values of the layers f8 of AffinityNet's and SEAM's programs (He et al., 2015)."""
XAVIER_4 = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
"""Those of their layers f9: Xavier with a gain of 4."""


def downsample_valid(valid: Bool[Array, "b h w"] | None, stride: int) -> Array | None:
    """Returns the valid pixels of feature maps of `stride`, where n become ceil(n / stride)."""
    return None if valid is None else valid[:, ::stride, ::stride]


def mask_features(x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None) -> Array:
    """Sets features outside `valid` to zero, like the zero padding of an unpadded image."""
    return x if valid is None else jnp.where(valid[..., None], x, jnp.zeros((), x.dtype))


def flip_valid(x: Float[Array, "b h w c"], widths: Int[Array, " b"]) -> Float[Array, "b h w c"]:
    """Reverses the first `widths` columns of each image and sets the columns after them to zero."""
    column = widths[:, None] - 1 - jnp.arange(x.shape[2])
    there = jnp.take_along_axis(x, jnp.maximum(column, 0)[:, None, :, None], axis=2)
    return jnp.where((column >= 0)[:, None, :, None], there, 0)


def max_pool(x: Float[Array, "b h w c"], size: int, stride: int) -> Float[Array, "b p q c"]:
    """Takes the maximum of `size`² pixels of features that are not negative, as after a ReLU.

    The result has ``ceil(side / stride)`` pixels along each side. Windows of 3×3 pixels begin a
    pixel before the image, and those of 2×2 at its corner. The caller masks padded features with
    `mask_features`; zeros are never larger than the result.
    """
    before = (size - 1) // 2
    ends = [(before, (-(-n // stride) - 1) * stride + size - n - before) for n in x.shape[1:3]]
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), *ends, (0, 0)))


def same_padding(kernel_size: int, dilation: int = 1) -> Padding:
    """Returns the zeros around features that keep their size where there is no stride."""
    reach = dilation * (kernel_size - 1) // 2
    return ((reach, reach), (reach, reach))


class Conv(nn.Module):
    """A convolution with a square kernel, in NHWC layout.

    Unless `padding` is given, it is `same_padding`. The caller
    masks padded features with `mask_features`; a 1×1 kernel needs no mask.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: Padding | None = None
    use_bias: bool = False
    kernel_init: Callable[..., Array] = nn.initializers.he_normal()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Applies the convolution."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        padding = self.padding or same_padding(self.kernel_size, self.dilation)
        y = conv(x, kernel, self.stride, self.dilation, padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class DepthwiseConv(nn.Module):
    """A convolution of every channel with its own square kernel (`kernel` [k, k, 1, c])."""

    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: Padding | None = None
    use_bias: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
        """Applies the convolution."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        # The fan-in is the taps of one channel, as the second-last axis of the kernel is 1.
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        padding = self.padding or same_padding(self.kernel_size, self.dilation)
        y = depthwise_conv(
            x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation, padding
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """Batch norm, which is frozen by default.

    If it is frozen, it is one multiplication and one addition per channel with the running
    statistics. `scale` and `bias` are parameters, which the rules of methods freeze; `mean` and
    `var` are in ``batch_stats``. The factors are computed in float32 for any type of features.

    Attributes:
      momentum: the share of the batch statistics that enters the running ones. If it is above 0,
        the statistics of the batch normalize the features. They are computed over all images of
        the global batch including padding, as in the published programs.
      epsilon: a number that is added to the variance.
    """

    momentum: float = 0.0
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalizes features."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        mean, var = running_mean.value, running_var.value
        if self.momentum:
            pixels = x.astype(jnp.float32)
            old_mean, old_var = mean, var
            mean = pixels.mean((0, 1, 2))
            # The mean is subtracted first; a difference of two large squares would lose digits.
            var = jnp.mean(jnp.square(pixels - mean), (0, 1, 2))
            if not self.is_initializing():
                running_mean.value = old_mean + self.momentum * (mean - old_mean)
                running_var.value = old_var + self.momentum * (var - old_var)
        factor = scale * lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        return x * factor.astype(x.dtype) + offset.astype(x.dtype)


class GroupNorm(nn.Module):
    """Group norm over the valid pixels of each image, in float32; it has no running statistics."""

    groups: int = 8
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None
    ) -> Float[Array, "b h w c"]:
        """Normalizes features; if `valid` is None, all pixels count."""
        b, h, w, c = x.shape
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        grouped = x.astype(jnp.float32).reshape(b, h, w, self.groups, c // self.groups)
        where = None if valid is None else valid[:, :, :, None, None]
        mean = jnp.mean(grouped, (1, 2, 4), keepdims=True, where=where)
        var = jnp.mean((grouped - mean) ** 2, (1, 2, 4), keepdims=True, where=where)
        normal = ((grouped - mean) * (var + self.epsilon) ** -0.5).reshape(b, h, w, c)
        return (normal * scale + bias).astype(x.dtype)
