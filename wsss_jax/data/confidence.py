"""The confidence of pseudo labels: gray images ``confidence/<id>.png`` beside ``masks/<id>.png``.

A value is 255 times the share that a pixel's class has of the scores of all classes, including the
background. After a random walk, these are the scores of the walk, even if a dense CRF made the
final decision, because a CRF makes nearly every pixel certain, right or wrong. Without a walk, they
are the probabilities of the CRF.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from wsss_jax.data.masks import decode_mask, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, read_bytes

CONFIDENCE_FOLDER = "confidence"
CERTAIN = 255


def confidence(
    scores: Float[np.ndarray, "labels h w"], chosen: Int[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w"]:
    """Returns the share of the `chosen` label's score; shares are equal if all scores are 0."""
    total = scores.sum(0, dtype=np.float32)
    own = np.take_along_axis(scores, chosen[None], 0)[0].astype(np.float32)
    equal = np.full_like(total, 1 / len(scores))
    share = np.divide(own, total, out=equal, where=total > 0)
    return np.rint(CERTAIN * share).astype(np.uint8)


def write_confidence(path: Path, values: UInt8[np.ndarray, "h w"]) -> None:
    """Writes a file of confidences atomically."""
    with atomic_write(path) as file:
        file.write(encode_mask(values, palette=False))


def read_confidence(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Reads the values of a file, 0 to `CERTAIN`; `size` is the (height, width) of its mask.

    Raises:
      UserError: the file is missing, damaged or of another size.
    """
    content = read_bytes(path, remedy="make the masks again")
    values = decode_mask(content, str(path), None)
    if values.shape != size:
        raise UserError(
            f"{path}: expected {size[1]}×{size[0]} pixels like its mask, found"
            f" {values.shape[1]}×{values.shape[0]}: delete both and make them again"
        )
    return values
