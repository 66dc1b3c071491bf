"""Inference over scales and flips in one program for images of any size.

`wsss_jax.inference.multi_scale` resizes images on the host and knows their sizes when it compiles.
Here everything is inside the program, whose shapes may be symbolic, so that `jax.export` can write
it to a file. The sums of maps are made by the same functions.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, PyTree, UInt8

from wsss_jax.errors import UserError
from wsss_jax.inference.device_sum import Wanted, add_scale
from wsss_jax.inference.multi_scale import MultiScale
from wsss_jax.methods.base import Method
from wsss_jax.ops.bicubic import resize_like_pillow

Summed = tuple[Float32[Array, "k h w"], Bool[Array, "h w"]]
"""The sum of a network's maps over all views of an image, and the pixels of the image."""

SumOfViews = Callable[[PyTree, UInt8[Array, "h w 3"], Int[Array, "2"]], Summed]
"""A function ``(weights, image, size) -> (maps, inside)``; see `sum_of_views`."""

_DENOMINATOR = 1000
"""The largest denominator of a scale, with which sizes are computed as whole numbers."""


def sum_of_views(method: Method, output: str, how: MultiScale) -> SumOfViews:
    """Returns a function that sums a prediction over scales and flips at the image's size.

    Its arguments are the weights by collection, an image whose sides may be symbolic, and the
    height and width of its top-left part that counts. The limit `MultiScale.max_pixels` is not
    applied, because the sizes of arrays cannot depend on it.

    Raises:
      UserError: the backbone cannot pad images, or a scale is not a ratio of small numbers.
    """
    if not method.backbone.exact_padding:
        raise UserError(
            "expected a backbone that allows padded images, found one with exact_padding=False: a"
            " program for images of any size needs padding; choose another network"
        )
    scales = [_ratio(scale) for scale in how.scales]
    multiple = math.lcm(*method.backbone.tap_strides.values())
    stride = method.stride(output)

    def summed(weights: PyTree, image: UInt8[Array, "h w 3"], size: Int[Array, "2"]) -> Summed:
        full = (image.shape[0], image.shape[1])
        size = jnp.clip(size, 1, jnp.asarray(full))
        inside = _inside(full, size)
        total: Any = jnp.zeros((), jnp.float32)
        for scale in scales:
            canvas: Any = tuple(_rounded_up(side, scale, multiple) for side in full)
            scaled = jnp.maximum(_nearest(size, scale), 1)
            if scale == 1:
                added = tuple((0, new - old) for new, old in zip(canvas, full, strict=True))
                view = jnp.pad(image, (*added, (0, 0)))
            else:
                view = resize_like_pillow(image, size, canvas, scaled)
            valid = _inside(canvas, scaled)
            view = jnp.where(valid[..., None], view, 0)
            views, valids = [view], [valid]
            if how.flip:
                # The flipped image lies at the top left, too.
                back = jnp.maximum(scaled[1] - 1 - jnp.arange(canvas[1]), 0)
                views.append(jnp.where(valid[..., None], jnp.take(view, back, 1), 0))
                valids.append(valid)
            maps = method.predict(weights, jnp.stack(views), jnp.stack(valids))[output]
            total = add_scale(
                jnp.broadcast_to(total, (1, maps.shape[-1], *full)),
                maps,
                (-(-scaled // stride))[None],
                scaled[None],
                _all_channels(maps.shape[-1], size),
                copies=how.copies,
                padded=canvas,
                upsample=how.upsample,
                relu_each=how.relu_each,
            )[0]
        return total, inside

    return summed


def _ratio(scale: float) -> Fraction:
    ratio = Fraction(scale).limit_denominator(_DENOMINATOR)
    if not math.isclose(ratio, scale, rel_tol=1e-6):
        raise UserError(
            f"expected scales that are ratios of numbers up to {_DENOMINATOR}, found {scale}:"
            f" choose {float(ratio):g}, for example"
        )
    return ratio


def _rounded_up(side: Any, scale: Fraction, multiple: int) -> Any:
    """Returns the smallest multiple that holds a scaled side, which may be symbolic."""
    divisor = multiple * scale.denominator
    return multiple * ((side * scale.numerator + divisor - 1) // divisor)


def _nearest(size: Int[Array, "2"], scale: Fraction) -> Int[Array, "2"]:
    """Returns scaled sides, rounded to the nearest whole number; halves to the even one."""
    low, rest = jnp.divmod(size * scale.numerator, scale.denominator)
    up = (2 * rest > scale.denominator) | ((2 * rest == scale.denominator) & (low % 2 == 1))
    return low + up


def _inside(canvas: tuple[int, int], size: Int[Array, "2"]) -> Bool[Array, "h w"]:
    """Marks the top-left part of a canvas."""
    return (jnp.arange(canvas[0])[:, None] < size[0]) & (jnp.arange(canvas[1]) < size[1])


def _all_channels(count: int, size: Int[Array, "2"]) -> Wanted:
    wanted: Any = (jnp.arange(count)[None], jnp.full(1, count), size[None])
    return Wanted(*wanted)
