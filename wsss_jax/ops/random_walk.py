"""The random walk that spreads scores over an image, written as a stencil.

AffinityNet (CVPR 2018) and IRNet (CVPR 2019) square a dense matrix of all pixel pairs t times and
multiply the scores by it. The same result takes 2^t sparse steps, each of which reads the two
pixels of every pair, and even fewer steps as a sum of Chebyshev polynomials. This is hundreds of
times faster and needs no dense matrix. It is computed in float32 on every device, because it has no
matrix products, whose precision some devices reduce.
"""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from wsss_jax.ops.path_index import Offset

_NEGLIGIBLE = 1e-7


@functools.partial(jax.jit, static_argnames=("offsets", "steps"))
def random_walk(
    scores: Float[Array, "b h w k"],
    affinity: Float[Array, "b h w o"],
    *,
    offsets: tuple[Offset, ...],
    beta: float | Float[Array, ""],
    steps: int,
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, "b h w k"]:
    """Computes ``scores · T^steps``, with T the matrix of affinity^beta with normalized columns.

    One step replaces the score of a pixel by the weighted mean over itself (weight 1) and its
    partners (weight affinity^beta). Pairs that leave the map or its valid part have weight 0, and
    pixels outside the valid part keep their scores. Sums of scores that are weighted by the
    original sums of the columns do not change.

    Args:
      scores: the scores of any number of classes.
      affinity: values in 0…1 for the pairs that `offsets` = (dy, dx) lead to from each pixel; zero
        where there is no pair.
      offsets: every pair once, in one of its two directions.
      beta: an exponent above 0; large values leave only strong affinities.
      steps: the number of steps, at least 0; the papers use 2^t.
      valid: the part of each map that is not padding.

    Raises:
      ValueError: `steps` is negative, or there is not one affinity per offset.
    """
    if steps < 0 or affinity.shape[-1] != len(offsets):
        found = f"{steps} steps, {affinity.shape[-1]} affinities, {len(offsets)} offsets"
        raise ValueError(f"expected 0 steps or more and an affinity per offset, found {found}")
    b, h, w, k = scores.shape
    if not offsets:
        return scores
    pixels = h * w
    # Rows are laid end to end, so that a pair is a distance along one axis and every access is
    # contiguous. Values that are read beyond the end of a row have weight zero.
    shifts = [dy * w + dx for dy, dx in offsets]
    margin = max(map(abs, shifts))
    ends = (margin, margin)
    weights = jnp.where(_inside(offsets, h, w), affinity.astype(jnp.float32), 0)
    weights = jnp.moveaxis(weights, -1, 1).reshape(b, len(offsets), pixels)
    weights = jnp.power(weights, beta)
    if valid is not None:
        weights = weights * _both_valid(valid.reshape(b, pixels), shifts, margin)
    weights = jnp.pad(weights, ((0, 0), (0, 0), ends))[:, :, None]

    def partners(values: Array) -> Iterator[tuple[Array, Array]]:
        """Yields (weight, value) of all partners; `values` have margins at both ends."""
        for index, shift in enumerate(shifts):
            # The pair that starts at the pixel, and the one that ends there.
            for pair, other in ((0, shift), (-shift, -shift)):
                weight = weights[:, index, :, margin + pair : margin + pair + pixels]
                yield weight, values[:, :, margin + other : margin + other + pixels]

    def change(values: Array) -> Array:
        """Returns what one step adds to `values` [b, k, pixels]."""
        # Without the barrier, each of the reads below would compute the padding again.
        wide = lax.optimization_barrier(jnp.pad(values, ((0, 0), (0, 0), ends)))
        total = jnp.zeros_like(values)
        for weight, value in partners(wide):
            # Differences are summed because the rounding of a plain sum would add up over steps.
            total += weight * (value - values)
        return inverse * total

    inverse = 1 / (1 + sum(weight for weight, _ in partners(weights[:, 0])))
    values = jnp.moveaxis(scores.astype(jnp.float32), -1, 1).reshape(b, k, pixels)
    walked = _power(lambda v: v + change(v), values, steps)
    return jnp.moveaxis(walked.reshape(b, k, h, w), 1, -1)


def _inside(offsets: tuple[Offset, ...], h: int, w: int) -> Bool[np.ndarray, "h w o"]:
    y, x = np.indices((h, w))[..., None]
    dy, dx = np.asarray(offsets, int).reshape(-1, 2).T
    return (y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w)


def _both_valid(valid: Bool[Array, "b n"], shifts: list[int], margin: int) -> Bool[Array, "b o n"]:
    wide = jnp.pad(valid, ((0, 0), (margin, margin)))
    partners = (wide[:, margin + shift : margin + shift + valid.shape[1]] for shift in shifts)
    return jnp.stack([valid & partner for partner in partners], axis=1)


def _power(step: Callable[[Array], Array], values: Array, steps: int) -> Array:
    """Applies `step`, a linear map with eigenvalues in −1…1, `steps` times to `values`.

    The power is a sum of the polynomials T_0 = 1, T_1 = step, T_k+1 = 2·step·T_k − T_k−1.
    """
    coefficients = _chebyshev(steps)
    factors = np.where(np.arange(len(coefficients)) == 0, 1, 2)

    def add(carry: tuple[Array, Array, Array], at: tuple[Array, Array]):
        before, now, total = carry
        coefficient, factor = at
        following = factor * step(now) - before
        return (now, following, total + coefficient * now), None

    start = jnp.zeros_like(values), values, jnp.zeros_like(values)
    rows = jnp.asarray(coefficients[:-1], jnp.float32), jnp.asarray(factors[:-1], jnp.float32)
    (_, last, total), _ = lax.scan(add, start, rows)
    return total + np.float32(coefficients[-1]) * last


def _chebyshev(steps: int) -> Float[np.ndarray, " m"]:
    """Returns the coefficients of x^steps in Chebyshev polynomials, without negligible ones.

    The coefficient of T_k is C(steps, (steps − k)/2) / 2^(steps − 1) where steps − k is even (half
    of that for k = 0). They fall off like a bell curve: 85 polynomials remain for 256 steps, and 43
    for 64 steps.
    """
    exact = [
        math.comb(steps, (steps - k) // 2) * 2 / 2**steps if (steps - k) % 2 == 0 else 0.0
        for k in range(steps + 1)
    ]
    exact[0] /= 2
    tail = np.cumsum(exact[::-1])[::-1]
    kept = np.asarray(exact)[tail > _NEGLIGIBLE]
    return kept / kept.sum()  # so that constant scores do not change
