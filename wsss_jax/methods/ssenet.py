"""SSENet, self-supervised scale equivariance (arXiv 1909.03714).

An image and a smaller copy go through one network, and the maps of the copy have to match the maps
of the image at the smaller size.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from wsss_jax import losses
from wsss_jax.losses.present_classes import on_present_classes
from wsss_jax.methods.cam import Cam
from wsss_jax.ops.max_norm import max_norm
from wsss_jax.ops.resize import resize_bilinear, resize_planes, resized_mean, scaled_size
from wsss_jax.settings.limits import check_limits, check_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class SseNet(Cam):
    """SSENet with the network of `Cam`; the defaults are the published ones.

    Attributes:
      small_scale: the size of the second image relative to the first.
      ser_weight: the weight of the equivariance loss L_SER.
    """

    small_scale: float = 0.3
    ser_weight: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_positive(self, "small_scale")
        check_limits(self, ser_weight=(0, math.inf))

    def objective(
        self,
        variables: PyTree,
        images: Float[Array, "b h w 3"],
        labels: Float[Array, "b c"],
        rng: PRNGKeyArray,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Computes L = ½·L_cls + ½·L_cls of the copy + ser_weight·L_SER.

        Returns:
          The loss, its terms, of which that of L_SER has no gradient of its own, and upsampled
          maps.
        """
        size = (images.shape[1], images.shape[2])
        small_size = scaled_size(size, self.small_scale)
        small = resize_bilinear(images, small_size, align_corners=False)
        keys = jax.random.split(rng)
        cam = self._maps(variables, images, keys[0])
        cam_small = self._maps(variables, small, keys[1])
        cls, cls_small = (
            losses.multilabel_soft_margin(resized_mean(m, to, align_corners=False), labels)
            for m, to in ((cam, size), (cam_small, small_size))
        )
        equivariance = functools.partial(self._equivariance, size=size, small_size=small_size)
        rest, terms = on_present_classes(equivariance, (cam, cam_small), labels, background=False)
        loss = (cls + cls_small) / 2 + rest
        terms = {"loss": loss, "cls": cls, "cls_s": cls_small, **jax.lax.stop_gradient(terms)}
        maps = {
            name: jnp.moveaxis(resize_planes(m, to, align_corners=False), 1, -1)
            for name, m, to in (("cam", cam, size), ("cam_small", cam_small, small_size))
        }
        return loss, terms, maps

    def _equivariance(
        self,
        maps: tuple[Array, ...],
        labels: Float[Array, "b k"],
        size: tuple[int, int],
        small_size: tuple[int, int],
    ) -> tuple[Array, dict[str, Array]]:
        """Computes ser_weight·L_SER from maps [b, k, h, w], where absent classes may be missing."""
        cam = resize_planes(maps[0], size, align_corners=False)
        small = resize_planes(maps[1], small_size, align_corners=False)
        present = labels[..., None, None]
        target = max_norm(resize_planes(cam, small_size, align_corners=False)) * present
        difference = max_norm(small) * present - target
        # The mean is over all classes.
        ser = jnp.mean(jnp.square(difference)) * (labels.shape[1] / self.num_classes)
        return self.ser_weight * ser, {"ser": ser}

    def _maps(
        self, variables: PyTree, images: Float[Array, "b h w 3"], rng: PRNGKeyArray
    ) -> Float[Array, "b c p q"]:
        cam: Any = self.model().apply(variables, images, train=True, rngs={"dropout": rng})
        return jnp.moveaxis(cam, -1, 1)
