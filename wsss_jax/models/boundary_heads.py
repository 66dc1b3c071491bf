"""The two branches of IRNet on a backbone's feature maps (Ahn et al., CVPR 2019).

Both work on ``conv2`` (where the backbone has a stem of stride 4) to ``conv6`` and answer at the
stride of ``conv3``. Layers carry the names of the published program: ``fc_edge1`` belongs to
``conv2``, ``fc_edge2`` to ``conv3`` and so on.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Conv, Dtype, GroupNorm, valid_at
from wsss_jax.ops.resize import resize_bilinear, valid_size

TAPS = ("conv2", "conv3", "conv4", "conv5", "conv6")
_STRIDES = (1, 2, 4, 8, 16, 32)

Valid = Bool[Array, "b ih iw"]


class _Layer(nn.Module):
    """1×1 convolution, group norm, enlargement, ReLU."""

    features: int
    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, like: Array, image: Array, valid: Array | None) -> Array:
        """`x` at the size of `like`; `image` has the size of the network's input."""
        y = Conv(self.features, 1, dtype=self.dtype, name="0")(x)
        mask = valid_at(valid, (x.shape[1], x.shape[2]))
        y = GroupNorm(self.groups, name="1")(y, mask)
        factor = _stride(image, x) // _stride(image, like)
        return nn.relu(_enlarged(y, factor, (like.shape[1], like.shape[2]), mask))


class BoundaryHead(nn.Module):
    """Where classes meet: logits of one channel at the stride of ``conv3``."""

    features: int = 32
    groups: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, taps: dict[str, Array], image: Float[Array, "b ih iw 3"], valid: Valid | None
    ) -> Float[Array, "b h w 1"]:
        """`image` gives the input's size, `valid` the top-left part of it that is no padding."""
        parts = [
            _Layer(self.features, self.groups, self.dtype, name=f"fc_edge{number}")(
                taps[tap], taps["conv3"], image, valid
            )
            for number, tap in enumerate(TAPS, 1)
            if tap in taps
        ]
        last = Conv(1, 1, use_bias=True, dtype=self.dtype, name="fc_edge6")
        return last(jnp.concatenate(parts, -1)).astype(jnp.float32)


class DisplacementHead(nn.Module):
    """The way (dy, dx) from a pixel to the centre of its object, in pixels of ``conv3``.

    Attributes:
      features: channels on each of `TAPS`; the groups of the first have 8 channels, else 16.
      momentum: share of a batch's mean in the running mean of all displacements.
      dtype: of the convolutions.
    """

    features: tuple[int, ...] = (64, 128, 256, 256, 256)
    groups: tuple[int, ...] = (8, 16, 16, 16, 16)
    momentum: float = 0.01
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        taps: dict[str, Array],
        image: Float[Array, "b ih iw 3"],
        valid: Valid | None,
        *,
        train: bool = False,
    ) -> Float[Array, "b h w 2"]:
        """See `BoundaryHead`; with `train` the mean is left in and counted."""

        def layer(number: int, x: Array, like: Array) -> Array:
            at = min(number, len(self.features)) - 1
            width, groups = self.features[at], self.groups[at]
            name = f"fc_dp{number}"
            return _Layer(width, groups, self.dtype, name=name)(x, like, image, valid)

        fine, coarse = taps["conv3"], taps["conv4"]
        upper = [layer(n, taps[tap], coarse) for n, tap in enumerate(TAPS, 1) if n >= 3]
        parts = [
            layer(n, taps[tap], fine) for n, tap in enumerate(TAPS, 1) if tap in taps and n < 3
        ]
        parts.append(layer(6, jnp.concatenate(upper, -1), fine))
        last = _LastLayer(self.features[-1], self.groups[-1], self.dtype, name="fc_dp7")
        x = last(jnp.concatenate(parts, -1), valid).astype(jnp.float32)
        return _MeanShift(self.momentum, name="mean_shift")(x, train)


class _LastLayer(nn.Module):
    features: int
    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array | None) -> Array:
        y = Conv(self.features, 1, dtype=self.dtype, name="0")(x)
        y = nn.relu(GroupNorm(self.groups, name="1")(y, valid_at(valid, (x.shape[1], x.shape[2]))))
        return Conv(2, 1, dtype=self.dtype, name="3")(y)


class _MeanShift(nn.Module):
    """Takes the mean of all displacements away: no pixel is closer to its centre than another.

    The published program computes it over the images once training is over. A running mean needs
    no such pass; the last hundred steps, which it remembers, hardly change the network.
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


def _stride(image: Array, maps: Array) -> int:
    def fits(stride: int) -> bool:
        return all(
            -(-n // stride) == m for n, m in zip(image.shape[1:3], maps.shape[1:3], strict=True)
        )

    return next(stride for stride in _STRIDES if fits(stride))


def _enlarged(x: Array, factor: int, size: tuple[int, int], valid: Array | None) -> Array:
    """Bilinearly by a whole factor (half-pixel), and what is beyond `size` cut off."""
    if factor > 1:
        full = (factor * x.shape[1], factor * x.shape[2])
        sizes = {}
        if valid is not None:
            sizes["in_size"] = valid_size(valid)
            sizes["out_size"] = factor * sizes["in_size"]
        x = resize_bilinear(x, full, align_corners=False, **sizes)
    return x[:, : size[0], : size[1]]
