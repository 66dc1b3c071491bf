"""Matrices of linear interpolation in both conventions of the papers, without antialiasing.

The sampling grid follows from the two lengths and not from a scale factor. Corner-aligned resizing
maps the first and last pixels onto each other. The other convention (half-pixel) treats pixels as
areas.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32


def interpolation_matrix(
    in_length: int, out_length: int, align_corners: bool
) -> Float32[np.ndarray, "rows columns"]:
    """Returns the matrix R that interpolates a signal along one axis as ``R @ signal``.

    Args:
      in_length: the length of the signal.
      out_length: the length of the result.
      align_corners: whether the first and last samples of both coincide.
    """
    return linear_weights(in_length, out_length, align_corners, in_length, out_length, np)


def linear_weights(
    in_length: int, out_length: int, align_corners: bool, n_in: Any, n_out: Any, xp: Any
) -> Any:
    """Returns matrices like `interpolation_matrix` for the leading `n_in` samples of each signal.

    Args:
      in_length: the number of columns of a matrix.
      out_length: the number of rows of a matrix.
      align_corners: whether the first and last samples of both coincide.
      n_in: the number of valid samples, as one number or as [b, 1] for b signals.
      n_out: the length that the valid samples are resized to, in the same form as `n_in`.
      xp: the array library, NumPy or ``jax.numpy``.

    Returns:
      Float32 [out_length, in_length], or [b, out_length, in_length].
    """
    row = xp.arange(out_length)
    # The source position is the fraction numerator / denominator. Integers keep it exact, so a
    # padded image gets exactly the weights of an unpadded one.
    if align_corners:
        numerator, denominator = row * (n_in - 1), xp.maximum(n_out - 1, 1)
    else:
        numerator, denominator = (2 * row + 1) * n_in - n_out, 2 * n_out
    numerator = xp.clip(numerator, 0, (n_in - 1) * denominator)
    low = numerator // denominator
    weight = ((numerator - low * denominator) / denominator).astype(xp.float32)
    offset = xp.arange(in_length) - low[..., None]
    matrix = xp.where(offset == 0, 1 - weight[..., None], 0) + xp.where(
        offset == 1, weight[..., None], 0
    )
    return matrix.astype(xp.float32)
