"""A segmentation network trained on masks, either ground truth (the upper bound) or pseudo labels.

There are DeepLab v1 with a large field of view, v2 and v3+, on any backbone; see
`wsss_jax.models.heads`. Besides masks, which may be wrong, the network can learn from image-level
labels, which are right.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.methods.base import Aux, Method, Step, ema_update
from wsss_jax.models.base import Backbone
from wsss_jax.models.heads.base import Head
from wsss_jax.models.heads.large_fov import LargeFov
from wsss_jax.models.heads.presence import Presence
from wsss_jax.ops.resize import resize_bilinear, scaled_size
from wsss_jax.settings.limits import check_limits, check_positive, check_shares

_DEEPLAB_V1 = {
    "conv_fov": "head.layer_0.conv.",
    "bn_fov": "head.layer_0.norm.",
    "conv_fov2": "head.layer_1.conv.",
    "bn_fov2": "head.layer_1.norm.",
    "cls_conv": "head.classifier.",
}
"""Our names of the layers of the head in the segmentation program of SEAM's authors."""


class SegmentationNetwork(nn.Module):
    """A backbone, a head for the pixels and, optionally, one for the image.

    Attributes:
      backbone: the backbone.
      head: the head for the logits of C + 1 classes, where 0 is the background.
      presence: the head that predicts which classes the image shows, if there is one.
    """

    backbone: Backbone
    head: Head
    presence: Presence | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Computes logits; with `train`, batch statistics are used and updated.

        Returns:
          ``logits`` [b, p, q, C + 1] at the head's stride, and ``presence`` [b, C] if there is such
          a head.
        """
        taps = self.backbone(x, valid, train=train)
        strides = self.backbone.tap_strides
        found = {"logits": self.head(taps, strides, valid, train=train)}
        if self.presence is not None:
            found["presence"] = self.presence(taps, strides, valid)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(Method):
    """The segmentation network.

    Attributes:
      num_classes: the number of foreground classes C.
      backbone: the network under the head; its ``bn_momentum`` trains its batch norm too.
      head: the head from features to logits; see `wsss_jax.models.heads`.
      loss_scales: further sizes of the input relative to the crop. Their logits, and the maximum of
        all logits, are supervised too. DeepLabv2 has 0.5 and 0.75.
      balanced: whether background and foreground each count for half of the loss, however many
        pixels they have.
      presence_weight: the weight of the loss of a second head, which learns from the labels which
        classes an image shows; 0 for none. At inference, the probability of a class in every pixel
        is multiplied by that of its presence (the image-level prior of Pinheiro & Collobert, CVPR
        2015), divided by that of the most probable class.
      ema: the share of the EMA teacher that is kept at every step, such as 0.999; the teacher is
        used at inference. 0 for none.
    """

    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    trains_batch_norm: ClassVar[bool] = True
    enough_steps: ClassVar[int] = 600

    head: Head = dataclasses.field(default_factory=LargeFov)
    loss_scales: tuple[float, ...] = ()
    balanced: bool = False
    presence_weight: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a weight is negative, a scale is not above 0, or `ema` is not a share.
        """
        super().__post_init__()
        check_limits(self, presence_weight=(0, math.inf))
        check_positive(self, "loss_scales")
        check_shares(self, "ema")

    def batch_spec(self) -> BatchSpec:
        """Asks for masks."""
        return BatchSpec(segmentation=True)

    def model(self) -> nn.Module:
        """Returns the network; see `SegmentationNetwork`."""
        return SegmentationNetwork(
            self.backbone.clone(dtype=self.dtype),
            self.head.clone(outputs=self.num_classes + 1, dtype=self.dtype),
            Presence(self.num_classes) if self.presence_weight else None,
        )

    def init_extra(self, params: PyTree) -> PyTree:
        """Returns the EMA teacher if there is one."""
        return jax.tree.map(jnp.copy, params) if self.ema else ()

    def after_step(self, step: Step, new_params: PyTree) -> PyTree:
        """Moves the EMA teacher toward the new parameters."""
        return ema_update(step.extra, new_params, self.ema) if self.ema else step.extra

    def inference_params(self, params: PyTree, extra: PyTree) -> PyTree:
        """Returns the EMA teacher if there is one, and otherwise the parameters."""
        return extra if self.ema else params

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes the cross entropy at the image's size, and the loss of presence if there is one.

        Pixels of value 255 are ignored. Both losses are means over `loss_scales`; only the cross
        entropy includes the maximum of the logits.
        """
        batch, model_state = step.batch, step.model_state
        images = self.normalized(batch["image"], batch["valid"])
        size = (images.shape[1], images.shape[2])
        outputs: list[Array] = []
        presences: list[Array] = []
        for number, scale in enumerate((1.0, *self.loss_scales)):
            scaled = resize_bilinear(images, scaled_size(size, scale), align_corners=True)
            found: Any
            found, changed = self.model().apply(
                {"params": step.params, **model_state},
                scaled,
                train=True,
                rngs={"dropout": jax.random.fold_in(step.rng, number)},
                mutable=["batch_stats"],
            )
            model_state = {**model_state, **changed}
            outputs.append(resize_bilinear(found["logits"], size, align_corners=True))
            presences += [found["presence"]] if "presence" in found else []
        if self.loss_scales:
            outputs.append(functools.reduce(jnp.maximum, outputs))
        entropy = losses.balanced_cross_entropy if self.balanced else losses.masked_cross_entropy
        loss = jnp.stack([entropy(logits, batch["segmentation"]) for logits in outputs]).mean()
        terms = {"ce": loss}
        if presences:
            terms["presence"] = jnp.stack(
                [losses.multilabel_soft_margin(logits, batch["label"]) for logits in presences]
            ).mean()
            loss += self.presence_weight * terms["presence"]
        maps = {"segmentation": outputs[0]}
        return loss, Aux(terms=terms, maps=maps, model_state=model_state)

    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Renames the layers of the DeepLabv1 with which SEAM's authors train."""
        return {
            re.sub(
                r"^(\w+)\.",
                lambda match: _DEEPLAB_V1.get(match[1], match[0]),
                name.removeprefix("backbone."),
            ): array
            for name, array in arrays.items()
        }

    def stride(self, output: str) -> int:
        """See `wsss_jax.methods.base.Method`."""
        del output
        return self.head.stride(self.backbone.tap_strides)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns ``logits`` [b, h', w', C + 1] at the head's stride, with the presence prior."""
        inputs = self.normalized(images, valid)
        found: Any = self.model().apply(variables, inputs, valid)
        logits = found["logits"]
        if "presence" in found:
            prior = jax.nn.log_sigmoid(found["presence"])
            prior -= prior.max(1, keepdims=True)
            logits = logits.at[..., 1:].add(prior[:, None, None])
        return {"logits": logits}
