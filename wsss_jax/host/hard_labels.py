"""Makes IRNet's labels (Ahn et al., CVPR 2019), in worker processes that do not import JAX.

Two dense CRFs start from hard labels of the class activation maps. Pixels are labeled foreground
if they are foreground although only strong responses, above a high threshold, counted. They are
labeled background if they are background although weak responses, above a low threshold, counted.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, UInt8

from wsss_jax.data.formats.cam_files import image_and_cams
from wsss_jax.data.masks import IGNORE, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.host.cam_crf import CamTask
from wsss_jax.host.dense_crf import (
    IRN,
    CrfSettings,
    HostMeanField,
    MakeMeanField,
    crf_of,
    label_unary,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardLabels(CrfSettings):
    """Settings for making certain labels from maps; the defaults are those of IRNet.

    Attributes:
      foreground: the response from which on a pixel is certain to be foreground.
      background: the response up to which a pixel is certain to be background.
      confidence: the probability of a pixel's label that the CRF starts with.
    """

    foreground: float = 0.3
    background: float = 0.05
    confidence: float = 0.7
    bilateral: tuple[float, float, float] = IRN.bilateral

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: the thresholds or the confidence make no sense.
        """
        super().__post_init__()
        if not 0 <= self.background <= self.foreground <= 1:
            raise UserError(
                "expected thresholds 0 <= background <= foreground <= 1, found background"
                f" {self.background} and foreground {self.foreground}: change them"
            )
        if not 0 < self.confidence < 1:
            raise UserError(f"expected a confidence inside 0…1, found {self.confidence}: change it")


def label_cams(
    how: HardLabels,
    task: CamTask,
    paths: tuple[Path, ...],
    mean_field: MakeMeanField = HostMeanField,
) -> None:
    """Writes the labels of `sure_labels`.

    Raises:
      UserError: the image or its CAM file is damaged, they differ in size, or the settings of the
        CRF do not fit the image.
    """
    image, keys, scores = image_and_cams(task.image, task.image_id, task.cams, task.num_classes)
    labels = sure_labels(image, task.image_id, keys, scores, how, mean_field)
    with atomic_write(paths[0]) as file:
        file.write(encode_mask(labels))


def sure_labels(
    image: UInt8[np.ndarray, "h w 3"],
    image_id: str,
    keys: Int[np.ndarray, " k"],
    scores: Float32[np.ndarray, "k h w"],
    how: HardLabels,
    mean_field: MakeMeanField = HostMeanField,
) -> UInt8[np.ndarray, "h w"]:
    """Returns labels: 0 background, key + 1 foreground, and 255 where the two CRFs are not certain.

    Args:
      image: the image in RGB.
      image_id: the id of the image, for messages.
      keys: the foreground classes of the image; if there are none, every pixel is background.
      scores: the maps of these classes, 0…1.
      how: the settings.
      mean_field: what makes the CRF's mean-field updates.

    Raises:
      UserError: the settings of the CRF do not fit the image.
    """
    if len(keys) == 0:
        return np.zeros(image.shape[:2], np.uint8)
    crf = crf_of(image, image_id, how, mean_field)

    def refined(threshold: float) -> np.ndarray:
        ground = np.full((1, *scores.shape[1:]), threshold, np.float32)
        hard = np.concatenate([ground, scores]).argmax(0)
        unary = label_unary(hard, len(keys) + 1, how.confidence)
        return crf.infer(unary, how.iterations).argmax(-1)

    foreground, background = refined(how.foreground), refined(how.background)
    classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
    unsure = np.where(background == 0, 0, IGNORE)
    return np.where(foreground > 0, classes[foreground], unsure).astype(np.uint8)
