"""Computes losses of activation maps on the few classes that each image shows.

A VOC image shows 1.5 of 20 classes on average, and never more than six. To a loss on maps that are
multiplied by the image's label, all other classes are zeros. Leaving them out is exact, and several
times faster, because such losses read and write full-size maps dozens of times.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SLOTS = (3, 6)
"""Numbers of classes to try before all: the first that is enough for every image is taken."""

Maps = tuple[Array, ...]
Loss = Callable[[Maps, Array], tuple[Array, dict[str, Array]]]


def on_present_classes(
    loss_of: Loss, maps: Maps, labels: Float[Array, "b c"], *, background: bool = True
) -> tuple[Array, dict[str, Array]]:
    """Computes ``loss_of(maps, labels)`` on the maps of the present classes alone.

    The gradient is computed together with the value, in one branch of a conditional.
    Differentiating the conditional itself would keep the intermediate results of every branch.

    Args:
      loss_of: a function of maps, [b, 1 + k, h, w] each, and labels [b, k] that returns a scalar
        loss and named terms. Classes with label 0 must not change its result, whether they are kept
        or left out. Only the loss is differentiated, and only with respect to the maps.
      maps: maps of [b, 1 + c, h, w] each; channel 0 (the background) is always kept.
      labels: 0 or 1 for each class.
      background: False if the maps have no background channel and are [b, c, h, w].

    Returns:
      The loss and its named terms.
    """
    classes = labels.shape[1]
    sizes = (*(n for n in SLOTS if n < classes), classes)
    branches = [_with_classes(loss_of, n, background) for n in sizes]
    most = jnp.max(jnp.sum(labels > 0, axis=1))
    index = sum((most > n).astype(jnp.int32) for n in sizes[:-1])

    @jax.custom_vjp
    def value(index: Int[Array, ""] | int, maps: Maps, labels: Array):
        return jax.lax.switch(index, branches, maps, labels)

    def forward(index: Int[Array, ""] | int, maps: Maps, labels: Array):
        with_gradient = [jax.value_and_grad(branch, has_aux=True) for branch in branches]
        return jax.lax.switch(index, with_gradient, maps, labels)

    def backward(gradient: Maps, cotangent: tuple[Array, dict[str, Array]]):
        return None, tuple(g * cotangent[0] for g in gradient), None

    value.defvjp(forward, backward)
    return value(index, maps, labels)


def _with_classes(loss_of: Loss, count: int, background: bool) -> Loss:
    """Restricts `loss_of` to background and `count` classes of each image, present ones first."""

    def loss(maps: Maps, labels: Array) -> tuple[Array, dict[str, Array]]:
        if count == labels.shape[1]:
            return loss_of(maps, labels)
        kept = jnp.argsort(labels <= 0, axis=1, stable=True)[:, :count]
        position = jnp.pad(kept + 1, ((0, 0), (1, 0))) if background else kept
        position = position[..., None, None]
        selected = tuple(jnp.take_along_axis(m, position, axis=1) for m in maps)
        return loss_of(selected, jnp.take_along_axis(labels, kept, axis=1))

    return loss
