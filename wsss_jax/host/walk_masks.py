"""Writes walks and makes their masks, in worker processes that do not import JAX."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int

from wsss_jax.data.confidence import confidence, write_confidence
from wsss_jax.data.formats.walk_files import Walk, write_walk
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import encode_mask, value_counts
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import (
    CrfSettings,
    HostMeanField,
    MakeMeanField,
    crf_of,
    score_unary,
)

_NOTHING = 1e-5


@dataclasses.dataclass(frozen=True)
class WalkTask:
    """The walk of one image, and the final CRF if there is one.

    `image` is the encoded image, which only the CRF needs. If the walk has no background yet,
    `threshold` is the background's score relative to the largest score at the image's size.
    """

    image_id: str
    walk: Walk
    threshold: float | None = None
    image: bytes = b""
    crf: CrfSettings | None = None


def write_walk_and_mask(
    task: WalkTask, paths: tuple[Path, ...], mean_field: MakeMeanField = HostMeanField
) -> Int[np.ndarray, "256"]:
    """Writes the walk, the strongest class of each pixel after the CRF, and its confidence.

    Among equal scores, the background wins.

    Args:
      task: the image.
      paths: the paths of its walk, of its mask and of its confidence.
      mean_field: what makes the CRF's mean-field updates.

    Returns:
      The pixels of each value of the mask.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    walk, scores = task.walk, task.walk.scores
    if task.threshold is not None:
        if len(scores):
            scores = scores / max(float(walk.upsampled().max()), _NOTHING)
        level = np.full((1, *scores.shape[1:]), task.threshold, np.float32)
        scores = np.concatenate([level, scores])
    walk = walk._replace(scores=scores.astype(np.float16))  # the mask is that of the file
    write_walk(paths[0], walk)
    scores = walk.upsampled()
    chosen = scores.argmax(0)
    if task.crf is not None and len(walk.keys):
        image = decode_image(task.image, task.image_id)
        crf = crf_of(image, task.image_id, task.crf, mean_field)
        q = crf.infer(np.moveaxis(score_unary(scores), 0, 2), task.crf.iterations)
        chosen = q.argmax(2)
    write_confidence(paths[2], confidence(scores, chosen))
    classes = np.concatenate([[0], walk.keys + 1]).astype(np.uint8)
    mask = classes[chosen]
    with atomic_write(paths[1]) as file:
        file.write(encode_mask(mask))
    return value_counts(mask)
