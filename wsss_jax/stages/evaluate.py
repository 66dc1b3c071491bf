"""The stage that scores masks, CRF results or activation maps against ground truth."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.formats.cam_files import all_cams
from wsss_jax.data.formats.crf_files import read_crf_mask
from wsss_jax.data.images import decode_mask
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import check_all_found, write_json
from wsss_jax.scoring import score_files
from wsss_jax.scoring.confusion import Protocol, confusion_scores
from wsss_jax.scoring.tables import class_table, confidence_table
from wsss_jax.stages.base import Context, Needs, Stage
from wsss_jax.stages.crf import expect_alpha
from wsss_jax.stages.references import best_threshold, named_need

ScoreOne = Callable[[str, Sequence[float]], score_files.Counts]


@dataclasses.dataclass(frozen=True)
class _Choice:
    """How the threshold is chosen; `value` is set if it is fixed beforehand."""

    name: str
    value: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Scores masks, CRF results or class activation maps against the ground truth of a split.

    It reads ``masks/`` of the need ``pred``, or otherwise its ``crf/`` (the most probable classes),
    or otherwise its ``cams/``, and scores every image of `split`. It writes ``per_image.json``
    (id → mIoU over the image's own classes). Only the first process scores, because the time goes
    into reading files.

    The threshold of maps can be

    - a number, which is fixed beforehand;
    - ``oracle``, the best on the scored images;
    - ``held_out``, the best on `held_out_images` images that are drawn with the recipe's seed; the
      scores are those of the remaining images;
    - ``from:NEED``, the best of another evaluation, such as that of train for scoring val, or the
      threshold of a threshold stage.

    Attributes:
      split: the split whose images are scored.
      protocol: ``strict`` or ``present``; see `confusion_scores`.
      ignore_as_background: whether a predicted 255 in a mask counts as background; otherwise it is
        refused.
      alpha: the α whose result of a crf stage is scored.
      threshold: the threshold of maps: a number, ``oracle``, ``held_out`` or ``from:NEED``.
      held_out_images: the number of images that ``held_out`` draws.
      compare: further thresholds of maps by name, numbers or ``from:NEED``, at which maps are
        scored too.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"pred": ("masks/", "crf/", "cams/")}
    outputs: ClassVar[tuple[str, ...]] = ("metrics.json",)

    split: str
    protocol: Protocol = "strict"
    ignore_as_background: bool = False
    alpha: float = 0.0
    threshold: float | str = "oracle"
    held_out_images: int = 100
    compare: Mapping[str, float | str] = dataclasses.field(default_factory=dict)

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        pred = needs["pred"]
        if "crf/" in pred.stage.outputs:
            self._alpha_of(pred.name)
            expect_alpha(needs, "pred", self.alpha)
        if "cams/" in pred.stage.outputs:
            for setting in (self.threshold, *self.compare.values()):
                _need_of(setting, needs)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          The scores as fractions (`score_files.summary`, with boundary IoUs for masks), ``images``,
          ``protocol`` and ``split``. Masks with confidences also have ``by_confidence``; see
          `score_files.by_confidence`. Maps also have ``threshold`` with ``threshold_choice``,
          ``compared``, the curves over `score_files.THRESHOLDS` on the scored images, and
          ``best_threshold``, which is the best on the held-out sample if there is one, and
          otherwise on the scored images.

        Raises:
          UserError: a prediction or its ground truth is missing, damaged or of another size.
        """
        if ctx.process_index != 0:
            return {}
        source = ctx.source(self.split)
        protocol = self.protocol
        names = ("background", *source.classes)
        folder = inputs["pred"]
        result: dict[str, Any]
        if (folder / "masks").is_dir():
            score_one = _mask_scorer(folder, source, self.ignore_as_background)
            scored = _score(ctx, source.ids, score_one, ())
            result, column = {}, 0
            if len(scored.confusion) > 1:
                result["by_confidence"] = score_files.by_confidence(scored.confusion, protocol)
        elif (folder / "crf").is_dir():
            alpha = self._alpha_of(folder.name)
            scored = _score(ctx, source.ids, _crf_scorer(folder / "crf", source, alpha), ())
            result, column = {"alpha": alpha}, 0
        elif (folder / "cams").is_dir():
            choice = _parse_choice(self.threshold, inputs)
            score_one = _cam_scorer(folder / "cams", source)
            scored, result, column = self._score_maps(ctx, source, score_one, choice, inputs)
        else:
            raise UserError(
                f"expected crf/, masks/ or cams/ in {folder}, found none: run its stage"
            )

        confusion = scored.confusion[column]
        result |= score_files.summary(confusion, names, protocol, scored.boundary)
        result |= {"images": len(scored.image_miou), "protocol": protocol, "split": self.split}
        per_image = {name: float(miou[column]) for name, miou in scored.image_miou.items()}
        write_json(ctx.stage_dir / "per_image.json", per_image)
        chosen = (
            f", threshold {result['threshold']:.2f} ({choice.name})"
            if "threshold" in result
            else ""
        )
        compared: Any = result.get("compared", {})
        for name, other in compared.items():
            chosen += f"; at {other['threshold']:.2f} ({name}) mIoU {100 * other['miou']:.2f}"
        ctx.log(
            f"{result['split']}: {result['images']} images, {protocol}{chosen}\n"
            + class_table(result)
        )
        if "by_confidence" in result:
            ctx.log("only the more certain pixels\n" + confidence_table(result["by_confidence"]))
        return result

    def _alpha_of(self, stage: str) -> float:
        """Returns the α whose result of the crf stage is meant.

        Raises:
          UserError: it is not set.
        """
        if not self.alpha:
            raise UserError(
                f"expected alpha, as {stage} has a result for each alpha, found none: set alpha to"
                " one of them"
            )
        return self.alpha

    def _score_maps(
        self,
        ctx: Context,
        source: Source,
        score_one: ScoreOne,
        choice: _Choice,
        inputs: Mapping[str, Path],
    ) -> tuple[score_files.Scored, dict[str, Any], int]:
        """Returns scores at all thresholds, the metrics of maps, and the chosen position."""
        grid = score_files.THRESHOLDS
        ids = source.ids
        best = None
        if choice.name == "held_out":
            held_out, ids = _split_off(ids, self.held_out_images, ctx.seed)
            sample = _score(ctx, held_out, score_one, grid)
            best = score_files.curve(sample.confusion, grid, self.protocol)["best_threshold"]
        extra = () if choice.value is None else (choice.value,)
        others = {name: _fixed(setting, inputs) for name, setting in sorted(self.compare.items())}
        scored = _score(ctx, ids, score_one, (*grid, *extra, *others.values()))
        result = score_files.curve(scored.confusion[: len(grid)], grid, self.protocol)
        if best is not None:
            result |= {"best_threshold": best, "held_out_images": len(source.ids) - len(ids)}
        threshold = result["best_threshold"] if choice.value is None else choice.value
        result |= {"threshold": threshold, "threshold_choice": choice.name}
        for number, (name, value) in enumerate(others.items(), len(grid) + len(extra)):
            miou = float(confusion_scores(scored.confusion[number], self.protocol)["miou"])
            result.setdefault("compared", {})[name] = {"threshold": value, "miou": miou}
        return scored, result, len(grid) if extra else grid.index(threshold)


def _score(
    ctx: Context, ids: Sequence[str], score_one: ScoreOne, thresholds: Sequence[float]
) -> score_files.Scored:
    with ctx.progress(len(ids), ctx.stage) as progress:
        return score_files.score_images(
            ids, lambda image_id: score_one(image_id, thresholds), progress.update
        )


def _mask_scorer(folder: Path, source: Source, lenient: bool) -> ScoreOne:
    masks, sure = folder / "masks", folder / CONFIDENCE_FOLDER
    missing = [name for name in source.ids if not (masks / f"{name}.png").is_file()]
    check_all_found("mask (.png)", missing, len(source.ids), masks)
    truth = _truth_reader(source)
    known = sure.is_dir()

    def score_one(image_id: str, thresholds: Sequence[float]) -> score_files.Counts:
        name = f"{image_id}.png"
        true, confidence = truth(image_id), sure / name if known else None
        return score_files.score_mask(masks / name, true, len(source.classes), lenient, confidence)

    return score_one


def _crf_scorer(folder: Path, source: Source, alpha: float) -> ScoreOne:
    missing = [name for name in source.ids if not (folder / f"{name}.npz").is_file()]
    check_all_found("CRF result", missing, len(source.ids), folder)
    truth = _truth_reader(source)

    def score_one(image_id: str, thresholds: Sequence[float]) -> score_files.Counts:
        path, true = folder / f"{image_id}.npz", truth(image_id)
        mask = read_crf_mask(path, alpha, len(source.classes))
        score_files.check_size(path, mask.shape, true)
        return score_files.mask_counts(mask, true, len(source.classes))

    return score_one


def _cam_scorer(folder: Path, source: Source) -> ScoreOne:
    found = all_cams(folder, source.ids)
    truth = _truth_reader(source)

    def score_one(image_id: str, thresholds: Sequence[float]) -> score_files.Counts:
        true = truth(image_id)
        return score_files.score_cams(found[image_id], true, len(source.classes), thresholds)

    return score_one


def _truth_reader(source: Source) -> Callable[[str], np.ndarray]:
    position = {image_id: index for index, image_id in enumerate(source.ids)}

    def read(image_id: str) -> np.ndarray:
        segmentation = source[position[image_id]]["segmentation"]
        if segmentation is None:
            raise UserError(
                f"expected a ground-truth mask of {image_id}, found none: score a split with masks"
            )
        return decode_mask(segmentation, f"ground truth of {image_id}", len(source.classes))

    return read


def _fixed(setting: float | str, inputs: Mapping[str, Path]) -> float:
    value = _parse_choice(setting, inputs).value
    if value is None:
        raise UserError(f"expected numbers or from:NEED in compare, found {setting!r}: change it")
    return value


def _parse_choice(setting: float | str, inputs: Mapping[str, Path]) -> _Choice:
    if setting in ("oracle", "held_out"):
        return _Choice(setting)
    need = _need_of(setting, inputs)
    value = best_threshold(inputs[need])[0] if need else float(setting)
    return _Choice("fixed", value)


def _need_of(setting: float | str, needs: Collection[str]) -> str | None:
    """Returns the need that a threshold comes from, or None if it does not come from a stage."""
    need = named_need(setting, needs)
    try:
        if need is None and setting not in ("oracle", "held_out"):
            float(setting)
    except ValueError as error:
        raise UserError(
            f"expected a number, oracle, held_out or from:NEED as threshold, found {setting!r}:"
            " change it"
        ) from error
    return need


def _split_off(ids: Sequence[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """Returns `count` ids drawn with `seed`, and the other ids, both in the given order."""
    if not 0 < count < len(ids):
        raise UserError(
            f"expected held_out_images from 1 to {len(ids) - 1} of {len(ids)}, found {count}"
        )
    drawn = set(np.random.default_rng(seed).choice(len(ids), count, replace=False).tolist())
    held_out = [name for index, name in enumerate(ids) if index in drawn]
    return held_out, [name for index, name in enumerate(ids) if index not in drawn]
