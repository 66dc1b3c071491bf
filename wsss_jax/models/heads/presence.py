"""The head that predicts which classes an image shows."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import downsample_valid


class Presence(nn.Module):
    """A linear classifier of the features' mean over the image, for image-level labels.

    Attributes:
      outputs: the number of classes.
    """

    outputs: int

    @nn.compact
    def __call__(
        self,
        taps: dict[str, Array],
        strides: Mapping[str, int],
        valid: Bool[Array, "b h w"] | None,
    ) -> Float[Array, "b c"]:
        """Computes the logits of the classes of each image."""
        x = taps["conv6"].astype(jnp.float32)
        valid = downsample_valid(valid, strides["conv6"])
        mean = jnp.mean(x, (1, 2), where=None if valid is None else valid[..., None])
        return nn.Dense(self.outputs, name="classifier")(mean)
