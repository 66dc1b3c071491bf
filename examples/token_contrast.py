"""Token contrast: from image-level labels to masks in one training stage, on a small transformer.

A method and its backbone in one file outside the package, after ToCo (Ru et al., CVPR 2023). The
tokens of a transformer grow alike towards its last block, so that the maps of its classifier grow
flat. The maps of an earlier block, which are coarse but not flat, say which tokens belong together;
the last tokens are contrasted accordingly. A decoder learns masks from the refined maps in the same
step, and class tokens of local crops are contrasted with that of the whole view.

What differs from the paper: an EMA teacher of the whole network sees the image and makes the pseudo
labels, while the network learns on a view in strongly changed colors; local crops are drawn
anywhere, and there is no energy of a dense CRF in the loss.

Legend: b batch, h w height and width, c classes, d channels, n tokens, v views.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.data.batch_spec import BatchSpec, LocalCrops, StrongView
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Aux, Method, Step, ema_update
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv, Dtype, downsample_valid, mask_features
from wsss_jax.ops.resize import resize_bilinear, scaled_size, valid_size
from wsss_jax.types import ParamRule

UNKNOWN = 255
"""The label of pixels and tokens of which nothing is learned."""


class _Block(nn.Module):
    """Attention and two dense layers, each behind a norm."""

    heads: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], seen: Bool[Array, "b n"]) -> Array:
        width = x.shape[-1]
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, force_fp32_for_softmax=True, name="attention"
        )
        x = x + attention(nn.LayerNorm(name="norm_1")(x), mask=seen[:, None, None])
        y = nn.Dense(4 * width, dtype=self.dtype, name="dense_1")(nn.LayerNorm(name="norm_2")(x))
        return x + nn.Dense(width, dtype=self.dtype, name="dense_2")(nn.gelu(y))


class SmallVit(Backbone):
    """A vision transformer small enough to learn from scratch.

    Two convolutions come before the patches, without which a transformer learns little from few
    images (Xiao et al., NeurIPS 2021).

    Attributes:
      patch: side of a patch, pixels; a multiple of 4.
      width: channels.
      depth: blocks, at least 4; ``conv5`` are the tokens two blocks before the last.
      heads: of the attention.
      grid: side of the grid of position embeddings, which are resized to the image.
    """

    patch: int = 8
    width: int = 96
    depth: int = 6
    heads: int = 3
    grid: int = 12

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (64.0, 64.0, 64.0)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: patches or blocks that the network cannot have.
        """
        if self.patch % 4 or self.depth < 4:
            raise UserError(
                "expected patch to be a multiple of 4 and depth to be 4 or more, found"
                f" {self.patch} and {self.depth}: change them"
            )
        super().__post_init__()

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        return {"conv3": 4, "conv4": self.patch, "conv5": self.patch, "conv6": self.patch}

    @nn.nowrap
    def param_rules(self) -> tuple[ParamRule, ...]:
        """Weights decay; biases, norms and embeddings do not."""
        still = "(bias|scale|positions|class_token)$"
        return (ParamRule(f"^backbone/.*{still}", decay=False), ParamRule("^backbone/"))

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`; beside the maps there is ``class_token`` [b, width]. All are float32."""
        del train
        width, conv = self.width, {"use_bias": True, "dtype": self.dtype}
        rows, columns = (-(-side // 4) for side in x.shape[1:3])
        sizes = None if valid is None else valid_size(valid[:, :: self.patch, :: self.patch])
        odd = [(0, 0), *((0, -side % self.patch) for side in x.shape[1:3])]
        valid = jnp.pad(jnp.ones(x.shape[:3], bool) if valid is None else valid, odd)
        x = mask_features(jnp.pad(x, [*odd, (0, 0)]), valid)
        x = Conv(width // 2, 4, 4, padding=((0, 0), (0, 0)), name="stem_1", **conv)(x)
        x = fine = nn.gelu(nn.LayerNorm(name="stem_norm")(x))
        x = Conv(width // 2, 3, name="stem_2", **conv)(mask_features(x, downsample_valid(valid, 4)))
        x = mask_features(nn.gelu(x), downsample_valid(valid, 4))
        stride = self.patch // 4
        patches = Conv(width, stride, stride, padding=((0, 0), (0, 0)), name="patches", **conv)
        x = patches(x).astype(jnp.float32)
        b, h, w, _ = x.shape

        normal = nn.initializers.normal(0.02)
        positions = self.param("positions", normal, (1, self.grid, self.grid, width))
        if sizes is None:
            x = x + resize_bilinear(positions, (h, w), align_corners=False)
        else:
            grids = jnp.broadcast_to(positions, (b, *positions.shape[1:]))
            whole = jnp.full((b, 2), self.grid)
            x = x + resize_bilinear(
                grids, (h, w), align_corners=False, in_size=whole, out_size=sizes
            )
        token = jnp.broadcast_to(self.param("class_token", normal, (1, 1, width)), (b, 1, width))
        x = jnp.concatenate([token, x.reshape(b, h * w, width)], 1)
        seen = valid[:, :: self.patch, :: self.patch]
        seen = jnp.pad(seen.reshape(b, h * w), ((0, 0), (1, 0)), constant_values=True)
        taps = {"conv3": fine[:, :rows, :columns].astype(jnp.float32)}
        for number in range(1, self.depth + 1):
            x = _Block(self.heads, self.dtype, name=f"block_{number}")(x, seen)
            tap = {1: "conv4", self.depth - 2: "conv5"}.get(number)
            if tap:
                taps[tap] = x[:, 1:].reshape(b, h, w, width)
        x = nn.LayerNorm(name="norm")(x)
        taps["conv6"] = x[:, 1:].reshape(b, h, w, width)
        return {**taps, "class_token": x[:, 0]}


class TokenContrastNetwork(nn.Module):
    """A transformer with two classifiers, a decoder and a projection of its class token.

    Attributes:
      backbone: gives the tokens as maps (``conv5`` and ``conv6``), and ``class_token``.
      num_classes: foreground classes C.
      features: channels of the decoder.
      embedding: channels E of the projection.
      dtype: of the layers; results are float32.
    """

    backbone: Backbone
    num_classes: int
    features: int
    embedding: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Maps at the stride of the tokens, and a vector of length 1 for each image.

        Returns:
          ``cam`` and ``cam_aux`` [b, h', w', C] raw, of the last and of the earlier tokens;
          ``logits`` [b, h', w', C + 1]; ``tokens`` [b, h', w', d]; ``embedding`` [b, E].
        """
        dtype = jnp.dtype(self.dtype)
        taps = self.backbone(x, valid, train=train)
        tokens, seen = taps["conv6"], downsample_valid(valid, self.backbone.tap_strides["conv6"])
        summary = taps.get("class_token", tokens.mean((1, 2)))  # a convolutional network has none
        y = tokens
        for number in (1, 2):  # the decoder is DeepLab's large field of view, as ToCo has it
            layer = Conv(self.features, 3, dilation=2, dtype=dtype, name=f"decoder_{number}")
            y = nn.relu(layer(mask_features(y, seen)))
        z = nn.Dense(2 * self.embedding, dtype=dtype, name="project_1")(summary)
        z = nn.gelu(z)
        z = nn.Dense(self.embedding, dtype=dtype, name="project_2")(z).astype(jnp.float32)
        found = {
            "cam": Conv(self.num_classes, 1, dtype=dtype, name="classifier")(tokens),
            "cam_aux": Conv(self.num_classes, 1, dtype=dtype, name="classifier_aux")(taps["conv5"]),
            "logits": Conv(self.num_classes + 1, 1, dtype=dtype, use_bias=True, name="masks")(y),
            "tokens": tokens,
            "embedding": _unit(z),
        }
        return {name: value.astype(jnp.float32) for name, value in found.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenContrast(Method):
    """Hyper-parameters of the method.

    Attributes:
      features: channels of the decoder.
      embedding: channels of the projection of class tokens.
      rank_decay: how much a pixel counts in the score of a class, relative to the next larger one;
        at 0, as published, the maximum counts alone.
      token_weight: weight of the token contrast.
      crop_weight: weight of the contrast between local crops and the whole view.
      mask_weight: weight of the cross entropy of the decoder.
      contrast_start: step from which the two contrasts count.
      mask_start: step from which the decoder learns.
      label_scales: scales at which the EMA teacher sees an image and its flip.
      high: a pixel is foreground where a map is above it.
      low: a pixel is background where all maps are below it.
      dilations: distances of the neighbors that refine the pseudo labels, pixels of half the image.
      refinements: how often the neighbors are averaged; 0 for not at all.
      negative_below: a local crop is background where the mean of its regions (0 background,
        1 unknown, 2 foreground) is at most that.
      temperature: of the contrast between local crops and the whole view.
      decay: share of the EMA teacher that is kept at every step.
      strong: changes of the view that the network learns from.
      local_crops: small views of parts of the image.
    """

    outputs: ClassVar[tuple[str, ...]] = ("cam", "logits")

    features: int = 512
    embedding: int = 256
    rank_decay: float = 0.0
    token_weight: float = 0.2
    crop_weight: float = 0.5
    mask_weight: float = 0.1
    contrast_start: int = 0
    mask_start: int = 2000
    label_scales: tuple[float, ...] = (1.0, 0.5, 1.5)
    high: float = 0.7
    low: float = 0.25
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    refinements: int = 10
    negative_below: float = 0.2
    temperature: float = 0.5
    decay: float = 0.99
    strong: StrongView = dataclasses.field(default_factory=StrongView)
    local_crops: LocalCrops = dataclasses.field(default_factory=LocalCrops)

    def batch_spec(self) -> BatchSpec:
        """The strong view and the local crops."""
        return BatchSpec(strong=self.strong, local_crops=self.local_crops)

    def model(self) -> nn.Module:
        """The network; see `TokenContrastNetwork`."""
        return TokenContrastNetwork(
            self.backbone.clone(dtype=self.dtype),
            self.num_classes,
            self.features,
            self.embedding,
            self.dtype,
        )

    def init_extra(self, params: PyTree) -> PyTree:
        """The parameters of the EMA teacher."""
        return {"teacher": jax.tree.map(jnp.copy, params)}

    def after_step(self, step: Step, new_params: PyTree) -> PyTree:
        """The EMA teacher moves towards the new parameters."""
        return {"teacher": ema_update(step.extra["teacher"], new_params, self.decay)}

    def inference_params(self, params: PyTree, extra: PyTree) -> PyTree:
        """Those of the EMA teacher."""
        del params
        return extra["teacher"]

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """The two classifications, and the two contrasts and the decoder from their first step."""
        batch, labels = step.batch, step.batch["label"]
        stride = self.backbone.tap_strides["conv6"]
        valid = batch["valid"][:, ::stride, ::stride]
        cam, cam_aux, taught = self._teach(step)
        image = batch["image"].astype(jnp.float32) / 255
        masks = self._pseudo_masks(image, cam, labels, batch["valid"])
        grid = (valid.shape[1], valid.shape[2])
        coarse = resize_bilinear(cam_aux, grid, align_corners=False)
        token_labels = thresholded(coarse, labels, valid, self.high, self.low)

        images = self.normalized(batch["image_strong"], batch["valid"])
        seen = self._network(step.variables, images)
        crops = batch["local_image"]
        flat = crops.reshape(-1, *crops.shape[2:])
        shown = batch["local_valid"].reshape(flat.shape[:3])
        local = self._network(step.variables, self.normalized(flat, shown))["embedding"]
        views = jnp.concatenate(
            [seen["embedding"][:, None], local.reshape(*crops.shape[:2], -1)], 1
        )
        foreground = box_means(regions(token_labels), valid, batch["local_box"], stride)
        foreground = foreground > self.negative_below
        positive = jnp.pad(foreground, ((0, 0), (1, 0)), constant_values=True)
        size = (image.shape[1], image.shape[2])
        logits = resize_bilinear(seen["logits"], size, align_corners=False)
        scores = [rank_pool(seen[n], valid, self.rank_decay) for n in ("cam", "cam_aux")]
        terms = {
            "cls": losses.multilabel_soft_margin(scores[0], labels),
            "cls_aux": losses.multilabel_soft_margin(scores[1], labels),
            "tokens": token_contrast(seen["tokens"], token_labels),
            "crops": crop_contrast(taught, views, positive, self.temperature),
            "masks": losses.balanced_cross_entropy(logits, masks),
        }
        contrast, learned = step.step >= self.contrast_start, step.step >= self.mask_start
        loss = terms["cls"] + terms["cls_aux"]
        loss += contrast * self.token_weight * terms["tokens"]
        loss += contrast * self.crop_weight * terms["crops"]
        loss += learned * self.mask_weight * terms["masks"]
        maps = {"cam": cam, "pseudo_masks": jax.nn.one_hot(masks, self.num_classes + 1)}
        return loss, Aux(terms=terms, maps=maps)

    def _network(self, variables: PyTree, images: Array, valid: Array | None = None) -> Any:
        return self.model().apply(variables, images, valid)

    def _teach(self, step: Step) -> tuple[Array, Array, Array]:
        """The EMA teacher's maps [b, h, w, C] of both kinds, and its embeddings [b, E]."""
        variables = {**step.variables, "params": step.extra["teacher"]}
        images = self.normalized(step.batch["image"], step.batch["valid"])
        size = (images.shape[1], images.shape[2])
        both = jnp.concatenate([images, images[:, :, ::-1]])
        found = {}
        for scale in self.label_scales:
            scaled = resize_bilinear(both, scaled_size(size, scale), align_corners=False)
            found[scale] = self._network(variables, scaled)
        cam, cam_aux = (
            joint_cam([one[name] for one in found.values()], size) for name in ("cam", "cam_aux")
        )
        return cam, cam_aux, found[self.label_scales[0]]["embedding"][: len(images)]

    def _pseudo_masks(self, image: Array, cam: Array, labels: Array, valid: Array) -> Array:
        """Masks from maps: foreground where the high background allows it, see `low`."""
        size = (image.shape[1], image.shape[2])
        half = scaled_size(size, 0.5)
        weights = neighbor_weights(
            resize_bilinear(image, half, align_corners=False), self.dilations
        )
        small = resize_bilinear(cam, half, align_corners=False)
        there = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=1.0)[:, None, None] > 0

        def winners(background: float) -> Array:
            scores = jnp.pad(small, ((0, 0),) * 3 + ((1, 0),), constant_values=background)
            scores = jax.nn.softmax(jnp.where(there, scores, -jnp.inf))
            scores = refine(scores, weights, self.dilations, self.refinements)
            return resize_bilinear(scores, size, align_corners=False).argmax(-1)

        sure, likely = winners(self.high), winners(self.low)
        masks = jnp.where((sure == 0) & (likely > 0), UNKNOWN, sure)
        return jnp.where(valid, masks, UNKNOWN).astype(jnp.uint8)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """``cam`` [b, h', w', C] raw, and ``logits`` [b, h', w', C + 1]."""
        found = self._network(variables, self.normalized(images, valid), valid)
        return {name: found[name] for name in self.outputs}


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-16)), 1e-8)


def rank_pool(
    cam: Float[Array, "b h w c"], valid: Bool[Array, "b h w"], decay: float
) -> Float[Array, "b c"]:
    """The mean of every map, each pixel counting `decay` times as much as the next larger one.

    Global weighted rank pooling (Kolesnikov & Lampert, ECCV 2016): the maximum for a decay of 0,
    the mean for one of 1. Pixels that are not `valid` do not count.
    """
    flat = jnp.where(valid[..., None], cam, -jnp.inf).reshape(len(cam), -1, cam.shape[-1])
    ranked = -jnp.sort(-flat, 1)
    ranks = jnp.arange(ranked.shape[1])
    weights = (ranks < valid.sum((1, 2))[:, None]) * jnp.float32(decay) ** ranks
    weights = weights / weights.sum(1, keepdims=True)
    return jnp.einsum("bnc,bn->bc", jnp.where(weights[..., None] > 0, ranked, 0.0), weights)


def joint_cam(
    cams: list[Float[Array, "b2 _h _w c"]], size: tuple[int, int]
) -> Float[Array, "b h w c"]:
    """Maps of images and, after them, of their flips at several scales, as one map in 0…1.

    At every scale the larger response of an image and its flip counts, if positive; the scales are
    summed and each map is stretched to its own range.
    """
    total = jnp.zeros(())
    for cam in cams:
        upsampled = resize_bilinear(cam, size, align_corners=False)
        image, flipped = jnp.split(upsampled, 2)
        total = total + jax.nn.relu(jnp.maximum(image, flipped[:, :, ::-1]))
    total = total - total.min((1, 2), keepdims=True)
    return total / (total.max((1, 2), keepdims=True) + 1e-5)


def thresholded(
    cam: Float[Array, "b h w c"],
    labels: Float[Array, "b c"],
    valid: Bool[Array, "b h w"],
    high: float,
    low: float,
) -> Int[Array, "b h w"]:
    """Labels from maps of present classes: 0 up to `low`, 1 + class above `high`, or unknown."""
    cam = cam * labels[:, None, None]
    best, winner = cam.max(-1), cam.argmax(-1) + 1
    label = jnp.where(best <= high, UNKNOWN, winner)
    label = jnp.where(best <= low, 0, label)
    return jnp.where(valid, label, UNKNOWN)


def regions(label: Int[Array, "b h w"]) -> Float[Array, "b h w"]:
    """0 where `label` is background, 1 where it is unknown and 2 where it is foreground."""
    return jnp.where(label == UNKNOWN, 1.0, jnp.where(label > 0, 2.0, 0.0))


def box_means(
    values: Float[Array, "b h w"],
    valid: Bool[Array, "b h w"],
    boxes: Float[Array, "b v 4"],
    stride: int,
) -> Float[Array, "b v"]:
    """The mean of `values` over the image inside each box; 0 where there is none of it.

    Args:
      values: of pixels of `stride`.
      valid: the pixels that are no padding.
      boxes: top, left, height and width in pixels of the image; pixels of `values` that lie partly
        in a box count with that part.
      stride: pixels of the image per pixel of `values`.
    """

    def shares(start: Array, length: Array, count: int) -> Array:
        edges = jnp.arange(count) * stride
        begin = jnp.maximum(start[..., None], edges)
        end = jnp.minimum((start + length)[..., None], edges + stride)
        return jnp.maximum(end - begin, 0)

    rows = shares(boxes[..., 0], boxes[..., 2], values.shape[1])
    columns = shares(boxes[..., 1], boxes[..., 3], values.shape[2])
    totals = [
        jnp.einsum("bvh,bhw,bvw->bv", rows, planes, columns, precision="highest")
        for planes in (values * valid, valid.astype(jnp.float32))
    ]
    return totals[0] / jnp.maximum(totals[1], 1e-6)


def token_contrast(tokens: Float[Array, "b h w d"], label: Int[Array, "b h w"]) -> Float[Array, ""]:
    """Tokens of one label are alike and those of two are orthogonal.

    ½·(1 − mean |cos| of pairs of equal labels) + ½·mean |cos| of pairs of unequal ones, over all
    pairs of two tokens of one image whose labels are known.
    """
    tokens = _unit(tokens.reshape(len(tokens), -1, tokens.shape[-1]))
    label = label.reshape(len(tokens), -1)
    alike = jnp.abs(jnp.einsum("bnd,bmd->bnm", tokens, tokens))
    known = (label != UNKNOWN)[:, :, None] & (label != UNKNOWN)[:, None]
    known = known & ~jnp.eye(label.shape[1], dtype=bool)
    equal = label[:, :, None] == label[:, None]
    means = [
        jnp.sum(alike * pairs) / (pairs.sum() + 1) for pairs in (known & equal, known & ~equal)
    ]
    return 0.5 * (1 - means[0]) + 0.5 * means[1]


def crop_contrast(
    taught: Float[Array, "b e"],
    views: Float[Array, "b v e"],
    positive: Bool[Array, "b v"],
    temperature: float,
) -> Float[Array, ""]:
    """The class token of the whole image resembles those of its foreground, not of its background.

    InfoNCE of every positive view against the negative views of the same image.

    Args:
      taught: vectors of length 1 of the images, by the EMA teacher.
      views: those of the network.
      positive: whether a view shows foreground; one of each image does.
      temperature: of the similarities.
    """
    alike = jnp.exp(jnp.einsum("be,bve->bv", taught, views) / temperature)
    negative = jnp.sum(alike * ~positive, 1, keepdims=True)
    terms = -jnp.log(alike / (alike + negative + 1e-4))
    return jnp.mean(jnp.sum(terms * positive, 1) / positive.sum(1))


def _offsets(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    near = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(y * distance, x * distance) for distance in dilations for y, x in near]


def _neighbors(x: Float[Array, "b h w c"], dilations: tuple[int, ...]) -> list[Array]:
    """The pixels at each offset, those beyond the border being the border's."""
    reach, (h, w) = max(dilations), x.shape[1:3]
    wide = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    return [
        wide[:, reach + y : reach + y + h, reach + dx : reach + dx + w]
        for y, dx in _offsets(dilations)
    ]


def neighbor_weights(
    image: Float[Array, "b h w 3"], dilations: tuple[int, ...]
) -> Float[Array, "b h w k"]:
    """How much each neighbor of a pixel counts: the more, the more alike their colors are.

    ToCo's pixel-adaptive refinement: a softmax over colors and a hundredth of one over distances,
    both in units of the neighbors' standard deviation. Colors are in 0…1.
    """
    near = jnp.stack(_neighbors(image, dilations), -1)
    spread = near.std(-1, ddof=1, keepdims=True) + 1e-8
    color = -jnp.square(jnp.abs(near - image[..., None]) / spread / 0.3).mean(-2)
    distance = jnp.hypot(*jnp.asarray(_offsets(dilations), jnp.float32).T)
    place = -jnp.square(distance / (distance.std(ddof=1) + 1e-8) / 0.3)
    return jax.nn.softmax(color) + 0.01 * jax.nn.softmax(place)


def refine(
    scores: Float[Array, "b h w c"],
    weights: Float[Array, "b h w k"],
    dilations: tuple[int, ...],
    times: int,
) -> Float[Array, "b h w c"]:
    """Replaces the scores by the weighted sums of their neighbors', see `neighbor_weights`."""

    def once(_: int, scores: Array) -> Array:
        near = _neighbors(scores, dilations)
        return sum((weights[..., k, None] * n for k, n in enumerate(near)), jnp.zeros(()))

    return jax.lax.fori_loop(0, times, once, scores)
