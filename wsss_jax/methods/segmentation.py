"""Segmentation network trained on masks: ground truth (the upper bound) or pseudo labels.

DeepLab v1 with a large field of view, v2 and v3+ on any backbone; see `wsss_jax.models.heads`.
Beside the masks, which may be wrong, the network can learn from the image's labels, which are not.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses, models
from wsss_jax.errors import UserError
from wsss_jax.methods import base
from wsss_jax.models.heads import Aspp, LargeFov, Presence, V3Plus
from wsss_jax.ops.resize import resize_bilinear, scaled_size
from wsss_jax.types import Aux, Batch, ParamRule

HEADS: Mapping[str, Any] = {"large_fov": LargeFov, "aspp": Aspp, "v3plus": V3Plus}
"""DeepLab v1, v2 and v3+."""


class SegmentationNetwork(nn.Module):
    """A backbone, a head for the pixels and, if asked for, one for the image.

    Attributes:
      backbone_fields: description of the backbone, see `wsss_jax.models.build`.
      head_fields: ``name`` of the head (see `HEADS`) and its fields.
      num_classes: foreground classes C; there are C + 1 logits, 0 is background.
      presence: whether there is a head that says which classes the image has.
      dtype: of the convolutions; logits are float32.
    """

    backbone_fields: Mapping[str, Any]
    head_fields: Mapping[str, Any]
    num_classes: int
    presence: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """With `train` batch statistics are used and updated.

        Returns:
          ``logits`` [b, p, q, C + 1] at the head's stride; ``presence`` [b, C] where asked for.
        """
        dtype = jnp.dtype(self.dtype)
        backbone = models.build({"dtype": dtype, **self.backbone_fields}, name="backbone")
        fields = dict(self.head_fields)
        cls = HEADS[fields.pop("name")]
        head = cls(self.num_classes + 1, dtype=dtype, name="head", **fields)
        taps = backbone(x, valid, train=train)
        found = {"logits": head(taps, valid, train=train)}
        if self.presence:
            found["presence"] = Presence(self.num_classes, name="presence")(taps, valid)
        return found


@dataclasses.dataclass(frozen=True)
class Segmentation(base.Method):
    """Hyper-parameters of the segmentation network.

    Attributes:
      num_classes: foreground classes C.
      backbone: description of the backbone, see `wsss_jax.models.build`; its ``bn_momentum`` trains
        the batch norm of the backbone too.
      head: ``name`` (``large_fov``, ``aspp``, ``v3plus``) and fields, see `wsss_jax.models.heads`.
      loss_scales: further sizes of the input, relative to the crop, whose logits, and the maximum
        of all, are supervised too (DeepLabv2: 0.5 and 0.75).
      balanced: background and foreground pixels count one half each, however many there are.
      presence_weight: above 0 a second head learns from the labels which classes an image has, with
        this weight of its loss. In use, a class's probability in every pixel is multiplied by that
        of its presence (the image-level prior of Pinheiro & Collobert, CVPR 2015) over that of the
        most probable class: which classes are there, not how much of the image they fill.
      ema: above 0 the network in use is the running average of the trained one, of which this
        share is kept at every step (0.999, say).
      dtype: see `SegmentationNetwork`.
      head_lr: learning rate of the head relative to the backbone's.
    """

    num_classes: int
    backbone: Mapping[str, Any]
    head: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "large_fov"})
    loss_scales: tuple[float, ...] = ()
    balanced: bool = False
    presence_weight: float = 0.0
    ema: float = 0.0
    dtype: str = "float32"
    head_lr: float = 10.0

    def __post_init__(self) -> None:
        """Checks the head, the weight and the average.

        Raises:
          UserError: an unknown head or field of it, a negative weight, or `ema` is no share.
        """
        fields = dict(self.head)
        name = fields.pop("name", None)
        if name not in HEADS:
            raise UserError(
                f"expected head.name to be one of {', '.join(HEADS)}, found {name!r}: change it"
            )
        known = set(HEADS[name].__dataclass_fields__) - {"parent", "name", "outputs", "dtype"}
        if not fields.keys() <= known:
            raise UserError(
                f"expected fields of the head {name!r} among {sorted(known)}, found"
                f" {sorted(fields.keys() - known)}: remove or correct them"
            )
        if self.presence_weight < 0:
            raise UserError(
                f"expected presence_weight of 0 or more, found {self.presence_weight}: change it"
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"expected ema from 0 to below 1, found {self.ema}: change it")

    def model(self) -> nn.Module:
        """The network; see `SegmentationNetwork`."""
        presence = self.presence_weight > 0
        return SegmentationNetwork(
            dict(self.backbone), dict(self.head), self.num_classes, presence, self.dtype
        )

    def param_rules(self) -> tuple[ParamRule, ...]:
        """Four groups: new layers at `head_lr` times the rate, biases at twice without decay."""
        return base.four_groups(self.backbone, self.head_lr)

    def init_extra(self, params: PyTree) -> PyTree:
        """The average of the parameters, where one is kept."""
        # A copy: the step donates the parameters' buffers.
        return jax.tree.map(jnp.copy, params) if self.ema else ()

    def after_step(self, extra: PyTree, params: PyTree) -> PyTree:
        """The average moves towards the new parameters."""
        if not self.ema:
            return extra
        return jax.tree.map(lambda old, new: self.ema * old + (1 - self.ema) * new, extra, params)

    def inference_params(self, params: PyTree, extra: PyTree) -> PyTree:
        """The average, where one is kept."""
        return extra if self.ema else params

    def loss(
        self,
        params: PyTree,
        state: PyTree,
        batch: Batch,
        rng: PRNGKeyArray,
        step: Array,
        extra: PyTree = (),
    ) -> tuple[Array, Aux]:
        """Cross entropy at the image's size, 255 is ignored, and of the labels where asked for.

        Both are means over `loss_scales`, of the labels without the maximum.
        """
        del step
        images = base.network_input(batch["image"], batch["valid"], self.backbone)
        size = (images.shape[1], images.shape[2])
        outputs: list[Array] = []
        presences: list[Array] = []
        for number, scale in enumerate((1.0, *self.loss_scales)):
            scaled = resize_bilinear(images, scaled_size(size, scale), align_corners=True)
            found: Any
            found, new_state = self.model().apply(
                {"params": params, **state},
                scaled,
                train=True,
                rngs={"dropout": jax.random.fold_in(rng, number)},
                mutable=["batch_stats"],
            )
            state = {**state, **new_state}
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
        return loss, Aux(terms=terms, state=state, maps=maps, extra=extra)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """``logits`` [b, h', w', C + 1] at the head's stride, the image's presences in them."""
        inputs = base.network_input(images, valid, self.backbone)
        found: Any = self.model().apply(variables, inputs, valid)
        logits = found["logits"]
        if "presence" in found:
            prior = jax.nn.log_sigmoid(found["presence"])
            prior -= prior.max(1, keepdims=True)
            logits = logits.at[..., 1:].add(prior[:, None, None])
        return {"logits": logits}


Method = Segmentation
