"""Reads and writes sampled features of an image by class, files ``<id>.npz``.

`keys` int32 [n] are foreground classes 0…C−1, one for each row. `inside` bool [n] tells whether the
row was sampled where the map of this class is high, and `features` float32 [n, d] are the features.
The rows of a class and a side are in the order of the pixels. An image without samples has no rows,
and d is 0.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from wsss_jax.data.formats.npz import open_arrays
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, make_again


class Samples(NamedTuple):
    """Sampled features of an image."""

    keys: Int32[np.ndarray, " n"]
    inside: Bool[np.ndarray, " n"]
    features: Float32[np.ndarray, "n d"]


def write_samples(path: Path, samples: Samples) -> None:
    """Writes samples atomically."""
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **samples._asdict())


def read_samples(path: Path) -> Samples:
    """Reads samples.

    Raises:
      UserError: the file is missing, damaged or of another kind, or a feature is not finite.
    """
    samples = Samples(*_read(path, *Samples._fields))
    kinds, axes = ([getattr(one, what) for one in samples] for what in ("dtype", "ndim"))
    lengths = {one.shape[:1] for one in samples}
    if "".join(kind.kind for kind in kinds) != "ibf" or axes != [1, 1, 2] or len(lengths) != 1:
        found = ", ".join(f"{one.dtype} {one.shape}" for one in samples)
        raise UserError(
            f"{path}: expected keys [n], inside [n] and features [n, d], found {found}:"
            f" {make_again(path)}"
        )
    if not np.isfinite(samples.features).all():
        raise UserError(
            f"{path}: expected finite features, found NaN or infinity: {make_again(path)}"
        )
    return samples


def read_sampled_classes(path: Path) -> frozenset[int]:
    """Reads only of which classes there are samples.

    Raises:
      UserError: the file is missing or damaged, or the classes are no integers.
    """
    (keys,) = _read(path, "keys")
    if keys.dtype.kind != "i" or keys.ndim != 1:
        raise UserError(
            f"{path}: expected keys [n], integers, found {keys.dtype} {keys.shape}:"
            f" {make_again(path)}"
        )
    return frozenset(map(int, np.unique(keys)))


def _read(path: Path, *names: str) -> list[np.ndarray]:
    try:
        with open_arrays(path) as arrays:
            return [arrays[name] for name in names]
    except FileNotFoundError as error:
        raise UserError(f"expected sampled features at {path}, found no file") from error
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: expected sampled features (.npz), found a truncated or foreign file"
            f" ({error}): {make_again(path)}"
        ) from error
