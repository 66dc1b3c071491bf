"""Makes masks from the logits of a network, in worker processes that do not import JAX."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from wsss_jax.data.images import decode_image, encode_mask
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import (
    CrfSettings,
    HostMeanField,
    MakeMeanField,
    crf_of,
    score_unary,
)
from wsss_jax.host.upsampling import Reduced, ViewMaps


@dataclasses.dataclass(frozen=True)
class LogitTask:
    """The logits of one image, and the settings of the CRF if there is one.

    If the device has reduced them, they are relative to the best class for a CRF, and otherwise the
    position of the best channel.

    The channels of `logits` are the indices in the mask. `image` is the encoded image, which only
    the CRF needs.
    """

    image_id: str
    logits: ViewMaps | Reduced
    image: bytes = b""
    crf: CrfSettings | None = None


def class_scores(
    task: LogitTask, mean_field: MakeMeanField = HostMeanField
) -> Shaped[np.ndarray, "*k h w"]:
    """Returns the mean logits of the channels, or their probabilities after the CRF.

    If the device has reduced the logits to the position of the best channel, it is that position.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    logits = task.logits
    on_device = isinstance(logits, Reduced)
    scores = logits.values if on_device else logits.summed() / np.float32(len(logits.views))
    if task.crf is None:
        return scores
    crf = crf_of(decode_image(task.image, task.image_id), task.image_id, task.crf, mean_field)
    unary = score_unary(softmax(scores.astype(np.float32)))
    return np.moveaxis(crf.infer(np.moveaxis(unary, 0, 2), task.crf.iterations), 2, 0)


def softmax(logits: Float32[np.ndarray, "k h w"]) -> Float32[np.ndarray, "k h w"]:
    """Returns the probabilities of the channels."""
    scores = np.exp(logits - logits.max(0))
    return scores / scores.sum(0)


def write_logit_mask(
    task: LogitTask, paths: tuple[Path, ...], mean_field: MakeMeanField = HostMeanField
) -> None:
    """Writes the mask of the highest mean logits, or of the most probable classes after the CRF.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    scores = class_scores(task, mean_field)
    best: Any = scores.argmax(0) if scores.ndim == 3 else scores
    with atomic_write(paths[0]) as file:
        file.write(encode_mask(task.logits.channels.astype(np.uint8)[best]))
