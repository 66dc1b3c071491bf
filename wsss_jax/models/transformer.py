"""The pre-norm transformer block that vision transformers and CLIP's text tower are made of."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Dtype

Activation = Literal["gelu", "quick_gelu"]
"""``gelu`` is exact (erf); ``quick_gelu`` is OpenAI's x·σ(1.702·x)."""


def layer_norm(epsilon: float, dtype: Dtype, name: str) -> nn.LayerNorm:
    """Returns a layer norm with statistics in float32.

    The variance is the mean of squared differences, because a few channels of trained transformers
    are so large that a difference of squares would lose digits.
    """
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """Attention and two dense layers, each behind a layer norm and with a shortcut.

    Parameters have timm's names with ``_`` for inner dots (``attn_qkv`` is ``attn.qkv``).

    Attributes:
      heads: the number of attention heads.
      activation: the function between the dense layers.
      epsilon: the number that layer norm adds to the variance.
      layer_scale: the initial value of the factors of both branches; 0 for no factors.
      drop_path: the probability with which a branch of an image is left out in training.
      dtype: the type of products and activations; norms and softmax are computed in float32.
    """

    heads: int
    activation: Activation = "gelu"
    epsilon: float = 1e-6
    layer_scale: float = 0.0
    drop_path: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "..."] | None, train: bool = False
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b heads n n"]]:
        """Applies the block.

        Args:
          x: the tokens.
          mask: which keys each query sees; it broadcasts to [b, heads, n (query), n (key)].
          train: turns on `drop_path`, which needs a ``dropout`` key.

        Returns:
          The tokens, and the attention (after the softmax over keys) in float32.
        """
        width = x.shape[-1]
        y = self._dense(3 * width, "attn_qkv")(layer_norm(self.epsilon, self.dtype, "norm1")(x))
        y = y.reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(y, 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores *= query.shape[-1] ** -0.5
        if mask is not None:
            scores = jnp.where(mask, scores, -1e30)
        attention = jax.nn.softmax(scores)
        y = jnp.einsum("bhqk,bkhd->bqhd", attention.astype(self.dtype), value)
        y = self._dense(width, "attn_proj")(y.reshape(x.shape))
        x = x + self._branch(y, "ls1", train)
        y = layer_norm(self.epsilon, self.dtype, "norm2")(x)
        y = self._dense(4 * width, "mlp_fc1")(y)
        y = nn.gelu(y, approximate=False) if self.activation == "gelu" else _quick_gelu(y)
        y = self._dense(width, "mlp_fc2")(y)
        return x + self._branch(y, "ls2", train), attention

    def _dense(self, features: int, name: str) -> nn.Dense:
        init = nn.initializers.truncated_normal(0.02)
        return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)

    def _branch(self, y: Array, scale: str, train: bool) -> Array:
        if self.layer_scale:
            init = nn.initializers.constant(self.layer_scale)
            y = y * self.param(f"{scale}_gamma", init, (y.shape[-1],)).astype(y.dtype)
        return nn.Dropout(self.drop_path, broadcast_dims=(1, 2))(y, deterministic=not train)


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)
