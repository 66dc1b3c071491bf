"""RCM + MAM, pixel-level self-supervision for WSSS (arXiv 2112.05351).

An EMA teacher of the network gives the regions of an image, and prototypes of each class from
*other* images. The network's features are pulled toward these prototypes (regional contrast, RCM),
and its maps at several scales toward the teacher's maps (multi-scale attention, MAM).
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Aux, Method, Step, ema_update
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv
from wsss_jax.ops import prototypes as proto
from wsss_jax.ops.resize import resize_bilinear, resize_planes, scaled_size
from wsss_jax.settings.limits import check_limits, check_positive, check_shares


class PssNetwork(nn.Module):
    """A backbone, a 1×1 layer to the features for the contrast, and a 1×1 classifier.

    Attributes:
      backbone: the backbone.
      num_classes: the number of foreground classes C.
      features: the channels D of the features.
      dtype: the type of the convolutions; maps and features are float32.
    """

    backbone: Backbone
    num_classes: int
    features: int = 256
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Computes raw ``cam`` [b, h', w', C] and ``features`` [b, h', w', D]."""
        dtype = jnp.dtype(self.dtype)
        final = self.backbone(x, valid, train=train)["conv6"]
        xavier = nn.initializers.xavier_uniform()
        layer = Conv(self.features, 1, kernel_init=xavier, dtype=dtype, name="fc8")
        features = nn.relu(layer(final))
        cam = Conv(self.num_classes, 1, kernel_init=xavier, dtype=dtype, name="fc9")(features)
        return {"cam": cam.astype(jnp.float32), "features": features.astype(jnp.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pss(Method):
    """RCM + MAM; the defaults are the published ones.

    The published schedule has two training stages: the first has a `mam_weight` of 0, and the
    second starts from its weights (need ``init``). `mam_start` does both in one stage.

    Attributes:
      features: the channels of the features for the contrast.
      rcm_weight: the weight of L_RCM; 0 leaves it out.
      mam_weight: the weight of L_MAM; 0 leaves it out.
      mam_start: the step from which on L_MAM counts; it is computed before that step, too.
      threshold: the background score for the teacher's normalized maps.
      temperature: the temperature of the softmax over similarities.
      decay: the share of the EMA teacher that is kept at every step; 0 uses the network itself.
      prototypes: prototypes of the other images (``leave_one_out``) or of all (``batch_mean``).
      memory: the number of prototypes of earlier batches that are kept per class and used instead
        of the batch's, or 0 for none. A class without a prototype has the prototype zero, and its
        logit is 0.
      foreground_only: whether the background has no prototype; its pixels then do not count in
        L_RCM.
      attention: whether scales that disagree count more in L_MAM; otherwise all count the same.
      mask_scales: the scales of the teacher.
      map_scales: the scales of the network in L_MAM.
      region_stride: the image pixels per pixel of masks and contrast, which is 1 as published.
    """

    features: int = 256
    rcm_weight: float = 1.0
    mam_weight: float = 1.0
    mam_start: int = 0
    threshold: float = 0.3
    temperature: float = 0.5
    decay: float = 0.996
    prototypes: Literal["leave_one_out", "batch_mean"] = "leave_one_out"
    memory: int = 0
    foreground_only: bool = False
    attention: bool = True
    mask_scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    map_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    region_stride: int = 1
    head_lr: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range, or the teacher has no scale 1 or one twice.
        """
        super().__post_init__()
        check_limits(self, **dict.fromkeys(("features", "region_stride"), (1, math.inf)))
        weights = ("rcm_weight", "mam_weight", "memory")
        check_limits(self, **dict.fromkeys(weights, (0, math.inf)))
        check_positive(self, "temperature", "mask_scales", "map_scales")
        check_shares(self, "decay")
        if len(set(self.mask_scales)) < len(self.mask_scales):
            raise UserError(f"expected mask_scales, each once, found {self.mask_scales}: change it")
        if 1.0 not in self.mask_scales:
            raise UserError(f"expected 1.0 in mask_scales, found {self.mask_scales}: add it")

    def model(self) -> nn.Module:
        """Returns the network; see `PssNetwork`."""
        return PssNetwork(
            self.backbone.clone(dtype=self.dtype), self.num_classes, self.features, self.dtype
        )

    def init_extra(self, params: PyTree) -> PyTree:
        """Returns the ``ema_teacher`` (parameters) and ``queue``, prototypes [C + 1, m, D]."""
        extra: dict[str, Any] = {}
        if self.decay:
            extra["ema_teacher"] = jax.tree.map(jnp.copy, params)
        if self.memory:
            shape = (self.num_classes + 1, self.memory, self.features)
            extra["queue"] = jnp.zeros(shape, jnp.float32)
        return extra

    def after_step(self, step: Step, new_params: PyTree) -> PyTree:
        """Moves the EMA teacher toward the new parameters."""
        if not self.decay:
            return step.extra
        teacher = ema_update(step.extra["ema_teacher"], new_params, self.decay)
        return {**step.extra, "ema_teacher": teacher}

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes L = L_cls + rcm_weight·L_RCM + mam_weight·L_MAM."""
        extra, labels, variables = step.extra, step.batch["label"], step.variables
        images = self.normalized(step.batch["image"], step.batch["valid"])
        keys = jax.random.split(step.rng, len(self.map_scales) + 1)
        main = self._forward(variables, images, keys[0])
        loss = losses.multilabel_soft_margin(main["cam"].mean((1, 2)), labels)
        terms = {"cls": loss}
        maps = {"cam": main["cam"]}

        teacher = {**variables, "params": extra["ema_teacher"] if self.decay else step.params}
        teacher = jax.lax.stop_gradient(teacher)
        views = {s: self._forward(teacher, self._scaled(images, s)) for s in self.mask_scales}
        size = tuple(-(-n // self.region_stride) for n in images.shape[1:3])
        seen = [self._maps(view["cam"], labels, size) for view in views.values()]
        mask = proto.assign(jnp.stack(seen).sum(0), labels, self.threshold)
        maps["regions"] = jax.nn.one_hot(mask, self.num_classes + 1)

        if self.rcm_weight:
            features = _at(views[1.0]["features"], size)
            scale_1 = seen[self.mask_scales.index(1.0)]
            regions = proto.assign(scale_1, labels, self.threshold)
            prototypes, present = proto.class_prototypes(features, regions, self.num_classes + 1)
            if self.memory:
                # Only earlier batches count, so no image is compared with its own prototype.
                contrast = jnp.broadcast_to(proto.recalled(extra["queue"]), prototypes.shape)
                extra = {**extra, "queue": proto.remember(extra["queue"], prototypes, present)}
            elif self.prototypes == "batch_mean":
                contrast = proto.batch_mean(prototypes, present)
            else:
                contrast = proto.leave_one_out(prototypes, present)
            terms["rcm"] = self._regional_contrast(_at(main["features"], size), contrast, mask)
            loss = loss + self.rcm_weight * terms["rcm"]
        if self.mam_weight:
            half = max(images.shape[0] // 2, 1)
            own = []
            for scale, key in zip(self.map_scales, keys[1:], strict=True):
                view = self._forward(variables, self._scaled(images[:half], scale), key)
                own.append(self._maps(view["cam"], labels[:half], size))
            terms["mam"] = self._attentive(own, [m[:half] for m in seen])
            mam_weight = jnp.where(step.step >= self.mam_start, self.mam_weight, 0.0)
            loss = loss + mam_weight * terms["mam"]
        return loss, Aux(terms={"loss": loss, **terms}, maps=maps, extra=extra)

    def _forward(
        self, variables: PyTree, images: Float[Array, "b h w 3"], rng: PRNGKeyArray | None = None
    ) -> dict[str, Array]:
        """Computes the network's outputs, with dropout if there is an `rng`."""
        if rng is None:
            output: Any = self.model().apply(variables, images)
        else:
            output = self.model().apply(variables, images, train=True, rngs={"dropout": rng})
        return output

    @staticmethod
    def _scaled(images: Float[Array, "b h w 3"], scale: float) -> Float[Array, "b _h _w 3"]:
        size = scaled_size((images.shape[1], images.shape[2]), scale)
        return resize_bilinear(images, size, align_corners=True)

    @staticmethod
    def _maps(
        cam: Float[Array, "b p q c"], labels: Float[Array, "b c"], size: tuple[int, ...]
    ) -> Float[Array, "b c h w"]:
        """Resizes maps to `size` and keeps positive responses of present classes."""
        planes = resize_planes(jnp.moveaxis(cam, -1, 1), (size[0], size[1]), align_corners=False)
        return jax.nn.relu(planes) * labels[..., None, None]

    def _regional_contrast(
        self,
        features: Float[Array, "b h w d"],
        prototypes: Float[Array, "b n d"],
        mask: Array,
    ) -> Float[Array, ""]:
        """Computes L_RCM: pixels must resemble the prototype of their region more than others."""
        prototypes = jax.lax.stop_gradient(prototypes)
        similarity = jnp.einsum("bhwd,bnd->bhwn", proto.unit(features), prototypes)
        logits = similarity / self.temperature
        known = jnp.ones(mask.shape, jnp.float32)
        if self.foreground_only:
            known = (mask > 0).astype(jnp.float32)
            logits = logits[..., 1:]
            mask = jnp.maximum(mask - 1, 0)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), mask[..., None], -1)[..., 0]
        return -(picked * known).sum() / jnp.maximum(known.sum(), 1)

    def _attentive(
        self, own: list[Float[Array, "b c h w"]], teacher: list[Float[Array, "b c h w"]]
    ) -> Float[Array, ""]:
        """Computes L_MAM: maps at each scale must match a weighted mean of the teacher's maps."""
        total = jnp.zeros((), jnp.float32)
        for maps in own:
            target = jnp.zeros_like(maps)
            for other in teacher:
                weight = jnp.ones(maps.shape[:2])
                if self.attention:
                    weight = 2 - _cosine(maps, other)
                target = target + weight[..., None, None] * other / len(teacher)
            total = total + jnp.mean(jnp.abs(maps - jax.lax.stop_gradient(target)))
        return total

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns the raw maps ``cam`` [b, h', w', C]."""
        output: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": output["cam"]}


def _at(features: Float[Array, "b p q d"], size: tuple[int, ...]) -> Float[Array, "b h w d"]:
    return resize_bilinear(features, (size[0], size[1]), align_corners=False)


def _cosine(one: Float[Array, "b c h w"], other: Float[Array, "b c h w"]) -> Float[Array, "b c"]:
    """Returns the cosine of two maps as vectors of pixels; 0 if one of them is empty."""
    flat = (m.reshape(*m.shape[:2], -1) for m in (one, other))
    first, second = (proto.unit(m) for m in flat)
    return jnp.sum(first * second, -1)
