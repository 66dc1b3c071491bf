"""The random walk that spreads scores over an image, as a stencil.

AffinityNet (CVPR 2018) and IRNet (CVPR 2019) square a dense matrix of all pixel pairs t times and
multiply the scores with it. The same result takes 2^t sparse steps, each of which reads the two
pixels of every pair, and fewer still as a sum of Chebyshev polynomials: hundreds of times faster,
without the memory, and in float32 on every device (there is no product of matrices, whose precision
devices lower).
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
    """``scores · T^steps``, T = the matrix of affinity^beta, its columns divided by their sums.

    One step replaces the score of a pixel by the mean over itself (weight 1) and its partners
    (weight affinity^beta). Pairs that leave the map or the valid part weigh nothing; pixels outside
    the valid part keep their scores. Sums weighted with the columns' original sums do not change.

    Args:
      scores: of any number of classes.
      affinity: 0…1, of the pairs that `offsets` = (dy, dx) lead to from each pixel; zero: no pair.
      offsets: every pair once, in one of its two directions.
      beta: above 0; large values leave only strong affinities.
      steps: 2^t in the papers; at least 0.
      valid: the part of each map that is no padding.
    """
    if steps < 0 or affinity.shape[-1] != len(offsets):
        found = f"{steps} steps, {affinity.shape[-1]} affinities, {len(offsets)} offsets"
        raise ValueError(f"expected 0 steps or more and an affinity per offset, found {found}")
    b, h, w, k = scores.shape
    if not offsets:
        return scores
    pixels = h * w
    # Rows are laid end to end, so a pair is a distance along one axis and every access is
    # contiguous. What is read beyond the end of a row has weight zero.
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
        """(weight, value) of all partners of the pixels; `values` have margins at both ends."""
        for index, shift in enumerate(shifts):
            # The pair that starts at the pixel, and the one that ends there.
            for pair, other in ((0, shift), (-shift, -shift)):
                weight = weights[:, index, :, margin + pair : margin + pair + pixels]
                yield weight, values[:, :, margin + other : margin + other + pixels]

    def change(values: Array) -> Array:
        """What one step adds to `values` [b, k, pixels]."""
        # Without the barrier every one of the reads below would form the padding anew.
        wide = lax.optimization_barrier(jnp.pad(values, ((0, 0), (0, 0), ends)))
        total = jnp.zeros_like(values)
        for weight, value in partners(wide):
            # Of differences: the error of a plain sum would count once in every step.
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
    """`step`, a linear map with eigenvalues in −1…1, applied `steps` times to `values`.

    As a sum of the polynomials T_0 = 1, T_1 = step, T_k+1 = 2·step·T_k − T_k−1.
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
    """Coefficients of x^steps in Chebyshev polynomials, without the last, negligible ones.

    The coefficient of T_k is C(steps, (steps − k)/2) / 2^(steps − 1) where steps − k is even (half
    of it for k = 0). They fall off like a bell: of 256 steps 85 polynomials remain, of 64 43.
    """
    exact = [
        math.comb(steps, (steps - k) // 2) * 2 / 2**steps if (steps - k) % 2 == 0 else 0.0
        for k in range(steps + 1)
    ]
    exact[0] /= 2
    tail = np.cumsum(exact[::-1])[::-1]
    kept = np.asarray(exact)[tail > _NEGLIGIBLE]
    return kept / kept.sum()  # so that constant scores stay what they are
