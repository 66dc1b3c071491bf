"""The text tower of CLIP (Radford et al., ICML 2021), a causal transformer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wsss_jax.models.transformer import Activation, Block, layer_norm


class ClipText(nn.Module):
    """Embeds texts. Parameters have the names that `wsss_jax.models.transformer_names` gives them.

    Attributes:
      vocabulary: the number of tokens, of which the last one ends a text.
      context: the largest number of tokens of a text.
      width: the number of channels of the tokens.
      depth: the number of blocks.
      embedding: the number of channels of the result.
      head_width: the number of channels of an attention head. It is 64 in the text towers of OpenAI
        and OpenCLIP, also beside image towers with other heads.
      activation: the function in the blocks, exact or OpenAI's approximation of GELU.
    """

    vocabulary: int = 49408
    context: int = 77
    width: int = 512
    depth: int = 12
    embedding: int = 512
    head_width: int = 64
    activation: Activation = "quick_gelu"

    @nn.compact
    def __call__(self, tokens: Int[Array, "t n"]) -> Float[Array, "t e"]:
        """Embeds texts of at most `context` tokens; what follows the end of a text is not seen."""
        normal, length = nn.initializers.normal(0.02), tokens.shape[1]
        table = self.param("token_embedding", normal, (self.vocabulary, self.width))
        positions = self.param("pos_embed", normal, (1, self.context, self.width))
        x = table[tokens] + positions[:, :length]
        causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
        for number in range(self.depth):
            heads = self.width // self.head_width
            block = Block(heads, self.activation, epsilon=1e-5, name=f"blocks_{number}")
            x, _ = block(x, causal)
        x = layer_norm(1e-5, jnp.float32, "norm")(x)
        end = jnp.argmax(tokens, axis=1)
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return nn.Dense(self.embedding, use_bias=False, name="head")(x)
