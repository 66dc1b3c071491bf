"""Parallel dilated classifiers on one feature map, whose maps are summed.

This is the head of ECS-Net (ICCV 2021), fused as in Wei et al. (Revisiting Dilated Convolution,
CVPR 2018): a small dilation finds discriminative parts, and large dilations spread their evidence
to the surroundings.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsss_jax.models.layers import Dtype


class TapConv(nn.Module):
    """A zero-padded 3×3 convolution without bias from many channels to few, in float32.

    All taps are applied in one matrix product, whose few channels are shifted and added. XLA's own
    kernel gradient of such a convolution is many times slower on a CPU.

    Attributes:
      features: the channels of the result.
      dilation: the distance between the taps.
      dtype: the type of the product.
    """

    features: int
    dilation: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Applies the convolution."""
        b, h, w, channels = x.shape
        xavier = nn.initializers.xavier_uniform()
        kernel = self.param("kernel", xavier, (3, 3, channels, self.features), jnp.float32)
        taps = jnp.moveaxis(kernel, 2, 0).reshape(channels, -1).astype(self.dtype)
        product = x.astype(self.dtype).reshape(-1, channels) @ taps
        product = product.reshape(b, h, w, 3, 3, self.features).astype(jnp.float32)
        total = jnp.zeros((b, h, w, self.features), jnp.float32)
        for i in range(3):
            for j in range(3):
                down, right = ((n - 1) * self.dilation for n in (i, j))
                if not isinstance(h, int):  # a symbol, in a program for images of any size
                    around = (self.dilation, self.dilation)
                    tap = jnp.pad(product[:, :, :, i, j], ((0, 0), around, around, (0, 0)))
                    tap = jax.lax.slice_in_dim(
                        tap, i * self.dilation, i * self.dilation + h, axis=1
                    )
                    total += jax.lax.slice_in_dim(
                        tap, j * self.dilation, j * self.dilation + w, axis=2
                    )
                elif abs(down) < h and abs(right) < w:  # otherwise this tap only sees padding
                    shift = ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0))
                    total += jax.lax.pad(product[:, :, :, i, j], jnp.float32(0), shift)
        return total


class DilatedOverlay(nn.Module):
    """The maps of one classifier per dilation.

    Attributes:
      features: the channels of the maps.
      dilations: the dilations of the 3×3 classifiers.
      dtype: the type of their products.
    """

    features: int
    dilations: tuple[int, ...] = (1, 3, 6, 9)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, overlaid: bool) -> Float[Array, "b h w d"]:
        """Returns the first classifier's maps, plus the mean of the others if `overlaid`."""
        heads = [
            TapConv(self.features, dilation, self.dtype, name=f"d{dilation}")
            for dilation in self.dilations
        ]
        first = heads[0](x)
        # Initialization creates all parameters, even if only the first maps are requested.
        if len(heads) == 1 or not (overlaid or self.is_initializing()):
            return first
        others = jnp.stack([head(x) for head in heads[1:]])
        return first + others.mean(0)
