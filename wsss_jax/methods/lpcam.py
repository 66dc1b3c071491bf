"""LPCAM, maps from local prototypes (Chen & Sun, CVPR 2023, arXiv 2303.00399).

A classifier needs only some parts of an object, and its maps show no others. Here the features of
all training images are clustered per class, and a pixel responds as far as its features resemble
those of any part. Nothing is trained: the stage `prototypes` adds the clusters to the backbone of a
trained classifier.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import flip_valid
from wsss_jax.ops.resize import valid_size
from wsss_jax.settings.limits import check_limits

_LEAST_NORM = 1e-8


class LpCamNetwork(nn.Module):
    """A backbone, and clusters of its features in place of a classifier.

    The clusters are variables of the collection ``prototypes``: ``foreground`` are parts of objects
    of a class, ``context`` is what is often seen around them, both [C, K, D]. A class has up to K
    of each, and unused places are zero.

    Attributes:
      backbone: the backbone.
      num_classes: the number of foreground classes C.
      clusters: the number of places K of each class.
    """

    backbone: Backbone
    num_classes: int
    clusters: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b p q c"]:
        """Computes maps at the network's stride from features of the image and its flipped copy.

        The features of both are added before they are compared with the clusters.
        """
        if valid is None:
            valid = jnp.ones(x.shape[:3], bool)
        widths = valid_size(valid)[:, 1]
        # An image and its flipped copy are neighbors, so that they stay on the same device.
        views, seen = (
            jnp.stack(both, 1).reshape(-1, *both[0].shape[1:])
            for both in ((x, flip_valid(x, widths)), (valid, valid))
        )
        found = self.backbone(views, seen, train=train)["conv6"].astype(jnp.float32)
        found = found.reshape(len(x), 2, *found.shape[1:])
        columns = -(-widths // self.backbone.tap_strides["conv6"])
        features = found[:, 0] + flip_valid(found[:, 1], columns)
        shape = (self.num_classes, self.clusters, features.shape[-1])
        return prototype_maps(
            features, self._clusters("foreground", shape), self._clusters("context", shape)
        )

    def _clusters(self, name: str, shape: tuple[int, ...]) -> Array:
        draw = nn.initializers.normal(1.0)
        return self.variable(
            "prototypes", name, lambda: draw(self.make_rng("params"), shape, jnp.float32)
        ).value


def prototype_maps(
    features: Float[Array, "b h w d"],
    prototypes: Float[Array, "c k d"],
    contexts: Float[Array, "c k d"],
) -> Float[Array, "b h w c"]:
    """Computes the mean cosine of features to prototypes minus that to contexts.

    Negative values become zero, but only for classes that have contexts, as in the published
    program. The maps of a class without prototypes are zero.

    Args:
      features: the features of each pixel.
      prototypes: the prototypes of each class; unused places are zero.
      contexts: the contexts of each class; unused places are zero.
    """
    # The mean of cosines is the product with the mean of unit vectors.
    directions = _mean_of_units(prototypes) - _mean_of_units(contexts)
    products = jnp.einsum(
        "bhwd,cd->bhwc", features, directions, precision=jax.lax.Precision.HIGHEST
    )
    maps = products / jnp.maximum(_norm(features), _LEAST_NORM)
    return jnp.where(jnp.any(contexts != 0, (1, 2)), jax.nn.relu(maps), maps)


def _mean_of_units(vectors: Float[Array, "c k d"]) -> Float[Array, "c d"]:
    norms = _norm(vectors)
    count = jnp.maximum((norms > 0).sum(1), 1)
    return (vectors / jnp.maximum(norms, _LEAST_NORM)).sum(1) / count


def _norm(x: Float[Array, "*rest d"]) -> Float[Array, "*rest 1"]:
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LpCam(Method):
    """LPCAM, which is not trained; the stage `prototypes` makes its network.

    The maps are those of an image and its flipped copy together, so inference needs no ``flip``.

    Attributes:
      clusters: the most prototypes and the most contexts of a class.
    """

    made_by: ClassVar[str] = "prototypes"

    clusters: int = 12

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_limits(self, clusters=(1, math.inf))

    def model(self) -> nn.Module:
        """Returns the network; see `LpCamNetwork`."""
        return LpCamNetwork(self.backbone.clone(dtype=self.dtype), self.num_classes, self.clusters)

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Refuses to be trained.

        Raises:
          UserError: always.
        """
        del step
        self.check_trained()
        raise AssertionError("unreachable")

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns the maps ``cam`` [b, h', w', C]; see `prototype_maps`."""
        cam: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": cam}
