"""Masks from the logits of a segmentation network, for worker processes: imports no JAX."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from wsss_jax.data.images import decode_image, encode_mask
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import CrfSettings, DenseCrf, score_unary


@dataclasses.dataclass(frozen=True)
class LogitTask:
    """One image: its mean logits, where the mask goes, and the CRF in between if there is one.

    `classes` are the mask's indices of the logits' planes. `image` is the encoded image, which only
    the CRF needs.
    """

    image_id: str
    logits: Float32[np.ndarray, "labels h w"]
    classes: Int[np.ndarray, " labels"]
    target: Path
    image: bytes = b""
    crf: CrfSettings | None = None


def write_logit_mask(task: LogitTask) -> None:
    """The most probable class of each pixel, after the CRF."""
    scores = task.logits
    if task.crf is not None:
        image = decode_image(task.image, task.image_id)
        scores = np.exp(scores - scores.max(0))
        unary = score_unary(scores / scores.sum(0))
        how = task.crf
        crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=how.fast)
        scores = np.moveaxis(crf.infer(np.moveaxis(unary, 0, 2), how.iterations), 2, 0)
    with atomic_write(task.target) as file:
        file.write(encode_mask(task.classes.astype(np.uint8)[scores.argmax(0)]))
