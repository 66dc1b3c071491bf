"""Heads that turn a backbone's features into the logits of a segmentation network.

Those of the pixels are called with ``(taps, valid, *, train)``, the backbone's feature maps and the
pixels of the input that belong to the image, and return float32 logits. Their batch norm is
trained.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import BatchNorm, Conv, Dtype, mask_features, valid_at
from wsss_jax.models.taps import to_size


class _Layer(nn.Module):
    """Convolution, batch norm, ReLU."""

    features: int
    kernel_size: int = 1
    dilation: int = 1
    momentum: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array | None) -> Array:
        size, rate = self.kernel_size, self.dilation
        x = mask_features(x, valid) if size > 1 else x
        x = Conv(self.features, size, dilation=rate, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(self.momentum, name="norm")(x))


class LargeFov(nn.Module):
    """A dilated 3×3 and a 1×1 layer, dropout, and a 1×1 classifier.

    DeepLabv1 with a large field of view (Chen et al., ICLR 2015), in the form SEAM retrains it.

    Attributes:
      outputs: channels of the logits.
      features: channels of the two layers.
      dilation: of the 3×3 layer.
      dropout: rate before the classifier.
      bn_momentum: share of new batch statistics in the running ones at every step.
      dtype: of the convolutions.
    """

    outputs: int
    features: int = 512
    dilation: int = 12
    dropout: float = 0.5
    bn_momentum: float = 3e-4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, taps: dict[str, Array], valid: Bool[Array, "b h w"] | None, *, train: bool = False
    ) -> Float[Array, "b p q c1"]:
        """Logits at the stride of ``conv6``."""
        momentum = self.bn_momentum if train else 0.0
        x = taps["conv6"]
        valid = valid_at(valid, (x.shape[1], x.shape[2]))
        for number, (size, rate) in enumerate(((3, self.dilation), (1, 1))):
            layer = _Layer(self.features, size, rate, momentum, self.dtype, name=f"layer_{number}")
            x = layer(x, valid)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        classifier = Conv(self.outputs, 1, use_bias=True, dtype=self.dtype, name="classifier")
        return classifier(x).astype(jnp.float32)


class Aspp(nn.Module):
    """Parallel dilated 3×3 classifiers whose logits are added.

    DeepLabv2 (Chen et al., arXiv 1606.00915, section 3.2).

    Attributes:
      outputs: channels of the logits.
      dilations: of the classifiers.
      dtype: of the convolutions.
    """

    outputs: int
    dilations: tuple[int, ...] = (6, 12, 18, 24)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, taps: dict[str, Array], valid: Bool[Array, "b h w"] | None, *, train: bool = False
    ) -> Float[Array, "b p q c1"]:
        """Logits at the stride of ``conv6``."""
        del train
        x = taps["conv6"]
        x = mask_features(x, valid_at(valid, (x.shape[1], x.shape[2])))
        init = nn.initializers.normal(0.01)
        parts = [
            Conv(
                self.outputs,
                3,
                dilation=rate,
                use_bias=True,
                kernel_init=init,
                dtype=self.dtype,
                name=f"classifier_{number}",
            )(x)
            for number, rate in enumerate(self.dilations)
        ]
        return sum(part.astype(jnp.float32) for part in parts)  # pyright: ignore[reportReturnType]


class V3Plus(nn.Module):
    """Atrous pyramid with image pooling, and a decoder that adds features of stride 4.

    DeepLabv3+ (Chen et al., ECCV 2018, section 3).

    Attributes:
      outputs: channels of the logits.
      features: channels of pyramid and decoder.
      low_features: channels that the features of stride 4 are reduced to.
      dilations: of the pyramid's 3×3 layers: (6, 12, 18) at output stride 16, doubled at 8.
      dropout: rate after the pyramid.
      bn_momentum: share of new batch statistics in the running ones at every step.
      dtype: of the convolutions.
    """

    outputs: int
    features: int = 256
    low_features: int = 48
    dilations: tuple[int, ...] = (6, 12, 18)
    dropout: float = 0.5
    bn_momentum: float = 3e-4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, taps: dict[str, Array], valid: Bool[Array, "b h w"] | None, *, train: bool = False
    ) -> Float[Array, "b r s c1"]:
        """Logits at stride 4."""
        momentum = self.bn_momentum if train else 0.0

        def layer(features: int, size: int, rate: int, name: str) -> _Layer:
            return _Layer(features, size, rate, momentum, self.dtype, name=name)

        x, low = taps["conv6"], taps["conv3"]
        high_valid = valid_at(valid, (x.shape[1], x.shape[2]))
        branches = [layer(self.features, 1, 1, "pyramid_0")(x, high_valid)]
        for number, rate in enumerate(self.dilations, 1):
            branches.append(layer(self.features, 3, rate, f"pyramid_{number}")(x, high_valid))
        where = None if high_valid is None else high_valid[..., None]
        pooled = jnp.mean(x, (1, 2), keepdims=True, where=where)
        pooled = layer(self.features, 1, 1, "pool")(pooled, None)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = layer(self.features, 1, 1, "project")(jnp.concatenate(branches, -1), high_valid)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)

        size = (low.shape[1], low.shape[2])
        low_valid = valid_at(valid, size)
        x = to_size(x, size, valid)
        low = layer(self.low_features, 1, 1, "low")(low, low_valid)
        x = jnp.concatenate([x, low.astype(x.dtype)], -1)
        for number in range(2):
            x = layer(self.features, 3, 1, f"decoder_{number}")(x, low_valid)
        classifier = Conv(self.outputs, 1, use_bias=True, dtype=self.dtype, name="classifier")
        return classifier(x).astype(jnp.float32)


class Presence(nn.Module):
    """Which classes an image has: a linear classifier of the features' mean over the image.

    Attributes:
      outputs: classes.
    """

    outputs: int

    @nn.compact
    def __call__(
        self, taps: dict[str, Array], valid: Bool[Array, "b h w"] | None
    ) -> Float[Array, "b c"]:
        """Logits of the image's classes."""
        x = taps["conv6"].astype(jnp.float32)
        valid = valid_at(valid, (x.shape[1], x.shape[2]))
        mean = jnp.mean(x, (1, 2), where=None if valid is None else valid[..., None])
        return nn.Dense(self.outputs, name="classifier")(mean)
