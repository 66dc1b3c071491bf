"""Folders with truths, masks and maps to score, and their scores by the obvious way."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.reference.confusion import confusion_matrix
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.masks import encode_mask

CLASSES = ("cat", "dog", "cow")
IDS = [f"image{i}" for i in range(6)]
SHAPE = (9, 7)


def draw_mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)


def draw_folders(tmp_path: Path) -> Path:
    """Random ground truth with some 255, masks that agree in part, and CAMs that do as well."""
    for name in ("gt", "pred/masks", "maps/cams", "stage"):
        (tmp_path / name).mkdir(parents=True)
    for index, name in enumerate(IDS):
        rng = np.random.default_rng(100 + index)
        truth = draw_mask(index)
        prediction = np.where(rng.random(SHAPE) < 0.6, truth, draw_mask(50 + index))
        keys = np.array([0, 2])
        cam = rng.random((2, *SHAPE)).astype(np.float32)
        cam = np.clip(cam * 0.6 + 0.3 * (truth == (keys + 1)[:, None, None]), 0, 1)
        write_cams(tmp_path / f"maps/cams/{name}.npz", keys, cam)
        truth[rng.random(SHAPE) < 0.1] = 255
        (tmp_path / f"gt/{name}.png").write_bytes(encode_mask(truth))
        (tmp_path / f"pred/masks/{name}.png").write_bytes(encode_mask(prediction))
    (tmp_path / "list.txt").write_text("\n".join(IDS) + "\n")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return tmp_path


def read_png(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def expected_confusion(folders: Path, ids: list[str], threshold: float | None = None) -> np.ndarray:
    """Image by image, threshold by threshold, as directly as it can be said."""
    total = np.zeros((4, 4), np.int64)
    for name in ids:
        truth = read_png(folders / f"gt/{name}.png")
        if threshold is None:
            prediction = read_png(folders / f"pred/masks/{name}.png")
        else:
            with np.load(folders / f"maps/cams/{name}.npz") as arrays:
                cam = arrays["cam"].astype(np.float32)
            background = np.full((1, *SHAPE), threshold, np.float32)
            prediction = np.array([0, 1, 3], np.uint8)[np.concatenate([background, cam]).argmax(0)]
        total += confusion_matrix(prediction, truth, 3)
    return total
