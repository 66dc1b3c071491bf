"""The two branches of IRNet on a backbone's feature maps (Ahn et al., CVPR 2019).

Both use ``conv2`` (if the backbone has this tap) to ``conv6``, and their outputs have the stride of
``conv3``, which divides the strides of the later taps. Layers have the names of the published
program: ``fc_edge1`` belongs to ``conv2``, ``fc_edge2`` to ``conv3`` and so on.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Conv, Dtype, GroupNorm, downsample_valid
from wsss_jax.ops.resize import resize_bilinear, valid_size

TAPS = ("conv2", "conv3", "conv4", "conv5", "conv6")

Valid = Bool[Array, "b ih iw"]


class _Layer(nn.Module):
    """A 1×1 convolution, group norm, upsampling and ReLU."""

    features: int
    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, stride: int, like: Array, like_stride: int, valid: Array | None
    ) -> Array:
        """Brings `x` of stride `stride` to the size of `like`, which has stride `like_stride`."""
        y = Conv(self.features, 1, dtype=self.dtype, name="0")(x)
        mask = downsample_valid(valid, stride)
        y = GroupNorm(self.groups, name="1")(y, mask)
        factor, rest = divmod(stride, like_stride)
        if rest:
            raise ValueError(
                f"expected a stride that {like_stride} divides, found maps of stride {stride}"
            )
        return nn.relu(_upsampled(y, factor, (like.shape[1], like.shape[2]), mask))


class BoundaryHead(nn.Module):
    """Logits of the boundaries between classes, in one channel at the stride of ``conv3``."""

    features: int = 32
    groups: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, taps: dict[str, Array], strides: Mapping[str, int], valid: Valid | None
    ) -> Float[Array, "b h w 1"]:
        """Computes the logits.

        Args:
          taps: the feature maps of the backbone.
          strides: their strides; see `wsss_jax.models.base.Backbone.tap_strides`.
          valid: the top-left part of the network's input that is not padding.
        """
        parts = [
            _Layer(self.features, self.groups, self.dtype, name=f"fc_edge{number}")(
                taps[tap], strides[tap], taps["conv3"], strides["conv3"], valid
            )
            for number, tap in enumerate(TAPS, 1)
            if tap in taps
        ]
        last = Conv(1, 1, use_bias=True, dtype=self.dtype, name="fc_edge6")
        return last(jnp.concatenate(parts, -1)).astype(jnp.float32)


class DisplacementHead(nn.Module):
    """The displacement (dy, dx) from a pixel to the center of its object, in pixels of ``conv3``.

    Attributes:
      features: the channels on each of `TAPS`.
      groups: the groups of the group norm on each of `TAPS`.
      momentum: the share of a batch's mean that enters the running mean of all displacements.
      dtype: the type of the convolutions.
    """

    features: tuple[int, ...] = (64, 128, 256, 256, 256)
    groups: tuple[int, ...] = (8, 16, 16, 16, 16)
    momentum: float = 0.01
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        taps: dict[str, Array],
        strides: Mapping[str, int],
        valid: Valid | None,
        *,
        train: bool = False,
    ) -> Float[Array, "b h w 2"]:
        """Computes displacements as `BoundaryHead` does logits.

        With `train`, their mean enters the running mean and is not subtracted.
        """

        def layer(number: int, x: Array, tap: str, like: str) -> Array:
            """Applies layer `number` to `x`, of the stride of `tap`, at the stride of `like`."""
            at = min(number, len(self.features)) - 1
            width, groups = self.features[at], self.groups[at]
            name = f"fc_dp{number}"
            made = _Layer(width, groups, self.dtype, name=name)
            return made(x, strides[tap], taps[like], strides[like], valid)

        fine, coarse = "conv3", "conv4"
        upper = [layer(n, taps[tap], tap, coarse) for n, tap in enumerate(TAPS, 1) if n >= 3]
        parts = [
            layer(n, taps[tap], tap, fine) for n, tap in enumerate(TAPS, 1) if tap in taps and n < 3
        ]
        parts.append(layer(6, jnp.concatenate(upper, -1), coarse, fine))
        last = _LastLayer(self.features[-1], self.groups[-1], self.dtype, name="fc_dp7")
        x = last(jnp.concatenate(parts, -1), downsample_valid(valid, strides[fine]))
        x = x.astype(jnp.float32)
        return _MeanShift(self.momentum, name="mean_shift")(x, train)


class _LastLayer(nn.Module):
    features: int
    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array | None) -> Array:
        """Applies the layer; `valid` marks the pixels of `x` that are not padding."""
        y = Conv(self.features, 1, dtype=self.dtype, name="0")(x)
        y = nn.relu(GroupNorm(self.groups, name="1")(y, valid))
        return Conv(2, 1, dtype=self.dtype, name="3")(y)


class _MeanShift(nn.Module):
    """Subtracts the mean of all displacements, which should not favor any direction.

    The published program computes the mean over all images after training. A running mean needs no
    such pass. It remembers about a hundred steps, during which the network hardly changes.
    """

    momentum: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        mean = self.variable("batch_stats", "mean", jnp.zeros, (x.shape[-1],), jnp.float32)
        if not train:
            return x - mean.value
        if not self.is_initializing():
            mean.value = mean.value + self.momentum * (x.mean((0, 1, 2)) - mean.value)
        return x


def _upsampled(x: Array, factor: int, size: tuple[int, int], valid: Array | None) -> Array:
    """Upsamples bilinearly by a whole factor (half-pixel) and cuts off what is beyond `size`."""
    if factor > 1:
        full = (factor * x.shape[1], factor * x.shape[2])
        sizes = {}
        if valid is not None:
            sizes["in_size"] = valid_size(valid)
            sizes["out_size"] = factor * sizes["in_size"]
        x = resize_bilinear(x, full, align_corners=False, **sizes)
    return x[:, : size[0], : size[1]]
