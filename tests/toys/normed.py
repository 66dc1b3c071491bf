"""A small backbone with batch norm that can be trained."""

from typing import Any, ClassVar

import flax.linen as nn

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import BatchNorm, Conv


class Normed(Backbone):
    """A layer of stride 4, whose kernels overlap the sides of tiles, with batch norm."""

    bn_momentum: float = 0.0

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)

    @property
    def tap_strides(self) -> dict[str, int]:
        return dict.fromkeys(("conv3", "conv4", "conv5", "conv6"), 4)

    @nn.compact
    def __call__(self, x: Any, valid: Any = None, *, train: bool = False) -> Any:
        del valid
        x = Conv(5, 3, 4, dtype=self.dtype, name="conv")(x)
        momentum = self.bn_momentum if train else 0.0
        return dict.fromkeys(self.tap_strides, nn.relu(BatchNorm(momentum, name="bn")(x)))
