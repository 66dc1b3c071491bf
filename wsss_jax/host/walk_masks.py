"""Masks from the scores of random walks, for worker processes: imports no JAX."""

import dataclasses
from pathlib import Path

import numpy as np

from wsss_jax.data.confidence import confidence, write_confidence
from wsss_jax.data.formats.walk_files import read_walk
from wsss_jax.data.images import decode_image, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import CrfSettings, DenseCrf, score_unary


@dataclasses.dataclass(frozen=True)
class MaskTask:
    """One image: its walk, where mask and confidence go, and the final CRF if there is one.

    `image` is the encoded image, which only the CRF needs.
    """

    image_id: str
    walk: Path
    target: Path
    confidence: Path
    num_classes: int
    image: bytes = b""
    crf: CrfSettings | None = None


def write_mask(task: MaskTask) -> None:
    """The strongest class of each pixel (background among equals), after the CRF.

    Raises:
      UserError: the walk's file is damaged, or the image is not the one that was walked on.
    """
    walk = read_walk(task.walk, task.num_classes)
    scores = walk.enlarged()
    chosen = scores.argmax(0)
    if task.crf is not None and len(walk.keys):
        image = decode_image(task.image, task.image_id)
        if image.shape[:2] != walk.size:
            raise UserError(
                f"{task.walk}: expected the size of image {task.image_id}, {image.shape[:2]}, found"
                f" {walk.size}; delete it and make it again"
            )
        how = task.crf
        crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=how.fast)
        q = crf.infer(np.moveaxis(score_unary(scores), 0, 2), how.iterations)
        chosen = q.argmax(2)
    write_confidence(task.confidence, confidence(scores, chosen))
    classes = np.concatenate([[0], walk.keys + 1]).astype(np.uint8)
    with atomic_write(task.target) as file:
        file.write(encode_mask(classes[chosen]))
