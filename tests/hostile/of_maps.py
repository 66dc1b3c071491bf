"""Files of maps: our own and those of other programs."""

import functools
import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.kind import Attack, Files, Kind, single
from tests.hostile.of_labels import pickled
from tests.hostile.of_weights import ARCHIVES
from wsss_jax.data.formats.cam_files import (
    image_and_cams,
    read_cams,
    read_irn_cams,
    write_cams,
    write_irn_cams,
    write_seam_cams,
)
from wsss_jax.data.formats.crf_files import read_crf_mask, write_crf
from wsss_jax.data.formats.feature_files import (
    Samples,
    read_sampled_classes,
    read_samples,
    write_samples,
)
from wsss_jax.data.formats.walk_files import Walk, read_walk, write_walk
from wsss_jax.data.masks import encode_mask
from wsss_jax.errors import UserError
from wsss_jax.inference.cam_conversion import convert
from wsss_jax.scoring.score_files import score_cams, score_mask

SIZE = (12, 20)
KEYS = np.array([1, 4], np.int32)
MAPS = np.linspace(0, 1, 2 * 12 * 20, dtype=np.float32).reshape(2, *SIZE)
NONE = np.zeros(0, np.int32), np.zeros((0, *SIZE), np.float32)
TRUTH = np.zeros(SIZE, np.uint8)
CLASSES = 20


def _written(name: str, *writes: Callable[[Path], object]) -> Sequence[Files]:
    contents = []
    with tempfile.TemporaryDirectory() as folder:
        for write in writes:
            write(Path(folder) / name)
            contents.append((Path(folder) / name).read_bytes())
    return single(name, *contents)


@functools.cache
def _cams() -> Sequence[Files]:
    return _written(
        "a.npz",
        lambda path: write_cams(path, KEYS, MAPS),
        lambda path: write_cams(path, *NONE),
        lambda path: np.savez(path, keys=KEYS, cam=MAPS),
    )


@functools.cache
def _public_cams() -> Sequence[Files]:
    small = MAPS[:, ::4, ::4]
    plain: dict[Any, Any] = {int(k): one for k, one in zip(KEYS, MAPS, strict=True)}
    contents = [pickle.dumps(plain, protocol) for protocol in (0, 2, 5)]
    return [
        *_written(
            "a.npy",
            lambda path: write_seam_cams(path, KEYS, MAPS),
            lambda path: write_irn_cams(path, KEYS, small, MAPS),
        ),
        *single("a.npy", *contents),
    ]


@functools.cache
def _crfs() -> Sequence[Files]:
    q = np.stack([1 - MAPS.max(0), *MAPS]) / 2
    return _written(
        "a.npz",
        lambda path: write_crf(path, KEYS, {4.0: q, 24.0: q}),
        lambda path: write_crf(path, NONE[0], {4.0: np.ones((1, *SIZE), np.float32)}),
    )


@functools.cache
def _features() -> Sequence[Files]:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 6)
    return _written(
        "a.npz",
        lambda path: write_samples(path, Samples(KEYS, np.array([True, False]), values)),
        lambda path: write_samples(
            path, Samples(NONE[0], np.zeros(0, bool), np.zeros((0, 0), np.float32))
        ),
    )


@functools.cache
def _walks() -> Sequence[Files]:
    scores = np.stack([1 - MAPS.max(0), *MAPS])[:, :3, :5]
    return _written(
        "a.npz",
        lambda path: write_walk(path, Walk(KEYS, scores, SIZE, SIZE, 4)),
        lambda path: write_walk(path, Walk(KEYS, scores, (24, 40), SIZE, 4)),
    )


def _with_arrays(files: Callable[[], Sequence[Files]], **odd: Sequence[Any]) -> Attack:
    """Returns an attack that replaces an array of a good file."""

    def other_arrays(rng: np.random.Generator) -> bytes:
        files_ = files()
        ((_, data),) = files_[int(rng.integers(len(files_)))].items()
        with np.load(io.BytesIO(data)) as opened:
            arrays: dict[str, Any] = dict(opened)
        name = str(rng.choice([*odd]))
        arrays[name] = odd[name][int(rng.integers(len(odd[name])))]
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    return other_arrays


_ODD_KEYS = (
    *([-1, 4], [1, 1], [1.0, 4.0], ["a", "b"], [[1, 4]], [True, False], 3, [2**40, 4], [1, 20]),
    *(np.array([1, 4], np.uint64), np.array([2**63, 1], np.uint64), np.array([4, 1], np.int32)),
)
_ODD_MAPS = tuple(
    np.broadcast_to(np.asarray(value, dtype), shape).copy()
    for value in (0.5, float("nan"), float("inf"), 255.0, -1.0)
    for dtype in (np.float16, np.float32, np.float64, np.complex64, np.longdouble)
    for shape in ((2, 12, 20), (3, 12, 20), (2, 20, 12), (2, 0, 0), (0, 12, 20), (2, 12, 20, 1), ())
)
_ODD_SIZES = (
    *([10**9, 10**9], [0, 0], [-1, -1], [1], [1, 2, 3], [2.5, 3.5], ["a", "b"], [100_000, 100_000]),
    *([np.nan, 1], [np.inf, 1], [2**62, 1], [20, 12], [1, 1], 5, [[1, 2]], [1 + 1j, 2]),
)
_ODD_STRIDES = (0, -1, 10**9, 2.5, [4], [4, 4], "4", float("nan"), float("inf"), 1, 1000, 1j)


_ODD_FEATURES = tuple(
    np.broadcast_to(np.asarray(value, dtype), shape).copy()
    for value in (0.5, float("nan"), float("inf"))
    for dtype in (np.float16, np.float32, np.complex64)
    for shape in ((2, 6), (3, 6), (2, 0), (0, 6), (2,), ())
)
_FEATURE_ATTACKS = (
    _with_arrays(
        lambda: _features(),
        keys=[*_ODD_KEYS, [np.nan, 1]],
        inside=[[0, 1], [True], [[True, False]], 1.0, ["a", "b"]],
        features=_ODD_FEATURES,
    ),
)


def zeros(rng: np.random.Generator) -> bytes:
    """Maps of zeros that are compressed to nearly nothing."""
    return _zeros(int(rng.choice([100, 1000, 1000, 4000], p=[0.5, 0.24, 0.24, 0.02])))


@functools.cache
def _zeros(side: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape, dtype in (
            ("keys", (2,), np.int32),
            ("cam", (2, side, side), np.float16),
            ("q_4", (3, side, side), np.float16),
            ("scores", (3, side, side), np.float16),
        ):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(entry, header)
                left = int(np.prod(shape)) * np.dtype(dtype).itemsize
                while left:
                    entry.write(bytes(min(left, 1 << 24)))
                    left -= min(left, 1 << 24)
    return file.getvalue()


def _read_cams(path: Path) -> object:
    keys, cam = read_cams(path, CLASSES)
    return keys.tobytes(), cam.tobytes()[:10_000]


def _read_features(path: Path) -> object:
    classes = read_sampled_classes(path)
    samples = read_samples(path)
    assert classes == set(samples.keys.tolist())
    return samples.features.tobytes()


def _score(path: Path) -> object:
    return score_cams(path, TRUTH, CLASSES, (0.1, 0.5)).classes.sum()


def _read_walk(path: Path) -> object:
    walk = read_walk(path, CLASSES)
    return walk.upsampled().sum()


def _read_public(path: Path) -> object:
    """Reads CAMs of another program, and converts them."""
    try:
        irn = read_irn_cams(path, CLASSES)
    except UserError:
        found = read_cams(path, CLASSES)
    else:
        found = irn.high_res
    out = path.parent / "out"
    out.mkdir()
    for form in ("npz", "seam", "irn"):
        convert(path, out, form)
    return len(found)


def _predictions() -> Sequence[Files]:
    mask = np.zeros(SIZE, np.uint8)
    mask[2:6] = 3
    return single("a.png", encode_mask(mask), encode_mask(mask, palette=False))


def _exported() -> Sequence[Files]:
    image = {"image.png": encode_mask(TRUTH)}
    return [{**files, **image} for files in _cams()]


def _of_image(path: Path) -> object:
    data = (path.parent / "image.png").read_bytes()
    return image_and_cams(data, "a", path, CLASSES)[2].shape


_CAM_ATTACKS = (*ARCHIVES, _with_arrays(_cams, keys=_ODD_KEYS, cam=_ODD_MAPS), zeros)

KINDS = (
    Kind("CAMs", _cams, _read_cams, _CAM_ATTACKS, sealed=True),
    Kind("CAMs to score", _cams, _score, _CAM_ATTACKS),
    Kind("sampled features", _features, _read_features, _FEATURE_ATTACKS),
    Kind("CAMs of other programs", _public_cams, _read_public, (pickled, pickled)),
    Kind(
        "CRF results",
        _crfs,
        lambda path: read_crf_mask(path, 4, CLASSES).tobytes(),
        (*ARCHIVES, _with_arrays(_crfs, keys=_ODD_KEYS, q_4=_ODD_MAPS), zeros),
        sealed=True,
    ),
    Kind(
        "random walks",
        _walks,
        _read_walk,
        (
            *ARCHIVES,
            *[_with_arrays(_walks, size=_ODD_SIZES, walked=_ODD_SIZES, stride=_ODD_STRIDES)] * 4,
            _with_arrays(_walks, keys=_ODD_KEYS, scores=_ODD_MAPS),
            zeros,
        ),
        sealed=True,
    ),
    Kind(
        "masks to score",
        _predictions,
        lambda path: score_mask(path, TRUTH, CLASSES, True).classes.sum(),
    ),
)
