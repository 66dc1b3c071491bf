"""IRNet, which predicts class boundaries and the centers of objects (Ahn et al., CVPR 2019).

It learns from pairs of pixels whose classes a dense CRF is sure of. A random walk that stops at
boundaries then spreads class activation maps over whole objects.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.errors import UserError
from wsss_jax.losses.boundary import RADIUS, boundary_losses
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.models.base import Backbone
from wsss_jax.models.boundary_heads import TAPS, BoundaryHead, DisplacementHead
from wsss_jax.models.layers import flip_valid
from wsss_jax.models.taps import map_size
from wsss_jax.ops.reliable_labels import IGNORE
from wsss_jax.ops.resize import valid_size
from wsss_jax.settings.limits import check_limits
from wsss_jax.types import ParamRule


class IrNetwork(nn.Module):
    """A frozen backbone, and the two branches on its feature maps.

    Attributes:
      backbone: the backbone.
      dtype: the type of the convolutions; the maps are float32.
    """

    backbone: Backbone
    dtype: str = "float32"

    def setup(self) -> None:
        """Creates the two branches as submodules."""
        dtype = jnp.dtype(self.dtype)
        self.edge = BoundaryHead(dtype=dtype)
        self.displacement = DisplacementHead(dtype=dtype)

    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Computes ``boundary`` [b, p, q, 1] (logits) and ``displacement`` [b, p, q, 2].

        Both have the stride of ``conv3``.
        """
        strides = self.backbone.tap_strides
        taps = jax.lax.stop_gradient(self.backbone(x, valid))  # pyright: ignore
        return {
            "boundary": self.edge(taps, strides, valid),
            "displacement": self.displacement(taps, strides, valid, train=train),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class IrNet(Method):
    """IRNet; the defaults are the published ones.

    Attributes:
      radius: training pairs are closer together than this, in pixels of the maps.
      flip: whether predicted boundaries are averaged with those of the flipped image.
      canvas: if above 0, an image is put on a canvas of at least this side, as in training, where
        the group norm counts the padding. It is 512, the crop, as published; 0 uses no canvas.
      edge_lr: the learning rate of the boundary branch relative to the base rate; `head_lr` is that
        of the displacement branch.
    """

    outputs: ClassVar[tuple[str, ...]] = ("boundary", "displacement")

    radius: int = RADIUS
    flip: bool = True
    canvas: int = 0
    edge_lr: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range (a radius of 1 leaves no pair), or the backbone's
            strides do not fit together.
        """
        super().__post_init__()
        check_limits(self, radius=(2, math.inf), canvas=(0, math.inf), edge_lr=(0, math.inf))
        strides = self.backbone.tap_strides
        if any(strides[tap] % strides["conv3"] for tap in TAPS if tap in strides):
            raise UserError(
                "expected a backbone whose strides are multiples of that of conv3, found"
                f" {dict(strides)}: choose another backbone"
            )

    def batch_spec(self) -> BatchSpec:
        """Asks for masks of the classes, where they are known."""
        return BatchSpec(segmentation=True)

    def model(self) -> nn.Module:
        """Returns the network; see `IrNetwork`."""
        return IrNetwork(self.backbone.clone(dtype=self.dtype), self.dtype)

    def param_rules(self) -> tuple[ParamRule, ...]:
        """Freezes the backbone and gives each branch its own learning rate."""
        return (
            ParamRule("^backbone/", frozen=True),
            ParamRule("^edge/", lr=self.edge_lr),
            ParamRule("^displacement/", lr=self.head_lr),
        )

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes ½ (pairs of one class + pairs of two) + ½ displacements (`boundary_losses`)."""
        batch = step.batch
        images = self.normalized(batch["image"], batch["valid"])
        maps, changed = self.model().apply(
            step.variables, images, train=True, mutable=["batch_stats"]
        )
        boundary = jax.nn.sigmoid(maps["boundary"])
        labels = _labels_of_blocks(batch["segmentation"], self.stride("boundary"))
        terms = boundary_losses(boundary[..., 0], maps["displacement"], labels, self.radius)
        same = (terms["background"] + terms["foreground"]) / 2
        displaced = terms["displacement_background"] + terms["displacement_foreground"]
        loss = (same + terms["different"]) / 2 + displaced / 2
        model_state = {**step.model_state, **changed}
        return loss, Aux(terms=terms, model_state=model_state, maps={"boundary": boundary})

    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Renames the branches of the published program.

        It also saves them as lists of layers, the mean shift as a part of ``fc_dp7``, and constants
        of its loss.
        """
        again = r"(edge_layers|dp_layers)\..+|fc_dp7\.4\..+|path_indices\d+|disp_target"
        heads = {"fc_edge": "edge.fc_edge", "fc_dp": "displacement.fc_dp"}
        heads["mean_shift"] = "displacement.mean_shift"
        return {
            re.sub("^(fc_edge|fc_dp|mean_shift)", lambda match: heads[match[1]], name): array
            for name, array in arrays.items()
            if not re.fullmatch(again, name)
        }

    def stride(self, output: str) -> int:
        """See `wsss_jax.methods.base.Method`."""
        del output
        return self.backbone.tap_strides["conv3"]

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns ``boundary`` (0…1) and ``displacement``; see `maps`."""
        return self.maps(variables, self.normalized(images, valid), valid)

    def maps(
        self,
        variables: PyTree,
        inputs: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"],
    ) -> dict[str, Array]:
        """Computes the maps of normalized images that are zero outside `valid`.

        Returns:
          ``boundary`` [b, h', w', 1], the probability of a boundary between classes, and
          ``displacement`` [b, h', w', 2], (dy, dx) in pixels of the map.
        """
        stride = self.stride("boundary")
        size = map_size((inputs.shape[1], inputs.shape[2]), stride)
        sizes = valid_size(valid)
        more = [(0, max(self.canvas - side, 0)) for side in inputs.shape[1:3]]
        inputs = jnp.pad(inputs, ((0, 0), *more, (0, 0)))
        seen = _rectangles(jnp.maximum(sizes, self.canvas), inputs)

        views = [(inputs, seen)]
        if self.flip:
            views.append((flip_valid(inputs, sizes[:, 1]), seen))
        # An image and its flipped copy are neighbors, so that they stay on the same device.
        inputs, seen = (
            jnp.stack(one, 1).reshape(-1, *one[0].shape[1:]) for one in zip(*views, strict=True)
        )
        found: Any = self.model().apply(variables, inputs, seen)
        found = {
            name: one.reshape(len(valid), len(views), *one.shape[1:])[:, :, : size[0], : size[1]]
            for name, one in found.items()
        }
        logits, displacement = found["boundary"][:, 0], found["displacement"][:, 0]
        if self.flip:
            flipped = flip_valid(found["boundary"][:, 1], -(-sizes[:, 1] // stride))
            logits = (logits + flipped) / 2
        return {"boundary": jax.nn.sigmoid(logits), "displacement": displacement}


def _labels_of_blocks(labels: UInt8[Array, "b s s"], stride: int) -> UInt8[Array, "b p p"]:
    """Returns the label in the middle of each block of `stride`, or 255 beyond the crop."""
    odd = -labels.shape[1] % stride
    wide = jnp.pad(labels, ((0, 0), (0, odd), (0, odd)), constant_values=IGNORE)
    return wide[:, stride // 2 :: stride, stride // 2 :: stride]


def _rectangles(sizes: Int[Array, "b 2"], like: Array) -> Bool[Array, "b h w"]:
    rows, columns = (jnp.arange(side) < sizes[:, a, None] for a, side in enumerate(like.shape[1:3]))
    return rows[:, :, None] & columns[:, None, :]
