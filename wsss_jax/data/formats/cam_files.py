"""Reads and writes class activation maps: our own `.npz`, and the `.npy` formats of SEAM and IRN.

==========  =====================================================================================
`.npz`      ours: `keys` int32 [K], `cam` float16 [K, H, W], compressed, no pickle
SEAM        dict {class 0…C−1: float32 [H, W]}
IRN         dict {"keys": int64 tensor [K], "cam": float32 tensor [K, ⌈H/4⌉, ⌈W/4⌉],
            "high_res": float32 array [K, H, W]}
==========  =====================================================================================

Keys are foreground classes in ascending order, where 0 is the first class after the background.
Maps are normalized to 0…1 and have the image's resolution. The public formats are pickles, which
are read without executing them, and written so that old versions of NumPy and PyTorch read them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from wsss_jax.data.formats.npz import open_arrays
from wsss_jax.data.formats.portable_pickle import Tensor, dump_numpy_pickle
from wsss_jax.data.formats.safe_pickle import load_numpy_pickle
from wsss_jax.data.images import decode_image
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, check_all_found, make_again

SUFFIXES = (".npz", ".npy")

_ROUNDING = 0.01  # Half precision, and programs that divide by the maximum plus a small number.


class Cams(NamedTuple):
    """Maps of the classes present in an image; [0, 0, 0] if a file without maps has no size."""

    keys: Int32[np.ndarray, " k"]
    cam: Float[np.ndarray, "k h w"]


class IrnCams(NamedTuple):
    """IRN's maps: `cam` at stride 4 for the random walk, and `high_res` at the image's size."""

    keys: Int32[np.ndarray, " k"]
    cam: Float[np.ndarray, "k h4 w4"]
    high_res: Float[np.ndarray, "k h w"]


def write_cams(path: Path, keys: Int[np.ndarray, " k"], cam: Float[np.ndarray, "k h w"]) -> None:
    """Writes our `.npz` with sorted keys and maps in float16."""
    order = np.argsort(keys, kind="stable")
    with atomic_write(path) as file:
        np.savez_compressed(
            file, keys=keys[order].astype(np.int32), cam=cam[order].astype(np.float16)
        )


def write_seam_cams(
    path: Path, keys: Int[np.ndarray, " k"], cam: Float[np.ndarray, "k h w"]
) -> None:
    """Writes SEAM's `.npy` dictionary {class: map}."""
    maps = {int(key): one.astype(np.float32) for key, one in zip(keys, cam, strict=True)}
    with atomic_write(path) as file:
        file.write(dump_numpy_pickle(maps))


def write_irn_cams(
    path: Path,
    keys: Int[np.ndarray, " k"],
    cam: Float[np.ndarray, "k h4 w4"],
    high_res: Float[np.ndarray, "k h w"],
) -> None:
    """Writes IRN's `.npy` dictionary; its next step needs `keys` and `cam` as PyTorch tensors."""
    maps = {
        "keys": Tensor(keys.astype(np.int64)),
        "cam": Tensor(cam.astype(np.float32)),
        "high_res": high_res.astype(np.float32),
    }
    with atomic_write(path) as file:
        file.write(dump_numpy_pickle(maps))


def find_cams(folder: Path, image_id: str) -> Path | None:
    """Finds the CAM file of an image, ours before a public one; returns None if there is none."""
    paths = (folder / f"{image_id}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_cams(path: Path, num_classes: int | None = None) -> Cams:
    """Reads any of the three formats, which are recognized by their content.

    Args:
      path: the file.
      num_classes: the number of foreground classes C, which keys must be below. None accepts every
        key.

    Raises:
      UserError: the file is missing, truncated or not a CAM file, a key is out of range, or a value
        is not within 0…1.
    """
    if path.suffix == ".npz":
        return _checked(path, *_read_npz(path), num_classes)
    content = load_numpy_pickle(path)
    if isinstance(content, dict) and "high_res" in content:
        return _checked(path, content.get("keys"), content["high_res"], num_classes)
    if isinstance(content, dict) and all(isinstance(key, int | np.integer) for key in content):
        maps = list(content.values())
        if len({np.shape(one) for one in maps}) > 1:
            raise UserError(f"{path}: expected maps of one size, found several")
        cam = np.stack(maps) if maps else np.zeros((0, 0, 0), np.float32)
        return _checked(path, np.array([*content], np.int64), cam, num_classes)
    raise _foreign(path, "another object")


def image_and_cams(
    data: bytes, image_id: str, path: Path, num_classes: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Int32[np.ndarray, " k"], Float32[np.ndarray, "k h w"]]:
    """Returns a decoded image with the classes and maps of its CAM file.

    Raises:
      UserError: one of the two is damaged, or their sizes differ.
    """
    image = decode_image(data, image_id)
    keys, cam = read_cams(path, num_classes)
    height, width = image.shape[:2]
    if len(keys) == 0:  # a file without maps may not know the image's size
        cam = np.zeros((0, height, width), np.float32)
    cam_height, cam_width = cam.shape[1:]
    if (height, width) != (cam_height, cam_width):
        raise UserError(
            f"{path}: expected maps of {width}×{height} pixels like image {image_id},"
            f" found {cam_width}×{cam_height}: make them from the same images"
        )
    return image, keys, cam.astype(np.float32)


def read_irn_cams(path: Path, num_classes: int | None = None) -> IrnCams:
    """Reads IRN's dictionary with its stride-4 maps.

    Raises:
      UserError: the file is not in IRN's format, or `read_cams` would refuse it.
    """
    content = load_numpy_pickle(path)
    if not (isinstance(content, dict) and content.keys() >= {"keys", "cam", "high_res"}):
        raise UserError(
            f"{path}: expected IRN's dictionary with keys, cam and high_res, found another object:"
            " make the CAMs in IRN's format"
        )
    keys, high_res = _checked(path, content["keys"], content["high_res"], num_classes)
    return IrnCams(keys, _checked(path, content["keys"], content["cam"], num_classes).cam, high_res)


def _read_npz(path: Path) -> tuple[Any, Any]:
    try:
        with open_arrays(path) as arrays:
            return arrays["keys"], arrays["cam"]
    except KeyError as error:
        raise _foreign(path, f"an archive where {error.args[0]}") from error
    except FileNotFoundError as error:
        raise UserError(f"expected CAMs at {path}, found no file") from error
    except ValueError as error:
        raise UserError(
            f"{path}: expected CAMs (.npz), found a truncated or foreign file ({error}):"
            f" {make_again(path)}"
        ) from error


def _checked(path: Path, keys: Any, cam: Any, num_classes: int | None) -> Cams:
    keys, cam = np.asarray(keys), np.asarray(cam)
    if keys.size == 0:
        keys = keys.astype(np.int32)
    if not (keys.ndim == 1 and keys.dtype.kind in "iu" and cam.ndim == 3 and cam.dtype.kind == "f"):
        raise _foreign(path, f"keys {keys.dtype} {keys.shape} and maps {cam.dtype} {cam.shape}")
    if len(keys) != len(cam) or len(np.unique(keys)) != len(keys):
        raise _foreign(path, f"keys {keys.tolist()} for {len(cam)} maps")
    if keys.size and (keys.min() < 0 or (num_classes is not None and keys.max() >= num_classes)):
        raise UserError(
            f"{path}: expected classes 0 to {'…' if num_classes is None else num_classes - 1}"
            f" without background, found {keys.tolist()}: check the list of classes"
        )
    if not np.isfinite(cam).all():
        raise UserError(
            f"{path}: expected finite scores, found NaN or infinity: {make_again(path)}"
        )
    if cam.size and (cam.min() < -_ROUNDING or cam.max() > 1 + _ROUNDING):
        raise UserError(
            f"{path}: expected scores of 0 to 1, found {cam.min():g} to {cam.max():g}: divide the"
            " maps of each class by their maximum, and set negative scores to 0"
        )
    order = np.argsort(keys)
    return Cams(keys[order].astype(np.int32), cam[order])


def _foreign(path: Path, found: str) -> UserError:
    return UserError(
        f"{path}: expected CAMs (.npz with keys and cam, or SEAM's or IRN's .npy), found {found}:"
        " check the folder"
    )


class CamFolder:
    """The CAM files of many images in a folder; ``[image_id]`` is the path of one of them.

    Paths are made when they are asked for, because those of a million images would fill memory.

    Args:
      folder: the folder.
      ids: the ids of the images.

    Raises:
      UserError: some ids have no CAM file.
    """

    def __init__(self, folder: Path, ids: Iterable[str]):
        self._folder = folder
        count, missing = 0, []
        for image_id in ids:
            count += 1
            if find_cams(folder, image_id) is None:
                missing.append(image_id)
        check_all_found("CAM file", missing, count, folder)

    def __getitem__(self, image_id: str) -> Path:
        path = find_cams(self._folder, image_id)
        if path is None:
            check_all_found("CAM file", [image_id], 1, self._folder)
        return cast(Path, path)
