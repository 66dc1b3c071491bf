"""Losses by topic, as pure functions of arrays; maps have their channels first (`ops.max_norm`)."""

from wsss_jax.losses.boundary import boundary_losses
from wsss_jax.losses.classification import multilabel_soft_margin
from wsss_jax.losses.equivariance import equivariance_l1
from wsss_jax.losses.hard_examples import hardest_l1, smallest_response
from wsss_jax.losses.pair_affinity import pair_losses
from wsss_jax.losses.segmentation import balanced_cross_entropy, masked_cross_entropy

__all__ = [
    "balanced_cross_entropy",
    "boundary_losses",
    "equivariance_l1",
    "hardest_l1",
    "masked_cross_entropy",
    "multilabel_soft_margin",
    "pair_losses",
    "smallest_response",
]
