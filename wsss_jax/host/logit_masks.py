"""Makes masks from the logits of a network, in worker processes that do not import JAX."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, Integer, Shaped, UInt8

from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import encode_mask, value_counts
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import (
    CrfSettings,
    HostMeanField,
    MakeMeanField,
    bounded_size,
    crf_of,
    score_unary,
)
from wsss_jax.host.guided import upsampled_labels, upsampled_scores
from wsss_jax.host.upsampling import Reduced, ViewMaps

_VALUES = 1 << 26  # logits that are summed at once: an image of 3 megapixels with 21 labels


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

    Of an image of more than `wsss_jax.host.dense_crf.MOST_PIXELS` pixels, the CRF sees a smaller
    one, and its probabilities are upsampled along the edges of the image.

    If the device has reduced the logits to the position of the best channel, it is that position.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    logits = task.logits
    if task.crf is None:
        return _mean(logits, logits.size) if isinstance(logits, ViewMaps) else logits.values
    image = decode_image(task.image, task.image_id)
    q = _refined(task, image, mean_field)
    return q if q.shape[1:] == image.shape[:2] else np.stack([*upsampled_scores(q, image)])


def softmax(logits: Float32[np.ndarray, "k h w"]) -> Float32[np.ndarray, "k h w"]:
    """Returns the probabilities of the channels."""
    scores = np.exp(logits - logits.max(0))
    return scores / scores.sum(0)


def write_logit_mask(
    task: LogitTask, paths: tuple[Path, ...], mean_field: MakeMeanField = HostMeanField
) -> Int[np.ndarray, "256"]:
    """Writes the mask of the best channels in `class_scores`.

    Returns:
      The pixels of each value of the mask.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    mask = task.logits.channels.astype(np.uint8)[_best(task, mean_field)]
    with atomic_write(paths[0]) as file:
        file.write(encode_mask(mask))
    return value_counts(mask)


def write_logit_mask_and_scores(
    classes: tuple[str, ...],
    task: LogitTask,
    paths: tuple[Path, ...],
    mean_field: MakeMeanField = HostMeanField,
) -> Int[np.ndarray, "256"]:
    """Writes the mask, and what the network says of each class, as JSON.

    These are ``share``, the class's share of the mask, ``highest``, its highest probability in the
    image, and ``mean``, its mean probability where it is the most probable class (null if it is so
    nowhere). Probabilities of large images are computed at a smaller size.

    Args:
      classes: the names of the foreground classes.
      task: the logits, which the device has not reduced to the best class.
      paths: the files of the mask and of the scores.
      mean_field: where the updates of the CRF run.

    Returns:
      The pixels of each value of the mask.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    probabilities, best = probabilities_and_best(task, mean_field)
    channels = task.logits.channels.astype(np.uint8)
    names = ("background", *classes)
    shares = np.bincount(best.ravel(), minlength=len(channels)) / best.size
    where = probabilities.argmax(0)
    found = {}
    for position, channel in enumerate(channels):
        own = probabilities[position]
        inside = own[where == position]
        found[names[channel]] = {
            "share": float(shares[position]),
            "highest": float(own.max()),
            "mean": float(inside.mean()) if inside.size else None,
        }
    height, width = task.logits.size if isinstance(task.logits, ViewMaps) else best.shape
    with atomic_write(paths[1]) as file:
        content = {"height": height, "width": width, "classes": found}
        file.write(json.dumps(content, ensure_ascii=False).encode())
    mask = channels[best]
    with atomic_write(paths[0]) as file:
        file.write(encode_mask(mask))
    return value_counts(mask)


def probabilities_and_best(
    task: LogitTask, mean_field: MakeMeanField = HostMeanField
) -> tuple[Float32[np.ndarray, "k h w"], Integer[np.ndarray, "H W"]]:
    """Returns the probabilities of the channels, and the position of each pixel's best channel.

    The second has the size of the image. The first is smaller for an image of more than `_VALUES`
    probabilities, so that memory does not grow with the image.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    logits = task.logits
    if task.crf is not None:
        image = decode_image(task.image, task.image_id)
        q = _refined(task, image, mean_field)
        if q.shape[1:] == image.shape[:2]:
            return q, q.argmax(0)
        if len(q) * image.shape[0] * image.shape[1] > _VALUES:
            return q, upsampled_labels(q, image)
        q = np.stack([*upsampled_scores(q, image)])
        return q, q.argmax(0)
    if isinstance(logits, ViewMaps):
        size = fitting_size(logits.size, len(logits.channels))
        if size != logits.size:
            return softmax(_mean(logits, size)), _strongest(logits)
        mean = _mean(logits, size)
        return softmax(mean), mean.argmax(0)
    values, size = logits.values, fitting_size(logits.values.shape[1:], len(logits.channels))
    return softmax(_mean(logits, size).astype(np.float32)), values.argmax(0)


def fitting_size(size: tuple[int, ...], channels: int) -> tuple[int, int]:
    """Returns a size of the same proportion at which all channels have at most `_VALUES` values."""
    scale = min(1.0, (_VALUES / (size[0] * size[1] * max(channels, 1))) ** 0.5)
    return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def _best(task: LogitTask, mean_field: MakeMeanField) -> Integer[np.ndarray, "h w"]:
    """Returns the position of the best channel of each pixel; memory does not grow with `k`."""
    logits = task.logits
    if task.crf is None:
        return _strongest(logits) if isinstance(logits, ViewMaps) else logits.values
    image = decode_image(task.image, task.image_id)
    q = _refined(task, image, mean_field)
    return q.argmax(0) if q.shape[1:] == image.shape[:2] else upsampled_labels(q, image)


def _refined(
    task: LogitTask, image: UInt8[np.ndarray, "h w 3"], mean_field: MakeMeanField
) -> Float32[np.ndarray, "k h2 w2"]:
    """Returns the probabilities after the CRF, at the size at which a large image is refined."""
    assert task.crf is not None
    size = image.shape[0], image.shape[1]
    small = bounded_size(size)
    if small != size:
        image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    how = task.crf.resized((small[0] / size[0] * small[1] / size[1]) ** 0.5)
    crf = crf_of(image, task.image_id, how, mean_field)
    unary = score_unary(softmax(_mean(task.logits, small).astype(np.float32)))
    return np.moveaxis(crf.infer(np.moveaxis(unary, 0, 2), how.iterations), 2, 0)


def _mean(logits: ViewMaps | Reduced, size: tuple[int, int]) -> Float[np.ndarray, "k h w"]:
    """Returns the mean logits at a size, which is that of the image or a smaller one."""
    if isinstance(logits, ViewMaps):
        return dataclasses.replace(logits, size=size).summed() / np.float32(len(logits.views))
    if logits.values.shape[1:] == size:
        return logits.values
    planes = (plane.astype(np.float32) for plane in logits.values)
    return np.stack([cv2.resize(p, size[::-1], interpolation=cv2.INTER_AREA) for p in planes])


def _strongest(logits: ViewMaps) -> Integer[np.ndarray, "h w"]:
    """Returns the position of the best channel, computed a few rows at a time for large images."""
    height, width = logits.size
    rows = max(_VALUES // (width * max(len(logits.channels), 1)), 1)
    views = np.float32(len(logits.views))
    parts = (logits.summed(slice(start, start + rows)) for start in range(0, height, rows))
    return np.concatenate([(part / views).argmax(0) for part in parts])
