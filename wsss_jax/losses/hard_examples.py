"""Losses over selected entries: the largest differences, or the smallest responses."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from wsss_jax.ops.max_norm import strongest


def _kth_smallest(
    values: Float[Array, "b n"], count: int | Int[Array, "b 1"]
) -> Float[Array, "b 1"]:
    """Returns the exact `count`-th smallest entry of each row.

    The entry is found digit by digit, with the floats mapped to integers of the same order. Each
    digit takes a pass that compares and counts. A CPU takes 32 digits of one bit; sorting the
    entries takes 30 times as long there. A GPU spends more time on starting a pass than on its
    arithmetic, so it takes 8 digits of 4 bits.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    top = jnp.uint32(1 << 31)
    keys = jnp.where(bits >= top, ~bits, bits | top)
    few = functools.partial(_kth_key, width=4)
    key = jax.lax.platform_dependent(
        keys, jnp.asarray(count), cuda=few, rocm=few, default=functools.partial(_kth_key, width=1)
    )
    edge = jnp.where(key >= top, key ^ top, ~key)
    return jax.lax.bitcast_convert_type(edge, jnp.float32)


def _kth_key(
    keys: UInt32[Array, "b n"], count: Int[Array, "*b1"], width: int
) -> UInt32[Array, "b 1"]:
    """Returns the `count`-th smallest key of each row, with digits of `width` bits."""
    digits = jnp.arange(1, 1 << width, dtype=jnp.uint32)

    def add_digit(position: Array | int, prefix: Array) -> Array:
        shift = jnp.uint32(32 - width) - jnp.uint32(width) * jnp.asarray(position, jnp.uint32)
        candidates = prefix | (digits << shift)
        below = jnp.sum(keys[:, None] < candidates[..., None], axis=-1, dtype=jnp.int32)
        # The counts grow with the digit: as many candidates as have too few keys below them.
        digit = jnp.sum(below < count, axis=-1, keepdims=True, dtype=jnp.uint32)
        return prefix | (digit << shift)

    start = jnp.zeros((keys.shape[0], 1), jnp.uint32)
    return jax.lax.fori_loop(0, 32 // width, add_digit, start, unroll=width > 1)


def _smallest_mask(
    values: Float[Array, "b n"], count: int | Int[Array, "b 1"]
) -> Float[Array, "b n"]:
    """Weights the `count` smallest entries of each row with 1; ties at the edge share the rest.

    The selection needs no gather and its gradient no scatter, and equal entries get equal gradients
    on every device.
    """
    # Adding zero turns -0.0 into 0.0, whose bits differ.
    values = jax.lax.stop_gradient(values) + 0.0
    edge = _kth_smallest(values, count)
    below, at = values < edge, values == edge
    missing = count - below.sum(-1, keepdims=True)
    return below + at * (missing / at.sum(-1, keepdims=True))


def hardest_l1(
    target: Float[Array, "b c h w"],
    prediction: Float[Array, "b c h w"],
    fraction: float,
    channels: int | None = None,
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, ""]:
    """Averages the largest absolute differences of each image, which is one half of SEAM's L_ECR.

    The ``⌊fraction·h·w·c⌋`` largest entries of an image count, over all its pixels and channels
    (online hard example mining, arXiv 2004.04581).

    Args:
      target: the maps to match.
      prediction: the maps that are compared with them.
      fraction: the share of the entries that count.
      channels: c, when channels that are zero in both maps were left out; by default the number of
        channels given.
      valid: pixels that count, by default all; h·w is then the number of valid pixels.
    """
    channels = channels or target.shape[1]
    difference = jnp.abs(target - prediction)
    if valid is not None:
        difference = jnp.where(valid[:, None], difference, 0).reshape(target.shape[0], -1)
        pixels = valid.sum((1, 2))[:, None]
        count = jnp.maximum((pixels * channels * fraction).astype(jnp.int32), 1)
        mask = _smallest_mask(-difference, jnp.minimum(count, difference.shape[1]))
        return jnp.mean(jnp.sum(difference * mask, -1) / count[:, 0])
    difference = difference.reshape(target.shape[0], -1)
    count = max(int(target.shape[2] * target.shape[3] * channels * fraction), 1)
    if count >= difference.shape[1]:  # entries that were left out are zero
        return jnp.mean(difference.sum(-1)) / count
    return jnp.mean(jnp.sum(difference * _smallest_mask(-difference, count), -1) / count)


def smallest_response(maps: Float[Array, "b c h w"], fraction: float = 0.25) -> Float[Array, ""]:
    """Averages the positive responses of the least active pixels, which makes them background.

    With m the maximum over the channels, the ``⌊fraction·h·w⌋`` smallest m of each image count.
    SEAM's program uses a quarter of the pixels.
    """
    response = strongest(maps).reshape(maps.shape[0], -1)
    count = max(int(response.shape[1] * fraction), 1)
    kept = jax.nn.relu(response) * _smallest_mask(response, count)
    return jnp.mean(jnp.sum(kept, -1) / count)
