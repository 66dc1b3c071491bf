"""A backbone of 0.2 M parameters to train from scratch, for the built-in data and for tests."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
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


class Tiny(Backbone):
    """A small network of output stride 8, with a stem of 4×4 patches and 3×3 layers.

    Attributes:
      width: the channels of the first layers; ``conv5`` has twice and ``conv6`` four times as many.
      remat: whether the backward pass recomputes the activations inside the layers.
    """

    width: int = 32
    remat: bool = False

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (64.0, 64.0, 64.0)

    def __post_init__(self) -> None:
        """Checks the width.

        Raises:
          UserError: the groups of the group norms do not divide it.
        """
        if self.width < 1 or self.width % GroupNorm.groups:
            raise UserError(
                f"expected a width of {GroupNorm.groups}, {2 * GroupNorm.groups}, ..., found"
                f" {self.width}: change it"
            )
        super().__post_init__()

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        return {"conv3": 4, "conv4": 4, "conv5": 8, "conv6": 8}

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`; all maps are float32."""
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
