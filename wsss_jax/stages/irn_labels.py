"""What IRNet learns from (Ahn et al., CVPR 2019): ``masks/<id>.png``, 255 where not sure.

Two dense CRFs start from hard labels of the class activation maps. Foreground is what they call so
though only strong responses, above a high threshold, counted; background is what they still call so
when weak ones, above a low threshold, did.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int, UInt8

from wsss_jax.data.formats.cam_files import image_and_cams
from wsss_jax.data.images import IGNORE, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import CrfSettings, DenseCrf, label_unary
from wsss_jax.stages.base import Context, Stage
from wsss_jax.stages.crf_work import Task, on_all_images


@dataclasses.dataclass(frozen=True, kw_only=True)
class IrnLabels(CrfSettings, Stage):
    """Makes the labels that IRNet learns from: ``masks/<id>.png``, 255 where not sure.

    Reads ``cams/`` of the need ``cams``. Finished images are kept. Processes share the images, and
    each hands its part to worker processes. The defaults are the published values.

    Attributes:
      split: images to label.
      foreground: a map's value from which it is foreground for certain.
      background: a map's value up to which it is background for certain.
      confidence: probability that the CRF starts with for a pixel's label.
      workers: processes; 0: one for each core.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("masks/",)
    no_effect: ClassVar[frozenset[str]] = frozenset({"workers"})

    split: str
    foreground: float = 0.3
    background: float = 0.05
    confidence: float = 0.7
    bilateral: tuple[float, float, float] = (50.0, 5.0, 10.0)
    workers: int = 0

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

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``labelled``, how many this run did; ``images_per_second`` of this process
          (None when nothing was left to do); the settings.

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image.
        """
        cams = inputs["cams"] / "cams"
        work = on_all_images(
            ctx, self.split, self.workers, cams, label_file, self, "masks/*.png", "labels"
        )
        return {
            "images": work.images,
            "labelled": work.done,
            "images_per_second": work.images_per_second,
            "foreground": self.foreground,
            "background": self.background,
            "confidence": self.confidence,
        }


def label_file(task: Task[IrnLabels]) -> None:
    """Does one image, in a worker process.

    Raises:
      UserError: see `IrnLabels.run`.
    """
    image, keys, scores = image_and_cams(task.image, task.image_id, task.cams, task.num_classes)
    try:
        labels = sure_labels(image, keys, scores, task.how)
    except ValueError as error:
        raise UserError(f"CRF of image {task.image_id}: {error}") from error
    with atomic_write(task.target) as file:
        file.write(encode_mask(labels))


def sure_labels(
    image: UInt8[np.ndarray, "h w 3"],
    keys: Int[np.ndarray, " k"],
    scores: Float32[np.ndarray, "k h w"],
    how: IrnLabels,
) -> UInt8[np.ndarray, "h w"]:
    """0 background, key + 1 foreground, 255 where the two CRFs leave it open.

    Args:
      image: RGB.
      keys: foreground classes of the image; without any, all is background.
      scores: their maps, 0…1.
      how: the settings.

    Raises:
      ValueError: as `DenseCrf`.
    """
    if len(keys) == 0:
        return np.zeros(image.shape[:2], np.uint8)
    crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=how.fast)

    def refined(threshold: float) -> np.ndarray:
        ground = np.full((1, *scores.shape[1:]), threshold, np.float32)
        hard = np.concatenate([ground, scores]).argmax(0)
        unary = label_unary(hard, len(keys) + 1, how.confidence)
        return crf.infer(unary, how.iterations).argmax(-1)

    foreground, background = refined(how.foreground), refined(how.background)
    classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
    unsure = np.where(background == 0, 0, IGNORE)
    return np.where(foreground > 0, classes[foreground], unsure).astype(np.uint8)
