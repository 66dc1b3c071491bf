"""AffinityNet's loss, cross entropies over pairs of pixels (Ahn & Kwak, CVPR 2018)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from wsss_jax.ops.pair_affinity import pair_mask, partner_values
from wsss_jax.ops.reliable_labels import IGNORE

_EPSILON = 1e-5  # as in the published program


def pair_losses(
    affinity: Float[Array, "b h w o"], labels: UInt8[Array, "b h w"]
) -> dict[str, Float[Array, ""]]:
    """Averages the cross entropies of the pairs whose two classes are known.

    Args:
      affinity: the affinities of the pairs `pair_offsets`.
      labels: classes; 0 is background and 255 unknown.

    Returns:
      Three means, each 0 where there are no such pairs: ``background`` (both pixels are
      background), ``foreground`` (both are of the same foreground class) and ``different``.
    """
    b, h, w = labels.shape
    here, there = labels[..., None], partner_values(labels, IGNORE)
    counted = pair_mask((h, w), jnp.broadcast_to(jnp.asarray((h, w)), (b, 2)))
    counted &= (here != IGNORE) & (there != IGNORE)
    same = counted & (here == there)
    together, apart = -jnp.log(affinity + _EPSILON), -jnp.log(1 + _EPSILON - affinity)
    kinds = {
        "background": (same & (here == 0), together),
        "foreground": (same & (here != 0), together),
        "different": (counted & (here != there), apart),
    }
    return {
        name: jnp.sum(jnp.where(pairs, cost, 0)) / (pairs.sum() + _EPSILON)
        for name, (pairs, cost) in kinds.items()
    }
