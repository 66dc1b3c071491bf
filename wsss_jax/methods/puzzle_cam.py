"""Puzzle-CAM, whose maps of an image and of its tiles agree (Jo & Yu, ICIP 2021, arXiv 2101.11253).

An image and its four quarters go through one network. The maps of the quarters, put together, have
to classify the image as well, and to equal the maps of the whole image.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.methods.cam import CamNetwork
from wsss_jax.models.layers import HE
from wsss_jax.ops.max_norm import max_norm
from wsss_jax.ops.tiles import cut_tiles, merge_tiles
from wsss_jax.settings.limits import check_limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleCam(Method):
    """Puzzle-CAM; the defaults are the published ones.

    With a ``bn_momentum``, the batch norm of the backbone is trained. The images and their tiles
    are two batches then: each is normalized with its own statistics, and the running statistics
    follow the images first and then the tiles.

    Attributes:
      alpha: the weight of the reconstruction loss L_re.
      ramp: the share of the training in which this weight rises linearly from 0.
      distance: the distance of two values in L_re: ``l1``, the absolute difference, or ``l2``, its
        square.
      classes: the classes in L_re. Those that an image does not show are zeros in the mean over all
        classes (``masked``), are left out of it (``present``), or count like the others (``all``).
      normalized_maps: whether the maps are normalized to 0…1 per image and class before the merged
        ones are classified and both are compared; otherwise they are raw.
      dropout: the rate of the channel dropout before the classifier.
    """

    trains_batch_norm: ClassVar[bool] = True

    alpha: float = 4.0
    ramp: float = 0.5
    distance: Literal["l1", "l2"] = "l1"
    classes: Literal["masked", "present", "all"] = "masked"
    normalized_maps: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_limits(self, alpha=(0, math.inf), ramp=(0, 1))

    def batch_spec(self) -> BatchSpec:
        """Asks for crops whose tiles have maps of whole pixels."""
        return BatchSpec(crop_multiple=2 * self.stride("cam"))

    def model(self) -> CamNetwork:
        """Returns the network; see `CamNetwork`."""
        backbone = self.backbone.clone(dtype=self.dtype)
        return CamNetwork(backbone, self.num_classes, self.dropout, self.dtype, HE)

    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Renames the layers of the authors' program.

        The backbone is ``model`` there, and is saved once more as ``stage1`` to ``stage5``.
        """
        return {
            re.sub(r"^model\.", "", re.sub(r"^classifier\.", "fc8.", name)): array
            for name, array in arrays.items()
            if not re.match(r"stage\d\.", name)
        }

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes L = L_cls + L_p-cls + a·L_re, where a rises to `alpha`; see `terms`."""
        images = self.normalized(step.batch["image"], step.batch["valid"])
        cam, merged, model_state = self.maps(step.variables, images, step.rng)
        terms = self.terms(cam, merged, step.batch["label"])
        terms["alpha"] = self.weight(step.step, step.total_steps)
        loss = terms["cls"] + terms["p_cls"] + terms["alpha"] * terms["re"]
        maps = {"cam": cam, "cam_tiles": merged}
        return loss, Aux(terms=terms, maps=maps, model_state=model_state)

    def maps(
        self, variables: PyTree, images: Float[Array, "b h w 3"], rng: PRNGKeyArray
    ) -> tuple[Float[Array, "b p q c"], Float[Array, "b p q c"], PyTree]:
        """Computes the raw maps of normalized images and the merged maps of their tiles.

        Returns:
          Both maps, and the other variables of the network after the two passes.
        """
        model_state = {name: tree for name, tree in variables.items() if name != "params"}
        found: list[Array] = []
        for number, batch in enumerate((images, cut_tiles(images))):
            maps: Any
            maps, changed = self.model().apply(
                {"params": variables["params"], **model_state},
                batch,
                train=True,
                rngs={"dropout": jax.random.fold_in(rng, number)},
                mutable=["batch_stats"],
            )
            model_state = {**model_state, **changed}
            found.append(maps)
        return found[0], merge_tiles(found[1]), model_state

    def terms(
        self,
        cam: Float[Array, "b p q c"],
        merged: Float[Array, "b p q c"],
        labels: Float[Array, "b c"],
    ) -> dict[str, Array]:
        """Computes the terms of the loss from raw maps of images and merged maps of tiles.

        Returns:
          ``cls`` and ``p_cls``, the classification losses of the two, and ``re``, their distance.
        """
        cls = losses.multilabel_soft_margin(cam.mean((1, 2)), labels)
        whole, parts = jnp.moveaxis(cam, -1, 1), jnp.moveaxis(merged, -1, 1)
        if self.normalized_maps:
            whole, parts = max_norm(whole), max_norm(parts)
        p_cls = losses.multilabel_soft_margin(parts.mean((2, 3)), labels)
        difference = jnp.abs(whole - parts)
        if self.distance == "l2":
            difference = jnp.square(difference)
        distances = difference.mean((2, 3))
        if self.classes != "all":
            distances = distances * labels
        if self.classes == "present":  # an image without classes has no distance
            distances = distances.sum(1) / jnp.maximum(labels.sum(1), 1)
        return {"cls": cls, "p_cls": p_cls, "re": distances.mean()}

    def weight(self, step: Array, total_steps: int) -> Array:
        """Returns the weight of L_re in a step; it does not rise if the length is unknown."""
        rising = self.ramp * total_steps
        return self.alpha * (jnp.minimum(step / rising, 1.0) if rising else jnp.ones(()))

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns the raw maps ``cam`` [b, h', w', C] of whole images."""
        cam: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": cam}
