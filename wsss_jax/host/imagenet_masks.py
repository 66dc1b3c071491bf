"""Makes maps and masks from a classifier's responses, in processes that do not import JAX."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import encode_mask
from wsss_jax.files import atomic_write
from wsss_jax.host.background import alpha_of_threshold, with_background
from wsss_jax.host.dense_crf import CrfSettings, bounded_size, crf_of, score_unary
from wsss_jax.host.guided import upsampled_labels
from wsss_jax.host.logit_masks import softmax
from wsss_jax.host.normalization import normalized
from wsss_jax.host.upsampling import ViewMaps
from wsss_jax.viz.labeled import labeled_mask
from wsss_jax.viz.overlay import cam_overlay

THRESHOLD = 0.3
"""The normalized response that counts as much as the background."""


class Wanted(NamedTuple):
    """A class of a mask: one of the classifier's, or several as one, such as all dogs.

    Attributes:
      name: what it is called.
      classes: the classifier's classes.
    """

    name: str
    classes: tuple[int, ...]


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
    wanted: tuple[Wanted, ...]
    best: int
    names: tuple[str, ...]
    crf: CrfSettings | None


def class_probabilities(task: ClassifierTask) -> Float32[np.ndarray, " c"]:
    """Returns the probability of each class, from its mean response over the image."""
    return softmax(_logits(task)[:, None, None])[:, 0, 0]


def _logits(task: ClassifierTask) -> Float32[np.ndarray, " c"]:
    means = [maps.mean((1, 2), dtype=np.float32) for maps, _, _ in task.responses.views]
    return (np.mean(means, axis=0) + task.bias).astype(np.float32)


def class_maps(
    task: ClassifierTask, chosen: Sequence[Wanted], size: tuple[int, int]
) -> Float32[np.ndarray, "k h w"]:
    """Returns the responses of the `chosen` classes at a size, each normalized to 0…1.

    The logit of several classes as one is the logarithm of the sum of their exponentials, whose
    softmax gives the sum of their probabilities. Its derivative weights their responses by their
    shares of this sum.
    """
    logits = _logits(task)
    members = [np.array(one.classes) for one in chosen]
    weights = [softmax(logits[classes][:, None, None])[:, 0, 0] for classes in members]

    def joined(maps: Float[np.ndarray, "c h w"]) -> Float[np.ndarray, "k h w"]:
        ways = zip(weights, members, strict=True)
        return np.stack([np.tensordot(w, maps[classes], 1) for w, classes in ways])

    views = tuple(view._replace(maps=joined(view.maps)) for view in task.responses.views)
    channels = np.arange(len(chosen))
    maps = dataclasses.replace(task.responses, size=size, channels=channels, views=views)
    return normalized(maps.summed(), "min_max")


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
    order = np.argsort(-probabilities).tolist()
    wanted = task.wanted or [Wanted(task.names[index], (index,)) for index in order[: task.best]]
    size = bounded_size((image.shape[0], image.shape[1]))
    small = image
    if size != image.shape[:2]:
        small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    cams = class_maps(task, wanted, size)
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
    names = [one.name.partition(",")[0] for one in wanted]
    found = {
        one.name: {
            "index": position,
            "probability": float(probabilities[list(one.classes)].sum()),
            "share": float((mask == position).mean()),
        }
        for position, one in enumerate(wanted, 1)
    }
    content = {
        "height": image.shape[0],
        "width": image.shape[1],
        "classes": found,
        "most_probable": {task.names[index]: float(probabilities[index]) for index in order[:5]},
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
