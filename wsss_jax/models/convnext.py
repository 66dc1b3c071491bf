"""ConvNeXt-T and ConvNeXt-S (Liu et al., CVPR 2022), with dilation and taps.

Parameters have the names of the authors' program (``stages.0.1.pwconv1.weight`` is
``stages_0_1/pwconv1/kernel`` here); files may also have torchvision's or timm's.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv, DepthwiseConv, Dtype, downsample_valid, mask_features
from wsss_jax.models.torch_names import torch_name
from wsss_jax.types import ParamRule

BLOCKS: dict[str, tuple[int, ...]] = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3)}
"""The number of blocks in each stage, by size."""
WIDTHS = (96, 192, 384, 768)
"""The channels of each stage."""

_TORCHVISION = {"0": "dwconv", "2": "norm", "3": "pwconv1", "5": "pwconv2"}
_TIMM = {"conv_dw": "dwconv", "mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2"}


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, name=name)


class _Block(nn.Module):
    """A depthwise 7×7 layer and two linear ones, whose result is scaled and added."""

    dilation: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, valid: Array | None) -> Array:
        width = x.shape[-1]
        fields: Any = dict(dilation=self.dilation, use_bias=True, dtype=self.dtype, name="dwconv")
        y = _norm("norm")(DepthwiseConv(7, **fields)(mask_features(x, valid)))
        y = nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="pwconv1")(y), approximate=False)
        y = nn.Dense(width, dtype=self.dtype, name="pwconv2")(y)
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (width,), jnp.float32)
        return x + gamma.astype(self.dtype) * y


class ConvNeXt(Backbone):
    """ConvNeXt, without stochastic depth.

    Attributes:
      size: ``tiny`` (27.8 million parameters) or ``small`` (49.5).
      output_stride: strides beyond it become dilations, in the form of timm.
      frozen_stages: how many of the four stages are frozen, together with what is before them.
      remat: whether the backward pass recomputes the activations inside the blocks.
    """

    size: Literal["tiny", "small"] = "tiny"
    output_stride: Literal[8, 16, 32] = 16
    frozen_stages: Literal[0, 1, 2, 3, 4] = 0
    remat: bool = False

    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675, 116.28, 103.53)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395, 57.12, 57.375)

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        last = self.output_stride
        return {"conv3": 4, "conv4": 8, "conv5": min(last, 16), "conv6": last}

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the first `frozen_stages`."""
        frozen = rf"backbone/(stages|downsample_layers)_[0-{self.frozen_stages - 1}]_"
        return (frozen,) if self.frozen_stages else ()

    @nn.nowrap
    def param_rules(self) -> tuple[ParamRule, ...]:
        """Trains all at the base rate; vectors do not decay."""
        return (
            *(ParamRule(f"^(?:{pattern})", frozen=True) for pattern in self.frozen()),
            ParamRule("^backbone/.*(scale|bias|gamma)$", decay=False),
            ParamRule("^backbone/"),
        )

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns the authors' name: ``stages_0_1/norm`` is ``stages.0.1.norm``."""
        return re.sub(r"_(?=\d)", ".", torch_name(path))

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Renames the arrays of torchvision's and timm's files; the classifier is left out."""
        found = {}
        for name, array in arrays.items():
            if re.fullmatch(r"(head\.|head\.fc\.|classifier\.2\.)(weight|bias)", name):
                continue
            name = re.sub(r"^(classifier\.0|head\.norm)\.", "norm.", name)
            name = re.sub(r"^stem\.", "downsample_layers.0.", name)
            name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
            if match := re.fullmatch(r"features\.(\d)\.(\d+)\.(.+)", name):
                level, number = int(match[1]), match[2]
                rest = re.sub(r"^block\.([0235])", lambda m: _TORCHVISION[m[1]], match[3])
                if rest == "layer_scale":
                    rest, array = "gamma", array.reshape(-1)
                part = "stages" if level % 2 else "downsample_layers"
                name = f"{part}.{level // 2}.{number}.{rest}"
            elif match := re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)\.(.+?)(\.\w+)?", name):
                layer = _TIMM.get(match[3], match[3]) + (match[4] or "")
                name = f"stages.{match[1]}.{match[2]}.{layer}"
            found[name] = array
        return found

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`; the maps are the results of the four stages, the last one normalized."""
        del train
        x, taps, total, dilation = x.astype(self.dtype), {}, 1, 1
        block = nn.remat(_Block) if self.remat else _Block
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[self.size], strict=True)):
            step = size = 2 if stage else 4
            rate, before = 1, 0
            if total * step > self.output_stride:
                # The dilation of this layer is that of the stage before, and its padding timm's.
                step, rate, before, dilation = 1, dilation, dilation // 2, 2 * dilation
            after = (rate - before if step == 1 else -n % step for n in x.shape[1:3])
            names = [f"downsample_layers_{stage}_{number}" for number in range(2)]
            x = _norm(names[0])(x) if stage else x
            padding: Any = tuple((before, end) for end in after)
            fields: Any = dict(use_bias=True, dtype=self.dtype, name=names[1 if stage else 0])
            x = Conv(width, size, step, rate, padding, **fields)(mask_features(x, valid))
            x = x if stage else _norm(names[1])(x).astype(self.dtype)
            total, valid = total * step, downsample_valid(valid, step)
            for number in range(blocks):
                x = block(dilation, self.dtype, name=f"stages_{stage}_{number}")(x, valid)
            taps[f"conv{stage + 3}"] = x
        taps["conv6"] = _norm("norm")(x).astype(self.dtype)
        return taps
