"""Class prototypes: the mean direction of the features of a class's pixels, as unit vectors.

Shapes use b images, n classes with the background first, and d features. Source: arXiv 2112.05351,
section 3.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wsss_jax.ops.max_norm import EPSILON

_TINY = 1e-12  # a vector whose squared length is below this has no direction


def unit(x: Float[Array, "*rest d"]) -> Float[Array, "*rest d"]:
    """Scales vectors to length one; those of length zero stay zero, as does their gradient."""
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    some = square > _TINY
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, square, 1)), 0)


def assign(
    cam: Float[Array, "b c h w"], labels: Float[Array, "b c"], threshold: float
) -> Int[Array, "b h w"]:
    """Returns the strongest present class of each pixel as k + 1, or 0 for the background.

    Args:
      cam: raw maps; each class is divided by its own maximum.
      labels: 0 or 1 for each class.
      threshold: pixels whose strongest normalized response is below it are background, so no pixel
        stays undecided.
    """
    cam = jax.nn.relu(cam) * labels[..., None, None]
    normal = cam / (cam.max((2, 3), keepdims=True) + EPSILON)
    return jnp.where(normal.max(1) < threshold, 0, normal.argmax(1) + 1)


def class_prototypes(
    features: Float[Array, "b h w d"], classes: Int[Array, "b h w"], count: int
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
    """Sums the unit features of each class's pixels and normalizes the sums.

    Args:
      features: feature vectors of any length.
      classes: the class of each pixel, 0…n − 1.
      count: the number of classes n.

    Returns:
      The prototypes of each image, and whether the image has pixels of each class.
    """
    members = jax.nn.one_hot(classes, count, dtype=jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    sums = jnp.einsum("bhwn,bhwd->bnd", members, unit(features), precision=highest)
    return unit(sums), members.sum((1, 2)) > 0


def leave_one_out(
    prototypes: Float[Array, "b n d"], present: Bool[Array, "b n"]
) -> Float[Array, "b n d"]:
    """Returns, for each image, the mean of the *other* images' prototypes, scaled to length one.

    The result is zero where no other image has the class.
    """
    own = prototypes * present[..., None]
    return unit(own.sum(0, keepdims=True) - own) * _elsewhere(present)[..., None]


def _elsewhere(present: Bool[Array, "b n"]) -> Bool[Array, "b n"]:
    # Counts are exact, while the difference of two equal sums of floats need not be zero.
    counts = present.astype(jnp.int32)
    return counts.sum(0, keepdims=True) > counts


def batch_mean(
    prototypes: Float[Array, "b n d"], present: Bool[Array, "b n"]
) -> Float[Array, "b n d"]:
    """Returns the mean of all images' prototypes for every image; zero for absent classes."""
    mean = unit((prototypes * present[..., None]).sum(0, keepdims=True))
    return jnp.broadcast_to(mean, prototypes.shape)


def remember(
    queue: Float[Array, "n m d"], prototypes: Float[Array, "b n d"], present: Bool[Array, "b n"]
) -> Float[Array, "n m d"]:
    """Adds a batch's prototypes to a queue of the last m prototypes of each class.

    Args:
      queue: the queue so far, newest first; unused places are zero.
      prototypes: the prototypes of a batch, in the order of its images.
      present: which of the prototypes exist.

    Returns:
      The new queue.
    """
    size = queue.shape[1]
    # The batch with its last image first, then the queue; a stable sort moves gaps to the end.
    newest = jnp.concatenate([prototypes[::-1].swapaxes(0, 1), queue], axis=1)
    there = jnp.concatenate([present[::-1].T, jnp.any(queue != 0, -1)], axis=1)
    order = jnp.argsort(~there, axis=1, stable=True)[:, :size]
    kept = jnp.take_along_axis(newest, order[..., None], axis=1)
    return kept * jnp.take_along_axis(there, order, axis=1)[..., None]


def recalled(queue: Float[Array, "n m d"]) -> Float[Array, "n d"]:
    """Returns the mean of each class's queue, scaled to length one; zero if the queue is empty."""
    return unit(queue.sum(1))
