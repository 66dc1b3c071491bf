"""Reads and writes dense-CRF results, files ``<id>.npz`` with one distribution per background.

`keys` int32 [K] are the foreground classes 0…C−1 of the image in ascending order. The stage lists
values of α, each of which is the power of the background (1 − max)^α that the CRF started from, or
a multiple of its ``alpha_unit``. For each α, `q_<α>` (such as ``q_4`` and ``q_24``) is float16
[K + 1, H, W]: the probability of the background and then those of the keys, at the image's size.

Values are multiples of 2⁻¹¹, which is the resolution of float16 just below 1. Small values could
have more digits, but dropping those makes files six times smaller.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Int, Int32, UInt8

from wsss_jax.data.formats.npz import open_arrays
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, make_again

_STEPS = 2048
_COMPRESSION = 1  # level 6 is four times slower for files a fifth smaller


def write_crf(
    path: Path,
    keys: Int[np.ndarray, " k"],
    results: Mapping[float, Float[np.ndarray, "labels h w"]],
) -> None:
    """Writes distributions atomically.

    Args:
      path: the file.
      keys: the foreground classes of the planes after the first one, in ascending order.
      results: at least one distribution, keyed by α; each has K + 1 planes, the background first.
    """
    arrays: dict[str, np.ndarray] = {"keys": keys.astype(np.int32)}
    for alpha, q in results.items():
        arrays[_name(alpha)] = (np.rint(q * np.float32(_STEPS)) / _STEPS).astype(np.float16)
    # np.savez_compressed has only one level of compression, which is slow.
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def read_crf(
    path: Path, alpha: float | int, num_classes: int | None = None
) -> tuple[Int32[np.ndarray, " k"], Float16[np.ndarray, "labels h w"]]:
    """Reads the keys and the distribution of one α, the background first.

    Args:
      path: the file.
      alpha: the α of the distribution to read.
      num_classes: the number of foreground classes C, which keys must be below. None accepts every
        key.

    Raises:
      UserError: the file is missing, truncated or of another kind, it does not have this α, a key
        is out of range, or values are not probabilities.
    """
    name = _name(alpha)
    try:
        with open_arrays(path) as arrays:
            if "keys" in arrays and name not in arrays:
                found = ", ".join(n.removeprefix("q_") for n in arrays if n.startswith("q_"))
                raise UserError(
                    f"{path}: expected the result of alpha {alpha:g}, found alpha {found or 'none'}"
                    ": choose one of these, or add it to the alphas of the crf stage"
                )
            keys, q = arrays["keys"], arrays[name]
    except FileNotFoundError as error:
        raise UserError(f"expected a CRF result at {path}, found no file") from error
    except KeyError as error:
        raise UserError(
            f"{path}: expected a CRF result, found an archive where {error.args[0]}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: expected a CRF result (.npz), found a truncated or foreign file ({error}):"
            f" {make_again(path)}"
        ) from error
    shapes_fit = keys.ndim == 1 and q.ndim == 3 and len(q) == len(keys) + 1
    if not (shapes_fit and keys.dtype == np.int32 and q.dtype == np.float16):
        raise UserError(
            f"{path}: expected keys int32 [K] and {name} float16 [K + 1, H, W], found"
            f" {keys.dtype} {keys.shape} and {q.dtype} {q.shape}: {make_again(path)}"
        )
    limit = np.inf if num_classes is None else num_classes
    if len(keys) and not (keys[0] >= 0 and keys[-1] < limit and (np.diff(keys) > 0).all()):
        raise UserError(
            f"{path}: expected ascending classes 0 to {limit - 1:g} without background, found"
            f" {keys.tolist()}: check the list of classes"
        )
    if not ((q >= 0) & (q <= 1)).all():
        raise UserError(f"{path}: expected probabilities, found other values: {make_again(path)}")
    return keys, q


def read_crf_mask(
    path: Path, alpha: float | int, num_classes: int | None = None
) -> UInt8[np.ndarray, "h w"]:
    """Reads the most probable class of each pixel: 0 for background, key + 1 for foreground.

    Raises:
      UserError: for the same reasons as `read_crf`.
    """
    keys, q = read_crf(path, alpha, num_classes)
    classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
    # NumPy compares float16 by converting every pair, so comparing float32 is ten times faster.
    return classes[q.astype(np.float32).argmax(0)]


def _name(alpha: float | int) -> str:
    return f"q_{float(alpha):g}"
