"""Finds the targets of the pixels of training crops: masks or AffinityNet's labels."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from wsss_jax.data.affinity_labels import AffinityLabels
from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.loader import CropTarget
from wsss_jax.data.mask_labels import GroundTruth, MaskLabels
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import check_files
from wsss_jax.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSettings(Settings):
    """Settings for the origin of the targets of pixels.

    Attributes:
      ground_truth: whether a method that needs masks learns from those of the data set, which is
        the upper bound for masks made from labels.
      affinity_alphas: the alphas of the two results of the crf stage that make AffinityNet's
        labels, the smaller first; () for none.
      least_confidence: pixels whose confidence (0…1) is below this value are ignored by a
        segmentation network; 0 uses all pixels.
    """

    ground_truth: bool = False
    affinity_alphas: tuple[float, ...] = ()
    least_confidence: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        if not 0 <= self.least_confidence <= 1:
            raise UserError(
                f"expected least_confidence in 0…1, found {self.least_confidence:g}: change it"
            )

    def check_targets(self, spec: BatchSpec, needs: Collection[str]) -> None:
        """Checks that the targets of the method have one origin, and that ground truth is explicit.

        Raises:
          UserError: a target has no origin or two, or the method does not use it.
        """
        if spec.segmentation and ("masks" in needs) == self.ground_truth:
            found = "both" if self.ground_truth else "none"
            raise UserError(
                f"expected one origin of the masks that this method learns from, found {found}: set"
                " needs=dict(masks=STAGE), or ground_truth=True for the masks of the data set"
            )
        if not spec.segmentation and ("masks" in needs or self.ground_truth):
            raise UserError(
                "expected no masks for a method that does not learn from them, found"
                f" {'ground_truth=True' if self.ground_truth else 'needs.masks'}: remove it"
            )
        if spec.affinity_stride and not (self.affinity_alphas and "labels" in needs):
            found = "no affinity_alphas" if "labels" in needs else "no need labels"
            raise UserError(
                "expected affinity_alphas and the need labels for a method that learns affinities,"
                f" found {found}: set affinity_alphas=(4, 24) and needs=dict(labels=STAGE) with a"
                " crf stage"
            )

    def crop_targets(
        self, spec: BatchSpec, source: Source, inputs: Mapping[str, Path]
    ) -> dict[str, CropTarget]:
        """Returns the targets of the pixels of crops, which are masks or AffinityNet's labels.

        Raises:
          UserError: an image has no mask, confidence or CRF result, or the settings do not state
            their origin.
        """
        self.check_targets(spec, inputs)
        targets: dict[str, CropTarget] = {}
        if spec.segmentation and self.ground_truth:
            targets["segmentation"] = GroundTruth(len(source.classes))
        elif spec.segmentation:
            targets["segmentation"] = self._stage_masks(source, inputs["masks"])
        if spec.affinity_stride:
            folder = inputs["labels"] / "crf"
            targets["affinity_label"] = AffinityLabels(
                folder, self.affinity_alphas, len(source.classes), spec.affinity_stride
            )
            check_files("CRF result", folder, source.ids, ".npz")
        return targets

    def _stage_masks(self, source: Source, made: Path) -> MaskLabels:
        folder = made / "masks"
        check_files("mask (.png)", folder, source.ids, ".png")
        if not self.least_confidence:
            return MaskLabels(folder, len(source.classes))
        sure = made / CONFIDENCE_FOLDER
        check_files("confidence (.png)", sure, source.ids, ".png")
        return MaskLabels(folder, len(source.classes), self.least_confidence, sure)
