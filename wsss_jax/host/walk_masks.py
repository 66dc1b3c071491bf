"""Makes masks from the scores of random walks, in worker processes that do not import JAX."""

import dataclasses
from pathlib import Path

import numpy as np

from wsss_jax.data.confidence import confidence, write_confidence
from wsss_jax.data.formats.walk_files import read_walk
from wsss_jax.data.images import decode_image, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import CrfSettings, crf_of, score_unary


@dataclasses.dataclass(frozen=True)
class MaskTask:
    """The walk of one image, the number of foreground classes, and the final CRF if there is one.

    `image` is the encoded image, which only the CRF needs.
    """

    image_id: str
    walk: Path
    num_classes: int
    image: bytes = b""
    crf: CrfSettings | None = None


def write_mask(task: MaskTask, paths: tuple[Path, ...]) -> None:
    """Writes the strongest class of each pixel after the CRF, and its confidence.

    Among equal scores, the background wins.

    Args:
      task: the image.
      paths: the paths of its mask and of its confidence.

    Raises:
      UserError: the file of the walk is damaged, or the walk belongs to another image.
    """
    walk = read_walk(task.walk, task.num_classes)
    scores = walk.upsampled()
    chosen = scores.argmax(0)
    if task.crf is not None and len(walk.keys):
        image = decode_image(task.image, task.image_id)
        if image.shape[:2] != walk.size:
            raise UserError(
                f"{task.walk}: expected the size of image {task.image_id}, {image.shape[:2]}, found"
                f" {walk.size}: delete it and make it again"
            )
        crf = crf_of(image, task.image_id, task.crf)
        q = crf.infer(np.moveaxis(score_unary(scores), 0, 2), task.crf.iterations)
        chosen = q.argmax(2)
    write_confidence(paths[1], confidence(scores, chosen))
    classes = np.concatenate([[0], walk.keys + 1]).astype(np.uint8)
    with atomic_write(paths[0]) as file:
        file.write(encode_mask(classes[chosen]))
