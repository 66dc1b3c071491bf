"""Position embeddings of a square grid, resized to maps of any size as published programs do it."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PositionResize = Literal["bicubic", "bicubic_offset", "bicubic_antialias"]
"""How programs resize position embeddings; all of them use half-pixel centers.

- ``bicubic``: a = −0.75, with indices beyond the grid clamped, as PyTorch does it. DeiT's
  fine-tuning, MCTformer, ToCo, and Hugging Face's ViT, CLIP and DINOv2 without registers.
- ``bicubic_offset``: the same, but the scale factor is (size + 0.1) / grid unless the size is that
  of the grid. DINO, and DINOv2 without registers.
- ``bicubic_antialias``: a = −0.5, with a kernel that widens where a grid gets smaller and is
  normalized at the border. timm, and DINOv2 with registers.
"""


def _cubic(distance: Array, a: float) -> Array:
    """Returns the cubic convolution kernel (Keys, 1981) with the slope `a` at a distance of 1."""
    d = jnp.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return jnp.where(d <= 1, near, jnp.where(d < 2, far, 0))


def _weights(
    grid: int, length: int, sizes: Int[Array, " b"], offset: Array, antialias: bool
) -> Float[Array, "b n g"]:
    """Returns matrices that resize rows of `grid` samples to the first `sizes` of `length` samples.

    `offset` is 1 for each row whose scale factor is that of a size larger by a tenth, or 0.
    """
    sizes = jnp.maximum(sizes, 1)[:, None]  # images of a batch may be empty
    row = jnp.minimum(jnp.arange(length), sizes - 1)
    # The source position is a fraction of integers, so a padded image gets exactly the weights of
    # an unpadded one, and a grid of the same size stays as it is.
    tenths = 10 * sizes + offset[:, None]
    numerator, denominator = (2 * row + 1) * 10 * grid - tenths, 2 * tenths
    low = numerator // denominator
    part = (numerator - low * denominator) / denominator
    if antialias:
        distance = jnp.arange(grid) - low[..., None] - part[..., None]
        matrix = _cubic(distance / jnp.maximum(grid / sizes, 1)[..., None], a=-0.5)
        return matrix / matrix.sum(-1, keepdims=True)
    matrix = jnp.zeros((*low.shape, grid))
    for tap in (-1, 0, 1, 2):
        place = jnp.clip(low + tap, 0, grid - 1)
        matrix += _cubic(part - tap, a=-0.75)[..., None] * jax.nn.one_hot(place, grid)
    return matrix


def resize_positions(
    positions: Float[Array, "g g d"],
    size: tuple[int, int],
    sizes: Int[Array, "b 2"],
    how: PositionResize = "bicubic",
) -> Float[Array, "b h w d"]:
    """Resizes position embeddings to the maps of a batch.

    Args:
      positions: the embeddings of a square grid.
      size: (height, width) of the result.
      sizes: (height, width) of the top-left part of each map that the image fills. This part gets
        what a map of this size would get; the values beyond it are finite and have no meaning.
      how: the program to follow.
    """
    grid = positions.shape[0]
    tenth = jnp.any(sizes != grid, axis=1) & (how == "bicubic_offset")
    rows, columns = (
        _weights(grid, size[axis], sizes[:, axis], tenth, how == "bicubic_antialias")
        for axis in (0, 1)
    )
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("bhg,bwk,gkd->bhwd", rows, columns, positions, precision=highest)
