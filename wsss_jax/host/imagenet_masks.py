"""Makes maps and masks from a classifier's responses, in processes that do not import JAX."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from wsss_jax.data.images import decode_image, encode_mask
from wsss_jax.files import atomic_write
from wsss_jax.host.background import alpha_of_threshold, with_background
from wsss_jax.host.dense_crf import CrfSettings, bounded_size, crf_of, score_unary
from wsss_jax.host.guided import upsampled_labels
from wsss_jax.host.logit_masks import softmax
from wsss_jax.host.upsampling import ViewMaps
from wsss_jax.viz.labeled import labeled_mask
from wsss_jax.viz.overlay import cam_overlay

THRESHOLD = 0.3
"""The normalized response that counts as much as the background."""
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class ClassifierTask:
    """The responses of a classifier to one image.

    Attributes:
      image_id: the name of the image.
      image: the encoded image.
      responses: the maps of all classes of the classifier.
      bias: the bias of each class.
      wanted: the classes to make maps of; none takes the most probable ones.
      best: how many classes are taken if none is wanted.
      names: the name of each class.
      crf: the settings of the CRF, or None for a mask at the threshold.
    """

    image_id: str
    image: bytes
    responses: ViewMaps
    bias: Float32[np.ndarray, " c"]
    wanted: tuple[int, ...]
    best: int
    names: tuple[str, ...]
    crf: CrfSettings | None


def class_probabilities(task: ClassifierTask) -> Float32[np.ndarray, " c"]:
    """Returns the probability of each class, from its mean response over the image."""
    means = [maps.mean((1, 2), dtype=np.float32) for maps, _, _ in task.responses.views]
    logits = np.mean(means, axis=0) + task.bias
    return softmax(logits[:, None, None].astype(np.float32))[:, 0, 0]


def class_maps(
    task: ClassifierTask, chosen: np.ndarray, size: tuple[int, int]
) -> Float32[np.ndarray, "k h w"]:
    """Returns the responses of the `chosen` classes at a size, each normalized to 0…1."""
    views = tuple(view._replace(maps=view.maps[chosen]) for view in task.responses.views)
    maps = dataclasses.replace(task.responses, size=size, channels=chosen, views=views)
    cams = np.maximum(maps.summed(), 0)
    low = cams.min((1, 2), keepdims=True)
    high = cams.max((1, 2), keepdims=True)
    return (np.maximum(cams - low - _EPSILON, 0) / (high - low + _EPSILON)).astype(np.float32)


def write_classifier_masks(task: ClassifierTask, paths: tuple[Path, ...]) -> None:
    """Writes the mask, the overlay, the heat map and the scores of an image.

    The mask has the index k where the k-th of the chosen classes is. Everything is computed at no
    more than `wsss_jax.host.dense_crf.MOST_PIXELS` pixels, and the mask is then upsampled along the
    edges of the image.

    Args:
      task: the responses.
      paths: the files of the mask (PNG), the overlay (JPEG), the heat map (JPEG), which shows the
        strongest of the maps, and the scores (JSON).

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    image = decode_image(task.image, task.image_id)
    probabilities = class_probabilities(task)
    wanted = task.wanted or tuple(np.argsort(-probabilities)[: task.best].tolist())
    size = bounded_size((image.shape[0], image.shape[1]))
    small = image
    if size != image.shape[:2]:
        small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    cams = class_maps(task, np.array(wanted, np.int64), size)
    scores = with_background(cams, alpha_of_threshold(THRESHOLD))
    if task.crf is not None:
        scale = (size[0] / image.shape[0] * size[1] / image.shape[1]) ** 0.5
        how = task.crf.resized(scale)
        crf = crf_of(small, task.image_id, how)
        unary = np.moveaxis(score_unary(scores.astype(np.float32)), 0, 2)
        scores = np.moveaxis(crf.infer(unary, how.iterations), 2, 0)
    small_mask = scores.argmax(0).astype(np.uint8)
    mask = small_mask
    if size != image.shape[:2]:
        mask = upsampled_labels(scores.astype(np.float32), image).astype(np.uint8)
    names = [task.names[index].partition(",")[0] for index in wanted]
    found = {
        task.names[index]: {
            "index": position,
            "probability": float(probabilities[index]),
            "share": float((mask == position).mean()),
        }
        for position, index in enumerate(wanted, 1)
    }
    best = [int(index) for index in np.argsort(-probabilities)[:5]]
    content = {
        "height": image.shape[0],
        "width": image.shape[1],
        "classes": found,
        "most_probable": {task.names[index]: float(probabilities[index]) for index in best},
    }
    with atomic_write(paths[3]) as file:
        file.write(json.dumps(content, ensure_ascii=False).encode())
    _write_picture(labeled_mask(small, small_mask, names), paths[1])
    _write_picture(cam_overlay(small, cams.max(0)), paths[2])
    with atomic_write(paths[0]) as file:
        file.write(encode_mask(mask))


def _write_picture(pixels: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling=0)
