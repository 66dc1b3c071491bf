"""A network of 0.2 M parameters, trained from scratch: for the built-in data and for tests."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Conv, Dtype, GroupNorm, downsample_valid, mask_features


class _Layer(nn.Module):
    features: int
    stride: int
    dilation: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, valid: Array | None) -> tuple[Array, Array | None]:
        y = Conv(self.features, 3, self.stride, self.dilation, name="conv", dtype=self.dtype)(
            mask_features(x, valid)
        )
        valid = downsample_valid(valid, self.stride)
        y = GroupNorm(name="norm")(y, valid)
        if y.shape == x.shape:
            y = y + x
        return nn.relu(y), valid


class Tiny(nn.Module):
    """A stem of 4×4 patches and 3×3 layers, output stride 8; taps at strides 4, 4, 8 and 8."""

    width: int = 32
    remat: bool = False
    dtype: Dtype = jnp.float32

    pixel_mean = (127.5, 127.5, 127.5)
    pixel_std = (64.0, 64.0, 64.0)
    feature_stride = 8

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """The four feature maps."""
        del train
        layer = nn.remat(_Layer) if self.remat else _Layer
        patches = mask_features(x.astype(self.dtype), valid)
        odd = tuple((0, -side % 4) for side in x.shape[1:3])
        x = Conv(self.width, 4, 4, padding=(odd[0], odd[1]), name="stem", dtype=self.dtype)(patches)
        valid = downsample_valid(valid, 4)
        x = nn.relu(GroupNorm(name="stem_norm")(x, valid))
        taps: dict[str, Array] = {"conv3": x.astype(jnp.float32)}
        plan = (  # features, stride, dilation, tap
            (self.width, 1, 1, None),
            (self.width, 1, 1, "conv4"),
            (2 * self.width, 2, 1, None),
            (2 * self.width, 1, 1, None),
            (2 * self.width, 1, 2, "conv5"),
            (4 * self.width, 1, 2, "conv6"),
        )
        for number, (features, stride, dilation, tap) in enumerate(plan):
            x, valid = layer(features, stride, dilation, self.dtype, name=f"layer_{number}")(
                x, valid
            )
            if tap:
                taps[tap] = x.astype(jnp.float32)
        return taps


Backbone = Tiny

FROZEN: tuple[str, ...] = ()
NORMS: tuple[str, ...] = ()
