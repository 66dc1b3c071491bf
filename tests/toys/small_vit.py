"""A small vision transformer as a backbone outside the package: all that one has to state.

Pre-norm blocks and names of timm's ``vision_transformer``; position embeddings are resized as in
ToCo's program (bicubic, a = −0.75, half-pixel, not antialiased).
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv, Dtype, downsample_valid, mask_features
from wsss_jax.models.taps import map_size
from wsss_jax.ops.resize import valid_size
from wsss_jax.types import ParamRule


def _bicubic(grid: int, length: int, sizes: Int[Array, " b"]) -> Float[Array, "b n g"]:
    """Matrices that resize a row of `grid` numbers to the first `sizes` of `length`."""
    sizes = jnp.maximum(sizes, 1)  # rows of a batch may be empty
    numerator = (2 * jnp.arange(length) + 1) * grid - sizes[:, None]
    low = numerator // (2 * sizes[:, None])
    part = (numerator - low * 2 * sizes[:, None]) / (2 * sizes[:, None])
    matrix = jnp.zeros((len(sizes), length, grid))
    for tap in (-1, 0, 1, 2):
        d, a = jnp.abs(part - tap), -0.75
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        place = jnp.clip(low + tap, 0, grid - 1)
        matrix += jnp.where(d <= 1, near, far)[..., None] * jax.nn.one_hot(place, grid)
    return matrix


def resize_positions(
    positions: Float[Array, "g g d"], size: tuple[int, int], sizes: Int[Array, "b 2"]
) -> Float[Array, "b h w d"]:
    """Position embeddings for maps of `size`, of which `sizes` belong to each image."""
    rows = _bicubic(positions.shape[0], size[0], sizes[:, 0])
    columns = _bicubic(positions.shape[1], size[1], sizes[:, 1])
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("bhg,bwk,gkd->bhwd", rows, columns, positions, precision=highest)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, name=name)


class _Block(nn.Module):
    heads: int
    layer_scale: float
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, seen: Bool[Array, "b n"]) -> Array:
        width = x.shape[-1]
        shape = (3, self.heads, width // self.heads)
        y = nn.DenseGeneral(shape, dtype=self.dtype, name="attn_qkv")(_norm("norm1")(x))
        query, key, value = jnp.moveaxis(y, 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
        scores = jnp.where(seen[:, None, None], scores * shape[-1] ** -0.5, -1e30)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(self.dtype), value)
        y = nn.Dense(width, dtype=self.dtype, name="attn_proj")(y.reshape(x.shape))
        x = x + self._scaled(y, "ls1")
        y = nn.Dense(4 * width, dtype=self.dtype, name="mlp_fc1")(_norm("norm2")(x))
        y = nn.Dense(width, dtype=self.dtype, name="mlp_fc2")(nn.gelu(y, approximate=False))
        return x + self._scaled(y, "ls2")

    def _scaled(self, y: Array, name: str) -> Array:
        if not self.layer_scale:
            return y
        init = nn.initializers.constant(self.layer_scale)
        return y * self.param(f"{name}_gamma", init, (y.shape[-1],)).astype(y.dtype)


class SmallVit(Backbone):
    """A plain transformer; all taps have the stride of the patches.

    Attributes:
      patch: side of a patch, pixels.
      width: channels.
      depth: blocks, at least 4.
      heads: of the attention.
      grid: side of the grid of position embeddings.
      layer_scale: first value of the scale of the blocks' branches; 0 for none.
      layer_decay: rate of each block relative to the one after it.
    """

    patch: int = 14
    width: int = 32
    depth: int = 4
    heads: int = 4
    grid: int = 5
    layer_scale: float = 0.1
    layer_decay: float = 0.75

    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675, 116.28, 103.53)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395, 57.12, 57.375)

    @property
    def tap_strides(self) -> Mapping[str, int]:
        return dict.fromkeys(("conv3", "conv4", "conv5", "conv6"), self.patch)

    @nn.nowrap
    def param_rules(self) -> tuple[ParamRule, ...]:
        """Rates fall from the last block to the patches; vectors do not decay."""
        blocks = [rf"blocks_{number}/" for number in range(self.depth)]
        layers = ["(cls_token|pos_embed|patch_embed)", *blocks, "norm/"]
        vectors = "(bias|scale|gamma|cls_token|pos_embed)$"
        rules = []
        for below, layer in enumerate(reversed(layers)):
            lr = self.layer_decay**below
            rules.append(ParamRule(f"^backbone/(?={layer}).*{vectors}", lr, decay=False))
            rules.append(ParamRule(f"^backbone/{layer}", lr))
        return tuple(rules)

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """timm's; its classifier is left out."""
        return {name: a for name, a in arrays.items() if not name.startswith("head.")}

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """timm's: ``blocks_0/attn_qkv/kernel`` is ``blocks.0.attn.qkv.weight``."""
        name = super().import_name(path)
        return re.sub(r"\b(patch_embed|blocks|attn|mlp|ls\d)_", r"\1.", name)

    @nn.nowrap
    def import_layout(self, path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
        """timm's rows of query, key and value are axes of their own here."""
        array = super().import_layout(path, array)
        if path[-2] == "attn_qkv":
            return array.reshape(*array.shape[:-1], 3, self.heads, -1)
        return array

    @nn.nowrap
    def resize_param(
        self, path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Position embeddings, the class token's first, of another square grid."""
        side = math.isqrt(array.shape[1] - 1) if array.ndim == 3 else 0
        if path[-1] != "pos_embed" or side == 0 or side * side != array.shape[1] - 1:
            return array
        grid = array[0, 1:].reshape(side, side, -1)
        size = (self.grid, self.grid)
        resized = resize_positions(jnp.asarray(grid), size, jnp.array([size]))
        return np.concatenate([array[:, :1], resized.reshape(1, self.grid**2, -1)], 1)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Maps of the blocks at each quarter of the depth, the last normalized, and class tokens.

        Returns:
          ``conv3`` to ``conv6``, and ``class_token`` [b, width].
        """
        del train
        batch, width = len(x), self.width
        x = mask_features(x.astype(self.dtype), valid)
        bottom, right = ((0, -side % self.patch) for side in x.shape[1:3])
        size = map_size((x.shape[1], x.shape[2]), self.patch)
        x = Conv(
            width,
            self.patch,
            self.patch,
            padding=(bottom, right),
            use_bias=True,
            dtype=self.dtype,
            name="patch_embed_proj",
        )(x)
        seen = downsample_valid(valid, self.patch)
        seen = jnp.ones((batch, *size), bool) if seen is None else seen
        normal = nn.initializers.normal(0.02)
        positions = self.param("pos_embed", normal, (1, 1 + self.grid**2, width))
        grid = positions[0, 1:].reshape(self.grid, self.grid, width)
        x = x + resize_positions(grid, size, valid_size(seen)).astype(self.dtype)
        token = self.param("cls_token", normal, (1, 1, width)) + positions[:, :1]
        token = jnp.broadcast_to(token.astype(self.dtype), (batch, 1, width))
        x = jnp.concatenate([token, x.reshape(batch, -1, width)], 1)
        seen = jnp.pad(seen.reshape(batch, -1), ((0, 0), (1, 0)), constant_values=True)
        found: dict[str, Any] = {}
        for number in range(self.depth):
            block = _Block(self.heads, self.layer_scale, self.dtype, name=f"blocks_{number}")
            x = block(x, seen)
            found[f"conv{3 + 4 * number // self.depth}"] = x
        found["conv6"] = x = _norm("norm")(x)
        maps = {n: y[:, 1:].reshape(batch, *size, width) for n, y in found.items()}
        return {**{n: y.astype(jnp.float32) for n, y in maps.items()}, "class_token": x[:, 0]}
