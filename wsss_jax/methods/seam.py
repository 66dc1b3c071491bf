"""SEAM, self-supervised equivariant attention (CVPR 2020, arXiv 2004.04581).

An image and a smaller copy go through one network. Its activation maps, and the maps that the pixel
correlation module makes from them, have to agree across the two scales, where each supervises the
other. The copy may also be flipped, rotated or translated.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.errors import UserError
from wsss_jax.losses.present_classes import on_present_classes
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv, downsample_valid
from wsss_jax.models.pcm_features import correlation_features
from wsss_jax.models.taps import map_size, to_stride
from wsss_jax.ops import transforms
from wsss_jax.ops.max_norm import min_max_norm, winner_only, with_background
from wsss_jax.ops.pixel_correlation import pixel_correlation, pixel_correlation_input
from wsss_jax.ops.resize import resize_bilinear, resize_planes, resized_mean, scaled_size
from wsss_jax.settings.limits import check_limits, check_positive


class SeamNetwork(nn.Module):
    """A backbone, a classifier with a background channel, and pixel correlation.

    Attributes:
      backbone: the backbone.
      num_classes: the number of foreground classes C.
      dims: the channels of the 1×1 layers for the features of the correlation (f8_3, f8_4, f9).
      dropout: the rate of the channel dropout before the classifier.
      use_pcm: whether there is a correlation; otherwise the revised maps are the maps themselves.
      map_stride: the image pixels per pixel of the maps; 0 means the backbone's stride. A smaller
        one upsamples the maps before the correlation, which then follows finer features.
      dtype: the type of the convolutions; maps and correlation are float32.
    """

    backbone: Backbone
    num_classes: int
    dims: tuple[int, int, int] = (64, 128, 192)
    dropout: float = 0.5
    use_pcm: bool = True
    map_stride: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Computes maps at the network's stride.

        Args:
          x: normalized images.
          valid: the top-left rectangle of each image that is not padding.
          train: turns on dropout, which needs a ``dropout`` key.

        Returns:
          The raw scores ``cam`` and ``cam_rv`` [b, h', w', C + 1], where channel 0 is the
          background.
        """
        dtype = jnp.dtype(self.dtype)
        taps = self.backbone(x, valid, train=train)
        final = taps["conv6"]
        strides = self.backbone.tap_strides
        stride = self.map_stride or strides["conv6"]
        size = map_size((x.shape[1], x.shape[2]), stride)
        map_valid = downsample_valid(valid, stride)
        dropped = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(final, deterministic=not train)
        xavier = nn.initializers.xavier_uniform()
        cam = Conv(self.num_classes + 1, 1, kernel_init=xavier, dtype=dtype, name="fc8")(dropped)
        cam = to_stride(cam.astype(jnp.float32), strides["conv6"], stride, size, valid)
        if not self.use_pcm:
            return {"cam": cam, "cam_rv": cam}

        features = correlation_features(x, taps, strides, stride, valid, self.dims, dtype)
        revised = pixel_correlation(features, pixel_correlation_input(cam, map_valid), map_valid)
        return {"cam": cam, "cam_rv": revised}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seam(Method):
    """SEAM; the defaults are the published ones.

    Attributes:
      transform: how the second image is made from the first: ``rescale``, ``flip``, ``rotation``,
        ``translation``, or several of these joined by ``_`` (``rescale_flip``). The paper tries all
        of them.
      small_scale: the size of the second image relative to the first, with ``rescale``.
      max_rotation: the largest angle of ``rotation`` in degrees, in both directions.
      max_translation: the largest shift of ``translation`` in pixels, in all directions.
      topk: the share of hardest entries that count in L_ECR.
      er_weight: the weight of the equivariance loss L_ER; 0 leaves it out.
      ecr_weight: the weight of the cross-supervised loss L_ECR; 0 leaves it out.
      consistency_start: the step from which on L_ER and L_ECR count. Maps without any response
        agree perfectly, so a network from scratch should first learn to recognize classes.
      dims: the channels of the three 1×1 layers for the features of the correlation.
      dropout: the rate of the channel dropout before the classifier.
      use_pcm: whether there is pixel correlation; otherwise the revised maps are the maps
        themselves.
      map_stride: the image pixels per pixel of the maps; 0 means the backbone's stride. A smaller
        one upsamples the maps before the correlation, which then follows finer features.
    """

    outputs: ClassVar[tuple[str, ...]] = ("cam", "cam_main")

    transform: str = "rescale"
    small_scale: float = 0.3
    max_rotation: float = 20.0
    max_translation: int = 15
    topk: float = 0.2
    er_weight: float = 1.0
    ecr_weight: float = 1.0
    consistency_start: int = 0
    dims: tuple[int, int, int] = (64, 128, 192)
    dropout: float = 0.5
    use_pcm: bool = True
    map_stride: int = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range, or a transform is unknown or named twice.
        """
        super().__post_init__()
        check_positive(self, "small_scale", "topk", "dims")
        numbers = ("max_rotation", "max_translation", "er_weight", "ecr_weight", "map_stride")
        check_limits(self, topk=(0, 1), **dict.fromkeys(numbers, (0, math.inf)))
        kinds = self.transform.split("_")
        known = ("rescale", *transforms.KINDS)
        if len(set(kinds)) < len(kinds) or not set(kinds) <= set(known):
            raise UserError(
                f"expected transform to be {', '.join(known)} or several joined by _, found"
                f" {self.transform!r}: change it"
            )

    def model(self) -> nn.Module:
        """Returns the network; see `SeamNetwork`."""
        return SeamNetwork(
            backbone=self.backbone.clone(dtype=self.dtype),
            num_classes=self.num_classes,
            dims=self.dims,
            dropout=self.dropout,
            use_pcm=self.use_pcm,
            map_stride=self.map_stride,
            dtype=self.dtype,
        )

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes the `objective` of the batch, without consistency before its start."""
        batch = step.batch
        images = self.normalized(batch["image"], batch["valid"])
        consistency = jnp.where(step.step >= self.consistency_start, 1.0, 0.0)
        loss, terms, maps = self.objective(
            step.variables, images, batch["label"], step.rng, consistency
        )
        return loss, Aux(terms=terms, maps=maps)

    def objective(
        self,
        variables: PyTree,
        images: Float[Array, "b h w 3"],
        labels: Float[Array, "b c"],
        rng: PRNGKeyArray,
        consistency: Float[Array, ""] | float = 1.0,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Computes L = L_cls + consistency·(er_weight·L_ER + ecr_weight·L_ECR).

        In names, ``1`` is the image and ``2`` its smaller copy.

        Returns:
          The loss, its terms, which have no gradient of their own, and upsampled maps.
        """
        size = (images.shape[1], images.shape[2])
        kinds = self.transform.split("_")
        small_size = scaled_size(size, self.small_scale) if "rescale" in kinds else size
        move = transforms.draw_transform(
            kinds, jax.random.fold_in(rng, 2), len(images), self.max_rotation, self.max_translation
        )
        moved, _ = move(jnp.moveaxis(images, -1, 1))
        small = resize_bilinear(jnp.moveaxis(moved, 1, -1), small_size, align_corners=True)
        keys = jax.random.split(rng)
        cam1, revised1 = self._maps(variables, images, keys[0])
        cam2, revised2 = self._maps(variables, small, keys[1])

        scores1 = resized_mean(cam1[:, 1:], size, align_corners=True)
        scores2 = resized_mean(cam2[:, 1:], small_size, align_corners=True)
        cls1 = losses.multilabel_soft_margin(scores1, labels)
        cls2 = losses.multilabel_soft_margin(scores2, labels)

        loss_of_maps = functools.partial(
            self._map_loss, consistency=consistency, size=size, small_size=small_size, move=move
        )
        maps = (cam1, revised1, cam2, revised2)
        rest, terms = on_present_classes(loss_of_maps, maps, labels)
        loss = (cls1 + cls2) / 2 + rest
        terms = {"loss": loss, "cls1": cls1, "cls2": cls2, **terms}
        names = ("cam", "cam_rv", "cam_small", "cam_rv_small")
        sizes = (size, size, small_size, small_size)
        upsampled = {
            name: jnp.moveaxis(resize_planes(value, to, align_corners=True), 1, -1)
            for name, value, to in zip(names, maps, sizes, strict=True)
        }
        return loss, jax.lax.stop_gradient(terms), upsampled

    def _map_loss(
        self,
        maps: tuple[Array, ...],
        labels: Float[Array, "b k"],
        consistency: Float[Array, ""] | float,
        size: tuple[int, int],
        small_size: tuple[int, int],
        move: transforms.Transform,
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the loss of the maps without the classification loss of scores, and its terms.

        `consistency` is a factor of L_ER and L_ECR. `maps` [b, k + 1, h, w] at the network's stride
        are the map and revised map of the image, and then those of its copy, which is `move` of the
        image at `small_size`. Foreground channels that the image does not show may be missing.
        """
        present = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=1)[..., None, None]
        cam1, revised1 = (resize_planes(m, size, align_corners=True) for m in maps[:2])
        cam2, revised2 = (resize_planes(m, small_size, align_corners=True) for m in maps[2:])
        terms = {
            "rvmin1": losses.smallest_response((revised1 * present)[:, 1:]),
            "rvmin2": losses.smallest_response((revised2 * present)[:, 1:]),
        }
        loss = (terms["rvmin1"] + terms["rvmin2"]) / 2

        # Maps are normalized after the move over what both images show, since a maximum may leave.
        (cam1, seen), (revised1, _) = move(cam1), move(revised1)
        p1, q1 = (
            resize_planes(min_max_norm(m, seen), small_size, align_corners=True) * present
            for m in (cam1, revised1)
        )
        seen = transforms.resized_valid(seen, small_size)
        p2, q2 = (min_max_norm(m, seen) * present for m in (cam2, revised2))
        if not self.use_pcm:  # the classifier's own background channel is never supervised
            q1, q2 = (with_background(q[:, 1:]) for q in (q1, q2))
        if self.er_weight:
            # The mean is over all classes.
            terms["er"] = losses.equivariance_l1(p1[:, 1:], p2[:, 1:], seen) * (
                labels.shape[1] / self.num_classes
            )
            loss = loss + consistency * self.er_weight * terms["er"]
        if self.ecr_weight:
            hardest = functools.partial(
                losses.hardest_l1,
                fraction=self.topk,
                channels=self.num_classes + 1,
                valid=seen,
            )
            terms["ecr1"] = hardest(self._supervision(p2), q1)
            terms["ecr2"] = hardest(self._supervision(p1), q2)
            loss = loss + consistency * self.ecr_weight * (terms["ecr1"] + terms["ecr2"])
        return loss, terms

    def _maps(
        self, variables: PyTree, images: Float[Array, "b h w 3"], rng: PRNGKeyArray
    ) -> tuple[Array, Array]:
        """Computes maps and revised maps [b, C + 1, h', w'] at the network's stride."""
        output: Any = self.model().apply(variables, images, train=True, rngs={"dropout": rng})
        return jnp.moveaxis(output["cam"], -1, 1), jnp.moveaxis(output["cam_rv"], -1, 1)

    @staticmethod
    def _supervision(maps: Float[Array, "b c1 h w"]) -> Float[Array, "b c1 h w"]:
        """Returns the targets for the other scale's revised maps: winners and their background."""
        return winner_only(with_background(jax.lax.stop_gradient(maps)[:, 1:]))

    def stride(self, output: str) -> int:
        """See `wsss_jax.methods.base.Method`."""
        return self.map_stride or super().stride(output)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Predicts foreground maps at the network's stride.

        Returns:
          The raw maps ``cam`` [b, h', w', C], which are the revised maps (SEAM's result), and
          ``cam_main``, which are those of the classifier. The published network first upsamples
          them to the image's size with aligned corners.
        """
        output: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": output["cam_rv"][..., 1:], "cam_main": output["cam"][..., 1:]}
