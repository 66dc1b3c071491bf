"""ECS-Net, erased CAM supervision (Sun et al., ICCV 2021).

An image, and a copy without what the network responds to most, go through one network. The maps of
the copy show the rest of the objects. Where they are reliable, they become pixel labels, which
supervise the refined maps of the image. The paper leaves many choices open, and each of them is a
field here.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.models.base import Backbone
from wsss_jax.models.dilated_overlay import DilatedOverlay
from wsss_jax.models.layers import downsample_valid, mask_features
from wsss_jax.models.pcm_features import correlation_features
from wsss_jax.models.taps import map_size, to_stride
from wsss_jax.ops import erasing
from wsss_jax.ops.max_norm import max_norm, min_max_norm, with_background
from wsss_jax.ops.pixel_correlation import pixel_correlation
from wsss_jax.ops.reliable_labels import reliable_labels
from wsss_jax.settings.limits import check_limits, check_positive

_ABSENT = -1e4
"""The logit of a class that the image does not show, which makes its probability exactly zero."""


class EcsNetwork(nn.Module):
    """A backbone, overlaid dilated classifiers, and a refinement by pixel correlation.

    Attributes:
      backbone: the backbone.
      num_classes: the number of foreground classes C.
      dilations: the dilations of the 3×3 classifiers. The first makes the maps of the image; the
        maps of the erased image also have the mean of the others.
      overlay_both: whether the maps of the image have this mean too.
      dims: the channels of the layers for the correlation; see `correlation_features`.
      dropout: the rate of the channel dropout before the classifiers.
      map_stride: the image pixels per pixel of the maps; 0 means the backbone's stride. A smaller
        one upsamples the maps before the refinement, which then follows finer features.
      train_maps: whether gradients of the refined maps flow beyond the refinement; in SEAM they do
        not.
      dtype: the type of the convolutions; maps and refinement are float32.
    """

    backbone: Backbone
    num_classes: int
    dilations: tuple[int, ...] = (1, 3, 6, 9)
    overlay_both: bool = False
    dims: tuple[int, int, int] = (64, 128, 192)
    dropout: float = 0.5
    map_stride: int = 0
    train_maps: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
        labels: Float[Array, "b c"] | None = None,
        erased: bool = False,
    ) -> dict[str, Array]:
        """Computes maps at `map_stride`.

        Args:
          x: normalized images.
          valid: the top-left rectangle of each image that is not padding.
          train: turns on dropout, which needs a ``dropout`` key.
          labels: the classes that may take pixels from the background; None means all. The refined
            map of a class does not depend on them.
          erased: whether the images are erased ones, for which there are no refined maps.

        Returns:
          The raw scores ``cam`` [b, h', w', C], and the scores ``refined`` [b, h', w', 1 + C] in
          0…1 with the background first.
        """
        dtype = jnp.dtype(self.dtype)
        taps = self.backbone(x, valid, train=train)
        final = taps["conv6"]
        final = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(final, deterministic=not train)
        strides = self.backbone.tap_strides
        final = mask_features(final, downsample_valid(valid, strides["conv6"]))
        head = DilatedOverlay(self.num_classes, self.dilations, dtype, name="fc8")
        cam = head(final, overlaid=erased or self.overlay_both)
        stride = self.map_stride or strides["conv6"]
        size = map_size((x.shape[1], x.shape[2]), stride)
        cam = to_stride(cam, strides["conv6"], stride, size, valid)
        if erased:
            return {"cam": cam}

        map_valid = downsample_valid(valid, stride)
        features = correlation_features(x, taps, strides, stride, valid, self.dims, dtype)
        foreground = max_norm(jnp.moveaxis(cam, -1, 1), map_valid)
        if not self.train_maps:
            foreground = jax.lax.stop_gradient(foreground)
        if labels is not None:
            foreground = foreground * labels[..., None, None]
        scores = jnp.moveaxis(with_background(foreground), 1, -1)
        return {"cam": cam, "refined": pixel_correlation(features, scores, map_valid)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EcsNet(Method):
    """ECS-Net.

    The paper specifies the two passes with shared weights, the single erasure where the strongest
    normalized map exceeds a threshold, the dilated overlay, the refinement, and the supervision by
    reliable pixels. The values below are this program's own.

    Labels and their loss have the stride of the maps. Labels at the image's size would be the same
    but interpolated, and would take many times the memory.

    Attributes:
      fill: what erased pixels show. ``blur`` removes the texture and keeps the color, so that the
        copy still looks like a photograph; ``mean`` (the mean color) and ``noise`` remove both.
      fill_sigma: the standard deviation of the blur as a share of the crop's width, larger than the
        details that distinguish classes and smaller than objects.
      erase_threshold: the normalized response from which on a pixel is erased, so that most of the
        discriminative part disappears but not the object. Above 1, nothing is erased.
      dilations: the dilations of the 3×3 classifiers, for features of stride 8. The first makes the
        maps of the image; the maps of the erased copy also have the mean of the others.
      overlay_both: whether the maps of the image have this mean too.
      tau_fg: the response of the erased copy from which on a pixel is labeled with its class.
      tau_bg: the response below which a pixel is background; pixels between are ignored.
      suppression: which of these labels are dropped as noise; see `reliable_labels`. ``agree``
        drops those that the image's own maps contradict with another class.
      label_weight: the weight λ of the loss of labels.
      label_start: the step from which on this loss counts; at 0, the first guesses of the maps
        become labels too.
      balanced: whether background and foreground each count for half of the loss of labels, even
        though most labeled pixels are background.
      temperature: the temperature of the softmax over refined maps. These lie in 0…1, where a
        softmax of temperature 1 is never near certainty. A logarithm of the maps themselves would
        have an unbounded gradient.
      erased_weight: the weight of the classification loss of the copy. The rest of the object has
        to be recognized; otherwise its maps have no meaning.
      train_maps: whether the labels also train classifiers and backbone through the refinement.
        This spreads the maps until they fill the image; see docs/methods.
      dims: the channels of the layers for the correlation.
      dropout: the rate of the channel dropout before the classifiers.
      map_stride: the image pixels per pixel of the maps; 0 means the backbone's stride. A smaller
        one upsamples the maps before the refinement, which then follows finer features.
    """

    outputs: ClassVar[tuple[str, ...]] = ("cam", "cam_main")

    fill: Literal["blur", "mean", "noise"] = "blur"
    fill_sigma: float = 0.04
    erase_threshold: float = 0.6
    dilations: tuple[int, ...] = (1, 3, 6, 9)
    overlay_both: bool = False
    tau_fg: float = 0.5
    tau_bg: float = 0.1
    suppression: Literal["none", "threshold", "agree", "consistent"] = "agree"
    label_weight: float = 1.0
    label_start: int = 0
    balanced: bool = True
    temperature: float = 0.1
    erased_weight: float = 1.0
    train_maps: bool = False
    dims: tuple[int, int, int] = (64, 128, 192)
    dropout: float = 0.5
    map_stride: int = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_positive(self, "fill_sigma", "erase_threshold", "temperature", "dims", "dilations")
        none_or_more = dict.fromkeys(("label_weight", "erased_weight", "map_stride"), (0, math.inf))
        check_limits(self, **none_or_more)
        if self.tau_bg > self.tau_fg:
            raise UserError(
                f"expected tau_bg <= tau_fg, found {self.tau_bg} and {self.tau_fg}: lower tau_bg"
            )
        if not self.dilations or len(set(self.dilations)) < len(self.dilations):
            raise UserError(f"expected dilations, each once, found {self.dilations}: change them")

    def model(self) -> nn.Module:
        """Returns the network; see `EcsNetwork`."""
        return EcsNetwork(
            self.backbone.clone(dtype=self.dtype),
            self.num_classes,
            self.dilations,
            self.overlay_both,
            self.dims,
            self.dropout,
            self.map_stride,
            self.train_maps,
            self.dtype,
        )

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes L = L_cls + erased_weight·L_cls of the copy + label_weight·L_label.

        Noise depends on the key of the step and on the ``index`` of the image, and not on the
        image's place in the batch.
        """
        batch, variables = step.batch, step.variables
        labels, valid = batch["label"], batch["valid"]
        images = self.normalized(batch["image"], valid)
        keys = jax.random.split(step.rng, 3)
        own = self._forward(variables, images, keys[0], labels=labels)
        height, width = own["cam"].shape[1:3]
        seen = erasing.valid_at_maps(valid, (height, width))
        normal = self._normalized(own["cam"], labels, seen)
        region = erasing.hot_region(normal, valid, self.erase_threshold)
        noise = jax.vmap(lambda index: jax.random.fold_in(keys[2], index))(batch["index"])
        sigma = self.fill_sigma * images.shape[2]
        fill = erasing.fill_colors(images, valid, self.fill, sigma, noise)
        copy = jnp.where(region[..., None], fill, images)
        copy_cam = self._forward(variables, copy, keys[1], erased=True)["cam"]
        rule = self.suppression, self.tau_fg, self.tau_bg
        copy_normal = self._normalized(copy_cam, labels, seen)
        masks = reliable_labels(copy_normal, normal, labels, seen, *rule)
        terms = {
            "cls": losses.multilabel_soft_margin(own["cam"].mean((1, 2)), labels),
            "cls_erased": losses.multilabel_soft_margin(copy_cam.mean((1, 2)), labels),
            "label": self._label_loss(own["refined"], masks, labels),
        }
        label_weight = jnp.where(step.step >= self.label_start, self.label_weight, 0.0)
        loss = (
            terms["cls"] + self.erased_weight * terms["cls_erased"] + label_weight * terms["label"]
        )
        maps = {
            **own,
            "cam_erased": copy_cam,
            "labels": jax.nn.one_hot(masks, self.num_classes + 1),
        }
        return loss, Aux(terms={"loss": loss, **terms}, maps=maps)

    def _forward(
        self, variables: PyTree, images: Array, rng: PRNGKeyArray, **how: Any
    ) -> dict[str, Array]:
        rngs = {"dropout": rng}
        return self.model().apply(variables, images, train=True, rngs=rngs, **how)  # pyright: ignore

    @staticmethod
    def _normalized(
        cam: Float[Array, "b h w c"], labels: Float[Array, "b c"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b c h w"]:
        """Returns maps in 0…1 of the present classes, without gradient."""
        planes = jnp.moveaxis(jax.lax.stop_gradient(cam), -1, 1)
        return min_max_norm(planes, valid) * labels[..., None, None]

    def _label_loss(
        self,
        refined: Float[Array, "b h w c1"],
        masks: UInt8[Array, "b h w"],
        labels: Float[Array, "b c"],
    ) -> Float[Array, ""]:
        """Computes the cross entropy of refined maps over background and classes of the image."""
        there = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=1) > 0
        logits = jnp.where(there[:, None, None], refined / self.temperature, _ABSENT)
        if self.balanced:
            return losses.balanced_cross_entropy(logits, masks)
        return losses.masked_cross_entropy(logits, masks)

    def stride(self, output: str) -> int:
        """See `wsss_jax.methods.base.Method`."""
        return self.map_stride or super().stride(output)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Predicts foreground maps at the stride of the maps, with corners aligned.

        Returns:
          The refined maps ``cam`` [b, h', w', C], and ``cam_main``, the raw scores of the
          classifier.
        """
        output: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": output["refined"][..., 1:], "cam_main": output["cam"]}
