"""AffinityNet, which predicts which neighboring pixels belong together (Ahn & Kwak, CVPR 2018).

It learns from pairs of pixels whose classes dense CRFs are sure of. A random walk then spreads
class activation maps along the affinities.
"""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.errors import UserError
from wsss_jax.losses.pair_affinity import pair_losses
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import HE, XAVIER_4, Conv, GroupNorm, downsample_valid
from wsss_jax.models.taps import map_size, to_stride
from wsss_jax.ops.pair_affinity import feature_affinity, pair_mask
from wsss_jax.ops.resize import valid_size
from wsss_jax.settings.limits import check_limits


class AffinityNetwork(nn.Module):
    """A backbone with 1×1 convolutions and ELU on its last three taps and on their results.

    Attributes:
      backbone: the backbone.
      dims: the channels of f8_3, f8_4, f8_5 (on conv4, conv5, conv6) and of f9 (on all three).
      map_stride: the image pixels per pixel of the features; taps of other strides are resized.
      groups: the groups of the group norm on each of the three taps; empty for none.
      dtype: the type of the convolutions; the features are float32.
    """

    backbone: Backbone
    dims: tuple[int, int, int, int] = (64, 128, 256, 448)
    map_stride: int = 8
    groups: tuple[int, ...] = ()
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b p q c"]:
        """Computes features whose distances give affinities; `train` needs a ``dropout`` key."""
        dtype = jnp.dtype(self.dtype)
        taps = self.backbone(x, valid, train=train)
        strides = self.backbone.tap_strides
        size = map_size((x.shape[1], x.shape[2]), self.map_stride)
        names = ("f8_3", "conv4"), ("f8_4", "conv5"), ("f8_5", "conv6")
        parts = []
        for number, ((name, tap), width) in enumerate(zip(names, self.dims[:3], strict=True)):
            side = Conv(width, 1, kernel_init=HE, dtype=dtype, name=name)(taps[tap])
            if self.groups:
                norm = GroupNorm(self.groups[number], name=name.replace("f8", "gn8"))
                side = norm(side, downsample_valid(valid, strides[tap]))
            # Resizing comes after the 1×1 layer, which commutes with it and has fewer channels.
            side = to_stride(side, strides[tap], self.map_stride, size, valid)
            parts.append(nn.elu(side))
        joint = Conv(self.dims[3], 1, kernel_init=XAVIER_4, dtype=dtype, name="f9")
        return nn.elu(joint(jnp.concatenate(parts, axis=-1)).astype(jnp.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affinity(Method):
    """AffinityNet; the defaults are the published ones.

    Attributes:
      dims: the channels of the 1×1 layers on ``conv4``, ``conv5`` and ``conv6``, and of the one on
        all three.
      map_stride: the image pixels per pixel of the features and of the labels.
      groups: the groups of a group norm after each of the first three layers: (8, 16, 32) with
        VGG16 in the published program, and none with ResNet38.
    """

    outputs: ClassVar[tuple[str, ...]] = ("affinity",)
    enough_steps: ClassVar[int] = 100

    dims: tuple[int, int, int, int] = (64, 128, 256, 448)
    map_stride: int = 8
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        if len(self.dims) != 4 or min(self.dims) < 1:
            raise UserError(f"expected four dims above 0, found {tuple(self.dims)}: change them")
        if self.groups and (
            len(self.groups) != 3
            or any(n < 1 or width % n for n, width in zip(self.groups, self.dims, strict=False))
        ):
            raise UserError(
                f"expected no groups or three that divide dims ({self.dims}), found"
                f" {tuple(self.groups)}: change them"
            )
        check_limits(self, map_stride=(1, math.inf))

    def batch_spec(self) -> BatchSpec:
        """Asks for the classes of the features' pixels, where they are known."""
        return BatchSpec(affinity_stride=self.map_stride)

    def model(self) -> nn.Module:
        """Returns the network; see `AffinityNetwork`."""
        return AffinityNetwork(
            self.backbone.clone(dtype=self.dtype),
            self.dims,
            self.map_stride,
            self.groups,
            self.dtype,
        )

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes ¼ background + ¼ foreground + ½ different classes, over all pairs of the batch.

        `wsss_jax.data.affinity_labels` describes the labels.
        """
        batch = step.batch
        images = self.normalized(batch["image"], batch["valid"])
        features = self.model().apply(
            step.variables, images, train=True, rngs={"dropout": step.rng}
        )
        assert isinstance(features, jnp.ndarray)
        terms = pair_losses(feature_affinity(features), batch["affinity_label"])
        loss = terms["background"] / 4 + terms["foreground"] / 4 + terms["different"] / 2
        return loss, Aux(terms=terms)

    def stride(self, output: str) -> int:
        """See `wsss_jax.methods.base.Method`."""
        del output
        return self.map_stride

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns ``affinity`` [b, h', w', 34] of `pair_offsets`, zero where there is no pair."""
        inputs = self.normalized(images, valid)
        features = self.model().apply(variables, inputs, valid)
        assert isinstance(features, jnp.ndarray)
        map_valid = downsample_valid(valid, self.map_stride)
        assert map_valid is not None
        pairs = pair_mask((features.shape[1], features.shape[2]), valid_size(map_valid))
        return {"affinity": feature_affinity(features) * pairs}
