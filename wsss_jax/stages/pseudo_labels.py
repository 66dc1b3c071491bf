"""The stage that turns class activation maps or CRF results into masks: ``masks/<id>.png``.

``confidence/<id>.png`` holds their confidence.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int, UInt8

from wsss_jax.data.confidence import CONFIDENCE_FOLDER, confidence, write_confidence
from wsss_jax.data.formats.cam_files import CamFolder, read_cams
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.masks import encode_mask, value_counts
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, check_files
from wsss_jax.host.background import power_background
from wsss_jax.scoring.confusion import IGNORE, strongest
from wsss_jax.stages.base import Context, Needs, expect, refuse_unknown
from wsss_jax.stages.crf import chosen_alpha, expect_alpha
from wsss_jax.stages.mask_counts import MaskCounts
from wsss_jax.stages.per_image import ImageWork, PerImageStage
from wsss_jax.stages.references import best_threshold, fraction, named_need

# A function from an image's id to its mask and its confidence.
_Reader = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Background:
    """The level that a pixel's largest score must exceed to be foreground; one of three is set.

    `threshold` is a constant level. `alpha` gives the level (1 − score)^alpha, the background of
    PSA and SEAM before their CRF. With `ignore_band` (low, high), scores up to low are background,
    those above high are foreground, and those between are 255 (ignore).
    """

    threshold: float | None = None
    alpha: float | None = None
    ignore_band: tuple[float, float] | None = None


def label_map(
    keys: Int[np.ndarray, " k"], cam: Float[np.ndarray, "k h w"], background: Background
) -> UInt8[np.ndarray, "h w"]:
    """Returns the class indices of score maps: 0 background, key + 1 foreground, 255 ignore.

    As in `threshold_counts`, the strongest class wins where its score is *above* that of the
    background, so the mask has the score that the threshold curve shows.
    """
    winner, score = strongest(cam, keys)
    if background.ignore_band is not None:
        low, high = map(np.float32, background.ignore_band)
        return np.where(score > high, winner, np.where(score > low, IGNORE, 0)).astype(np.uint8)
    return np.where(score > _level(score, background), winner, 0).astype(np.uint8)


def label_confidence(
    cam: Float[np.ndarray, "k h w"], background: Background
) -> UInt8[np.ndarray, "h w"]:
    """Returns the confidence of the labels of `label_map`; a band counts as its middle."""
    score = np.asarray(cam, np.float32).max(0, initial=0)
    scores = np.concatenate([_level(score, background)[None], cam])
    return confidence(scores, scores.argmax(0))


def _level(score: Float[np.ndarray, "h w"], background: Background) -> Float[np.ndarray, "h w"]:
    """Returns the score of the background where the strongest class has `score`."""
    if background.alpha is not None:
        return power_background(score, background.alpha)
    band = background.ignore_band
    return np.full_like(score, sum(band) / 2 if band is not None else background.threshold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabels(PerImageStage):
    """Turns class activation maps or CRF results into masks: ``masks/<id>.png``.

    It reads ``cams/`` of the need ``cams``. A mask can only have classes that have maps, which are
    those of the image's label. With the need ``crf`` instead of ``cams``, masks are the most
    probable classes of its result for `alpha`.

    There is one kind of background (see `Background`): `ignore_band` if it is given, otherwise
    `alpha` if it is above 0, and otherwise `threshold`.

    Attributes:
      threshold: the level that a score must exceed to be foreground. It is a number, or
        ``from:NEED`` for the best threshold of that evaluation or threshold stage. "" means the
        only need besides ``cams``.
      alpha: the exponent of the background (1 − score)^alpha, or 0 for none. With the need ``crf``,
        the α of the result to use.
      ignore_band: (low, high), where scores up to low are background, those above high are
        foreground, and those between are 255; () for none.
    """

    outputs: ClassVar[tuple[str, ...]] = ("masks/", "confidence/")

    threshold: float | str = ""
    alpha: float = 0.0
    ignore_band: tuple[float, float] | tuple[()] = ()

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: the band or the exponent is out of its range.
        """
        super().__post_init__()
        band = self.ignore_band
        if band and not 0 <= band[0] <= band[1]:
            raise UserError(
                f"expected ignore_band (low, high) with 0 ≤ low ≤ high, found {band}: change it"
            )
        if self.alpha < 0:
            raise UserError(
                f"expected an alpha above 0 (or 0 for none), found {self.alpha!r}: change it"
            )

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        refuse_unknown(needs, ("cams", "crf"))
        if "crf" in needs:
            expect(needs, "crf", "crf/")
            chosen_alpha(self.alpha, needs["crf"].name)
            expect_alpha(needs, "crf", self.alpha)
            return
        expect(needs, "cams", "cams/")
        choice = self._choice(needs)
        if isinstance(choice, str):
            expect(needs, choice, "metrics.json")

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``, ``threshold`` with ``threshold_choice`` (``fixed``, ``contrast``,
          ``held_out``, ``oracle``), or ``alpha``, or ``ignore_band``, and what this process's masks
          show (see `MaskCounts.metrics`).

        Raises:
          UserError: a CAM file or CRF result is missing or damaged.
        """
        source = ctx.source(self.split)
        if "crf" in inputs:
            alpha = chosen_alpha(self.alpha, inputs["crf"].name)
            read = _crf_reader(inputs["crf"] / "crf", source, alpha)
            how: dict[str, Any] = {"alpha": alpha, "crf": True}
        else:
            background, how = self._background(inputs)
            read = _cam_reader(inputs["cams"] / "cams", source, background)

        def finish(image_id: str, paths: tuple[Path, ...]) -> np.ndarray:
            mask, sure = read(image_id)
            write_confidence(paths[1], sure)
            with atomic_write(paths[0]) as file:
                file.write(encode_mask(mask))
            return value_counts(mask)

        work = ImageWork(
            files=("masks/{id}.png", CONFIDENCE_FOLDER + "/{id}.png"),
            prepare=lambda position: source.ids[position],
            finish=finish,
        )
        counts = MaskCounts(source)
        counts.add_kept(ctx, self.on_images(ctx, source, work, "masks", counts.add))
        described = ", ".join(f"{key} {value}" for key, value in how.items())
        ground, ignored = counts.background_and_ignore
        ctx.log(
            f"{len(source.ids)} masks, {described}; pixels:"
            f" {100 * ground:.1f} % background, {100 * ignored:.1f} % ignored"
        )
        advice = "maps, or their threshold, may be worthless"
        return {"images": len(source.ids), **how, **counts.metrics(ctx, advice)}

    def _background(self, inputs: Mapping[str, Path]) -> tuple[Background, dict[str, Any]]:
        """Returns the background and how it was chosen, for the metrics."""
        choice = self._choice(inputs)
        if isinstance(choice, str):
            threshold, how = best_threshold(inputs[choice])
            return (
                Background(threshold=threshold),
                {"threshold": threshold, "threshold_choice": how},
            )
        found = {name: v for name, v in dataclasses.asdict(choice).items() if v is not None}
        return choice, found | ({"threshold_choice": "fixed"} if "threshold" in found else {})

    def _choice(self, needs: Collection[str]) -> Background | str:
        """Returns the background of the settings, or the need whose best threshold it is.

        Raises:
          UserError: the threshold is neither a number nor ``from:NEED``.
        """
        if self.ignore_band:
            return Background(ignore_band=self.ignore_band)
        if self.alpha:
            return Background(alpha=self.alpha)
        others = [need for need in needs if need != "cams"]
        setting = self.threshold
        if setting == "" and len(others) == 1:
            return others[0]
        need = named_need(setting, needs)
        if need is not None:
            return need
        try:
            return Background(threshold=fraction(setting, "threshold"))
        except ValueError as error:
            raise UserError(
                f"expected a number or from:NEED as threshold, found {setting!r}: change it"
            ) from error


def _cam_reader(folder: Path, source: Source, background: Background) -> _Reader:
    """Returns a function that makes the mask of an image's maps, after finding all files."""
    cams = CamFolder(folder, source.ids)

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        keys, cam = read_cams(cams[image_id], len(source.classes))
        return label_map(keys, cam, background), label_confidence(cam, background)

    return read


def _crf_reader(folder: Path, source: Source, alpha: float) -> _Reader:
    """Does the same as `_cam_reader` for CRF results."""
    check_files("CRF result", folder, source.ids, ".npz")

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        keys, q = read_crf(folder / f"{image_id}.npz", alpha, len(source.classes))
        q = q.astype(np.float32)  # comparing float16 is ten times slower
        chosen = q.argmax(0)
        classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
        return classes[chosen], confidence(q, chosen)

    return read
