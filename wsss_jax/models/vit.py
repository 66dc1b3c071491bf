"""Plain vision transformers (Dosovitskiy et al., ICLR 2021) in the form of DeiT and DINO.

`wsss_jax.models.augreg`, `wsss_jax.models.dinov2` and `wsss_jax.models.clip_image` are the same
network with the values of other published weights. Parameters have timm's names
(``blocks.0.attn.qkv.weight`` is ``blocks_0/attn_qkv/kernel`` here), and files of other programs are
renamed by `wsss_jax.models.transformer_names`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv
from wsss_jax.models.positions import PositionResize, resize_positions
from wsss_jax.models.taps import map_size
from wsss_jax.models.torch_names import torch_name
from wsss_jax.models.transformer import Activation, Block, layer_norm
from wsss_jax.models.transformer_names import timm_arrays
from wsss_jax.models.transformer_settings import config_settings, npz_settings
from wsss_jax.ops.resize import resize_bilinear, valid_size
from wsss_jax.settings.limits import check_limits, check_positive, check_shares
from wsss_jax.types import ParamRule

_EMBEDDINGS = "(cls_token|dist_token|reg_token|pos_embed|patch_embed_proj|norm_pre)"


class Vit(Backbone):
    """A plain vision transformer, by default DeiT-S/16 or DINO's ViT-S/16.

    The width is 192 (Ti), 384 (S), 768 (B) or 1024 (L, whose depth is 24). An image whose sides are
    no multiples of the patch is resized to whole patches first, as in CLIP-ES's program, so that
    its tokens cover it evenly.

    Attributes:
      patch: the side of a patch in pixels, which is the stride of all maps.
      width: the number of channels of the tokens.
      depth: the number of blocks.
      head_width: the number of channels of an attention head. It is 64 in published weights up to
        ViT-L, 80 in ViT-H/14, and another one computes other features from the same arrays.
      pretrain_size: the side of the images of the pretraining in pixels. The grid of position
        embeddings has a side of `pretrain_size` / `patch`.
      position_resize: how position embeddings are resized to an image; see
        `wsss_jax.models.positions`.
      distilled: whether there is a distillation token (distilled DeiT).
      registers: the number of register tokens.
      pre_norm: whether there is a layer norm before the first block (CLIP).
      patch_bias: whether the patch embedding has a bias.
      activation: the function in the blocks, exact or OpenAI's approximation of GELU.
      norm_epsilon: the number that layer norm adds to the variance.
      layer_scale: the initial value of the factors of the blocks' branches; 0 for no factors.
      embedding: the number of channels of the projection after the last norm (CLIP); 0 for none.
      taps: the three blocks, counted from 0, whose tokens are ``conv3``, ``conv4`` and ``conv5``;
        empty for the last blocks of the first three quarters.
      drop_path: the probability with which a branch of the last block is left out in training; it
        rises linearly from 0 in the first block.
      layer_decay: the learning rate of each block relative to that of the block after it.
      frozen_blocks: how many of the first blocks are frozen, and everything before them; `depth`
        freezes the whole network.
      frozen_positions: whether position embeddings are frozen, as in ToCo's program.
      remat: whether the backward pass recomputes the activations inside the blocks.
    """

    patch: int = 16
    width: int = 384
    depth: int = 12
    head_width: int = 64
    pretrain_size: int = 224
    position_resize: PositionResize = "bicubic"
    distilled: bool = False
    registers: int = 0
    pre_norm: bool = False
    patch_bias: bool = True
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-6
    layer_scale: float = 0.0
    embedding: int = 0
    taps: tuple[int, ...] = ()
    drop_path: float = 0.0
    layer_decay: float = 1.0
    frozen_blocks: int = 0
    frozen_positions: bool = False
    remat: bool = False

    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675, 116.28, 103.53)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395, 57.12, 57.375)
    not_in_files: ClassVar[tuple[str, ...]] = (
        *("head_width", "position_resize", "activation", "norm_epsilon"),
    )

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: the network cannot have them.
        """
        sizes = ("patch", "width", "depth", "head_width", "pretrain_size")
        check_limits(self, **dict.fromkeys(sizes, (1, math.inf)))
        check_limits(self, **dict.fromkeys(("registers", "embedding"), (0, math.inf)))
        check_positive(self, "layer_decay")
        check_shares(self, "drop_path")
        if self.width % self.head_width:
            raise UserError(
                f"expected width to be a multiple of head_width ({self.head_width}), found"
                f" {self.width}: change one of them"
            )
        if self.pretrain_size % self.patch:
            raise UserError(
                f"expected pretrain_size to be a multiple of the patch ({self.patch}), found"
                f" {self.pretrain_size}: change one of them"
            )
        if self.taps and (len(self.taps) != 3 or not set(self.taps) <= set(range(self.depth))):
            raise UserError(
                f"expected taps to be three blocks from 0 to {self.depth - 1}, found {self.taps}"
            )
        if not 0 <= self.frozen_blocks <= self.depth:
            raise UserError(
                f"expected frozen_blocks from 0 to the depth ({self.depth}), found"
                f" {self.frozen_blocks}: change it"
            )
        super().__post_init__()

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        return dict.fromkeys(("conv3", "conv4", "conv5", "conv6"), self.patch)

    @property
    def prefix_tokens(self) -> int:
        """The number of tokens before those of the patches."""
        return 1 + self.distilled + self.registers

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the first `frozen_blocks` and position embeddings if they are to be frozen."""
        if self.frozen_blocks == self.depth:
            return ("backbone/",)
        found = ("backbone/pos_embed$",) if self.frozen_positions else ()
        if self.frozen_blocks:
            blocks = "|".join(str(number) for number in range(self.frozen_blocks))
            found += (f"backbone/{_EMBEDDINGS}", f"backbone/blocks_({blocks})/")
        return found

    @nn.nowrap
    def param_rules(self) -> tuple[ParamRule, ...]:
        """Lets rates fall from the last block to the patches; only matrices decay."""
        blocks = [rf"blocks_{number}/" for number in range(self.depth)]
        vectors = "(bias|scale|gamma|_token|pos_embed)$"
        rules = [ParamRule(f"^(?:{pattern})", frozen=True) for pattern in self.frozen()]
        for below, layer in enumerate(reversed([_EMBEDDINGS, *blocks, "(norm|head)/"])):
            lr = self.layer_decay**below
            rules.append(ParamRule(f"^backbone/(?={layer}).*{vectors}", lr, decay=False))
            rules.append(ParamRule(f"^backbone/{layer}", lr))
        return tuple(rules)

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Gives the arrays timm's names and leaves out classifiers.

        CLIP's projection is kept if there is an `embedding`.
        """
        found = timm_arrays(arrays)
        heads = r"(head_dist|head|fc_norm|pre_logits)\."
        kept = "head.weight" if self.embedding else None
        return {n: a for n, a in found.items() if n == kept or not re.match(heads, n)}

    @classmethod
    def shown_settings(cls, arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """See `Backbone`; `embedding` is not among them, since a projection can be left out."""
        found = timm_arrays(arrays)
        kernel, positions = found.get("patch_embed.proj.weight"), found.get("pos_embed")
        registers = found.get("reg_token", np.zeros((1, 0, 1)))
        if kernel is None or positions is None:
            return {}
        if (kernel.ndim, positions.ndim, registers.ndim) != (4, 3, 3):
            return {}
        width, patch = len(kernel), kernel.shape[2]
        before = 1 + ("dist_token" in found)
        scaled = any(name.endswith(".ls1.gamma") for name in found)
        return dict(
            patch=patch,
            width=width,
            depth=len({name.split(".")[1] for name in found if name.startswith("blocks.")}),
            head_width=npz_settings(arrays).get("head_width", math.gcd(width, cls.head_width)),
            pretrain_size=patch * math.isqrt(max(positions.shape[1] - before, 0)),
            distilled=before == 2,
            registers=registers.shape[1],
            pre_norm="norm_pre.weight" in found,
            patch_bias="patch_embed.proj.bias" in found,
            layer_scale=(cls.layer_scale or 1e-6) if scaled else 0.0,
        )

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns timm's name: ``blocks_0/attn_qkv/kernel`` is ``blocks.0.attn.qkv.weight``."""
        return re.sub(r"\b(patch_embed|blocks|attn|mlp|ls\d)_", r"\1.", torch_name(path))

    @nn.nowrap
    def resize_param(
        self, path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Resizes position embeddings of another square grid; those of tokens stay as they are."""
        if path[-1] != "pos_embed" or array.ndim != 3 or len(array) != 1:
            return array
        before = 1 + self.distilled
        side = math.isqrt(max(array.shape[1] - before, 0))
        if side == 0 or side * side != array.shape[1] - before:
            return array
        size = (self.pretrain_size // self.patch, self.pretrain_size // self.patch)
        grid = jnp.asarray(array[0, before:].reshape(side, side, -1), jnp.float32)
        resized = resize_positions(grid, size, jnp.array([size]), self.position_resize)
        return np.concatenate(
            [array[:, :before], np.asarray(resized).reshape(1, size[0] ** 2, -1)], 1
        )

    @nn.nowrap
    def stated_settings(
        self, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Returns what Hugging Face's file and the kernels of an ``.npz`` state."""
        return config_settings(config, "vision_config", self.width) | npz_settings(arrays)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`. Arrays that a jitted caller does not use cost nothing.

        Returns:
          ``conv3`` to ``conv5``, the tokens of three blocks as maps, and ``conv6``, those of the
          last norm. For every block, counted from 0, its tokens as a map ``blocks_0`` and its
          attention ``attention_0`` [b, heads, n, n]: row q says how much the token q looks at each
          token. The n tokens are the class token, the distillation token, the registers and the
          patches, row by row; there are `prefix_tokens` before the patches. ``class_token`` and
          ``distillation_token`` [b, width] of the last norm. With an `embedding`, the projections
          ``class_embedding`` [b, e] and ``embedding`` [b, h', w', e] of both.
        """
        batch, prefix = len(x), self.prefix_tokens
        size = map_size((x.shape[1], x.shape[2]), self.patch)
        x, sizes = self._whole_patches(x, size, valid)
        x = Conv(
            self.width,
            self.patch,
            self.patch,
            padding=((0, 0), (0, 0)),
            use_bias=self.patch_bias,
            dtype=self.dtype,
            name="patch_embed_proj",
        )(x)
        x = self._tokens(x, sizes)
        mask = None
        if valid is not None:
            seen = valid[:, :: self.patch, :: self.patch].reshape(batch, -1)
            seen = jnp.pad(seen, ((0, 0), (prefix, 0)), constant_values=True)
            mask = seen[:, None, None]
        if self.pre_norm:
            x = layer_norm(self.norm_epsilon, self.dtype, "norm_pre")(x)

        def as_map(tokens: Array) -> Array:
            return tokens[:, prefix:].reshape(batch, *size, -1)

        found: dict[str, Array] = {}
        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        for number in range(self.depth):
            layer = block(
                self.width // self.head_width,
                self.activation,
                self.norm_epsilon,
                self.layer_scale,
                self.drop_path * number / max(self.depth - 1, 1),
                self.dtype,
                name=f"blocks_{number}",
            )
            x, found[f"attention_{number}"] = layer(x, mask, train)
            found[f"blocks_{number}"] = as_map(x)
        quarters = tuple((quarter * self.depth - 1) // 4 for quarter in (1, 2, 3))
        for name, number in zip(("conv3", "conv4", "conv5"), self.taps or quarters, strict=True):
            found[name] = found[f"blocks_{number}"]
        x = layer_norm(self.norm_epsilon, self.dtype, "norm")(x)
        found |= {"conv6": as_map(x), "class_token": x[:, 0]}
        if self.distilled:
            found["distillation_token"] = x[:, 1]
        if self.embedding:
            head = nn.Dense(self.embedding, use_bias=False, dtype=self.dtype, name="head")
            found |= {"class_embedding": head(x[:, 0]), "embedding": head(found["conv6"])}
        return found

    @nn.nowrap
    def _whole_patches(
        self, x: Array, size: tuple[int, int], valid: Array | None
    ) -> tuple[Array, Int[Array, "n 2"]]:
        """Resizes images to whole patches; returns the sizes of their maps, too, or of all maps."""
        canvas = (size[0] * self.patch, size[1] * self.patch)
        if valid is None:
            return resize_bilinear(x, canvas, align_corners=False), jnp.array([size])
        in_size = valid_size(valid)
        sizes = -(-in_size // self.patch)
        x = resize_bilinear(
            x, canvas, align_corners=False, in_size=in_size, out_size=sizes * self.patch
        )
        return x, sizes

    def _tokens(self, x: Float[Array, "b h w d"], sizes: Int[Array, "n 2"]) -> Array:
        """Adds positions to the patches, and puts the other tokens before them."""
        normal, batch = nn.initializers.normal(0.02), len(x)
        before, grid = 1 + self.distilled, self.pretrain_size // self.patch
        positions = self.param("pos_embed", normal, (1, before + grid**2, self.width))
        added = resize_positions(
            positions[0, before:].reshape(grid, grid, -1),
            (x.shape[1], x.shape[2]),
            sizes,
            self.position_resize,
        )
        x = x + added.astype(x.dtype)
        tokens = []
        for number, name in enumerate(("cls_token", "dist_token")[:before]):
            token = self.param(name, normal, (1, 1, self.width))
            tokens.append(token + positions[:, number : number + 1])
        if self.registers:
            tokens.append(self.param("reg_token", normal, (1, self.registers, self.width)))
        prefix = jnp.concatenate(tokens, 1).astype(x.dtype)
        prefix = jnp.broadcast_to(prefix, (batch, *prefix.shape[1:]))
        return jnp.concatenate([prefix, x.reshape(batch, -1, self.width)], 1)
