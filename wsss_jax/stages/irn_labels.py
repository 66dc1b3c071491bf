"""What IRNet learns from (Ahn et al., CVPR 2019): ``masks/<id>.png``, 255 where not sure.

Two dense CRFs start from hard labels of the class activation maps. Foreground is what they call so
though only strong responses, above a high threshold, counted; background is what they still call so
when weak ones, above a low threshold, did.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8
from ml_collections import ConfigDict

from wsss_jax.data.formats.cam_files import image_and_cams
from wsss_jax.data.images import IGNORE, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.host.dense_crf import IRN, CrfSettings, DenseCrf, crf_settings, label_unary
from wsss_jax.stages.base import Context, Needs, expect
from wsss_jax.stages.crf_work import Task, on_all_images


@dataclasses.dataclass(frozen=True)
class HardLabels:
    """How maps become labels; the defaults are the published ones.

    Attributes:
      foreground: a map's value from which it is foreground for certain.
      background: a map's value up to which it is background for certain.
      confidence: probability that the CRF starts with for a pixel's label.
      crf: widths, weights and iterations.
      fast: half the resolution in the CRF, see `DenseCrf`.
    """

    foreground: float = 0.3
    background: float = 0.05
    confidence: float = 0.7
    crf: CrfSettings = IRN
    fast: bool = False

    def __post_init__(self):
        """Checks the values.

        Raises:
          UserError: the thresholds or the confidence make no sense.
        """
        if not 0 <= self.background <= self.foreground <= 1:
            raise UserError(
                "expected thresholds 0 <= background <= foreground <= 1, found background"
                f" {self.background} and foreground {self.foreground}: change them"
            )
        if not 0 < self.confidence < 1:
            raise UserError(f"expected a confidence inside 0…1, found {self.confidence}: change it")


MAKES = ("masks/",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    expect(needs, "cams", "cams/")
    _hard_labels(config.to_dict())


def _hard_labels(values: dict[str, Any]) -> HardLabels:
    known = ("foreground", "background", "confidence")
    return HardLabels(
        **{name: float(values[name]) for name in known if name in values},
        crf=crf_settings(values, IRN),
        fast=bool(values.get("fast", False)),
    )


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Reads ``cams/`` of the need ``cams``. Finished images are kept. Processes share the images, and
    each hands its part to worker processes.

    Settings: ``split``; ``foreground``, ``background``, ``confidence`` (see `HardLabels`);
    ``gaussian`` (sxy, weight), ``bilateral`` (sxy, srgb, weight), ``iterations`` (IRNet's by
    default), ``fast``; ``workers`` (0: one for each core), which does not change the results.

    Returns:
      ``images``; ``labelled``, how many this run did; ``images_per_second`` of this process (None
      when nothing was left to do); the settings.

    Raises:
      UserError: a CAM file is missing, damaged or of another size than its image, or the settings
        make no sense.
    """
    values: dict[str, Any] = config.to_dict()
    how = _hard_labels(values)
    cams = inputs["cams"] / "cams"
    work = on_all_images(ctx, values, cams, label_file, how, "masks/*.png", "labels")
    return {
        "images": work.images,
        "labelled": work.done,
        "images_per_second": work.images_per_second,
        "foreground": how.foreground,
        "background": how.background,
        "confidence": how.confidence,
    }


def label_file(task: Task[HardLabels]) -> None:
    """Does one image, in a worker process.

    Raises:
      UserError: see `run`.
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
    how: HardLabels,
) -> UInt8[np.ndarray, "h w"]:
    """0 background, key + 1 foreground, 255 where the two CRFs leave it open.

    Args:
      image: RGB.
      keys: foreground classes of the image; without any, all is background.
      scores: their maps, 0…1.
      how: see `HardLabels`.

    Raises:
      ValueError: as `DenseCrf`.
    """
    if len(keys) == 0:
        return np.zeros(image.shape[:2], np.uint8)
    crf = DenseCrf(image, gaussian=how.crf.gaussian, bilateral=how.crf.bilateral, fast=how.fast)

    def refined(threshold: float) -> np.ndarray:
        ground = np.full((1, *scores.shape[1:]), threshold, np.float32)
        hard = np.concatenate([ground, scores]).argmax(0)
        unary = label_unary(hard, len(keys) + 1, how.confidence)
        return crf.infer(unary, how.crf.iterations).argmax(-1)

    foreground, background = refined(how.foreground), refined(how.background)
    classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
    unsure = np.where(background == 0, 0, IGNORE)
    return np.where(foreground > 0, classes[foreground], unsure).astype(np.uint8)
