"""Prototypes: what the pixels of a class look like on average, as unit vectors.

Source: arXiv 2112.05351, section 3. b images, n classes with background first, d features.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wsss_jax.ops.max_norm import EPSILON

_TINY = 1e-12  # below it a vector has no direction


def unit(x: Float[Array, "*rest d"]) -> Float[Array, "*rest d"]:
    """Vectors of length one; those of no length stay zero, and so does their gradient."""
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    some = square > _TINY
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, square, 1)), 0)


def assign(
    cam: Float[Array, "b c h w"], labels: Float[Array, "b c"], threshold: float
) -> Int[Array, "b h w"]:
    """The strongest present class of each pixel, k + 1, or 0 where it is below `threshold`.

    Args:
      cam: raw maps; a class is divided by its own maximum.
      labels: 0 or 1.
      threshold: of the normalized maps; there is no undecided pixel.
    """
    cam = jax.nn.relu(cam) * labels[..., None, None]
    normal = cam / (cam.max((2, 3), keepdims=True) + EPSILON)
    return jnp.where(normal.max(1) < threshold, 0, normal.argmax(1) + 1)


def class_prototypes(
    features: Float[Array, "b h w d"], classes: Int[Array, "b h w"], count: int
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
    """Per image and class the normalized sum of the pixels' unit features, and which there are.

    Args:
      features: of any length.
      classes: 0…n − 1.
      count: n.
    """
    members = jax.nn.one_hot(classes, count, dtype=jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    sums = jnp.einsum("bhwn,bhwd->bnd", members, unit(features), precision=highest)
    return unit(sums), members.sum((1, 2)) > 0


def leave_one_out(
    prototypes: Float[Array, "b n d"], present: Bool[Array, "b n"]
) -> Float[Array, "b n d"]:
    """For each image the mean of the *other* images' prototypes, of length one.

    Zero where no other image has the class.
    """
    own = prototypes * present[..., None]
    return unit(own.sum(0, keepdims=True) - own) * _elsewhere(present)[..., None]


def _elsewhere(present: Bool[Array, "b n"]) -> Bool[Array, "b n"]:
    # The difference of two equal sums need not be zero in floating point.
    counts = present.astype(jnp.int32)
    return counts.sum(0, keepdims=True) > counts


def batch_mean(
    prototypes: Float[Array, "b n d"], present: Bool[Array, "b n"]
) -> Float[Array, "b n d"]:
    """The mean of all images' prototypes, the same for each image; zero for absent classes."""
    mean = unit((prototypes * present[..., None]).sum(0, keepdims=True))
    return jnp.broadcast_to(mean, prototypes.shape)


def remember(
    queue: Float[Array, "n m d"], prototypes: Float[Array, "b n d"], present: Bool[Array, "b n"]
) -> Float[Array, "n m d"]:
    """The last m prototypes of each class, newest first, after those of a batch; zero if fewer.

    Args:
      queue: what was remembered.
      prototypes: of a batch, in the order of its images.
      present: which of them there are.
    """
    size = queue.shape[1]
    # The batch, last image first, then the queue; what there is comes first, in that order.
    newest = jnp.concatenate([prototypes[::-1].swapaxes(0, 1), queue], axis=1)
    there = jnp.concatenate([present[::-1].T, jnp.any(queue != 0, -1)], axis=1)
    order = jnp.argsort(~there, axis=1, stable=True)[:, :size]
    kept = jnp.take_along_axis(newest, order[..., None], axis=1)
    return kept * jnp.take_along_axis(there, order, axis=1)[..., None]


def recalled(queue: Float[Array, "n m d"]) -> Float[Array, "n d"]:
    """The mean of each class's remembered prototypes, of length one; zero where there is none."""
    return unit(queue.sum(1))
