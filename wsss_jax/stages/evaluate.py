"""The stage that scores masks, CRF results or activation maps against ground truth."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from wsss_jax.data.class_names import check_mask_classes
from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.formats.cam_files import CamFolder
from wsss_jax.data.formats.crf_files import read_crf_mask
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import check_files
from wsss_jax.scoring import score_files
from wsss_jax.scoring.confusion import Protocol, class_scores, image_miou
from wsss_jax.scoring.image_scores import ImageScores, image_scores
from wsss_jax.scoring.tables import class_table, confidence_table
from wsss_jax.stages.base import Context, Needs, Stage
from wsss_jax.stages.crf import chosen_alpha, expect_alpha
from wsss_jax.stages.references import best_threshold, fraction, named_need

ScoreOne = Callable[[int, Sequence[float]], score_files.Counts]
"""A function that scores the image at a position, at the given thresholds if it has maps."""


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
      protocol: ``strict`` or ``present``; see `class_scores`.
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
            chosen_alpha(self.alpha, pred.name)
            expect_alpha(needs, "pred", self.alpha)
        if "cams/" in pred.stage.outputs:
            _need_of(self.threshold, needs)
            for setting in self.compare.values():
                _refuse_choice(setting)
                _need_of(setting, needs)

    def check_data(self, ctx: Context) -> None:
        """Refuses more classes than masks can hold, and to hold all images out; see `Stage`."""
        source = ctx.source(self.split)
        check_mask_classes(len(source.classes))
        if self.threshold == "held_out":
            _check_held_out(self.held_out_images, len(source))

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
        with image_scores(ctx.stage_dir) as each:
            result, chosen = self._scores(ctx, inputs, each)
        compared: Any = result.get("compared", {})
        for name, other in compared.items():
            chosen += f"; at {other['threshold']:.2f} ({name}) mIoU {100 * other['miou']:.2f}"
        ctx.log(
            f"{result['split']}: {result['images']} images, {self.protocol}{chosen}\n"
            + class_table(result)
        )
        if "by_confidence" in result:
            ctx.log("only the more certain pixels\n" + confidence_table(result["by_confidence"]))
        return result

    def _scores(
        self, ctx: Context, inputs: Mapping[str, Path], each: ImageScores
    ) -> tuple[dict[str, Any], str]:
        """Returns the result, and how the threshold was chosen; `each` gets every image."""
        source = ctx.source(self.split)
        protocol, folder = self.protocol, inputs["pred"]
        names = ("background", *source.classes)
        positions = np.arange(len(source))
        result: dict[str, Any]
        column, chosen = 0, ""
        if (folder / "masks").is_dir():
            score_one = _mask_scorer(folder, source, self.ignore_as_background)
            counts = _score(ctx, positions, score_one, (), each)
            result = {}
            if len(counts.classes) > 1:
                result["by_confidence"] = score_files.by_confidence(counts.classes, protocol)
        elif (folder / "crf").is_dir():
            alpha = chosen_alpha(self.alpha, folder.name)
            score_one = _crf_scorer(folder / "crf", source, alpha)
            counts = _score(ctx, positions, score_one, (), each)
            result = {"alpha": alpha}
        elif (folder / "cams").is_dir():
            choice = _parse_choice(self.threshold, inputs)
            score_one = _cam_scorer(folder / "cams", source)
            held_out = positions[:0]
            if choice.name == "held_out":
                held_out, positions = _split_off(positions, self.held_out_images, ctx.seed)
            counts, result, column = self._score_maps(
                ctx, (held_out, positions), score_one, choice, inputs, each
            )
            chosen = f", threshold {result['threshold']:.2f} ({choice.name})"
        else:
            raise UserError(
                f"expected crf/, masks/ or cams/ in {folder}, found none: run its stage"
            )
        score_files.check_scored(counts, f"the split {self.split}")
        each.write(source.ids, positions, column)
        result |= score_files.summary(counts.classes[column], names, protocol, counts.boundary)
        result |= {"images": len(positions), "protocol": protocol, "split": self.split}
        return result, chosen

    def _score_maps(
        self,
        ctx: Context,
        positions: tuple[np.ndarray, np.ndarray],
        score_one: ScoreOne,
        choice: _Choice,
        inputs: Mapping[str, Path],
        each: ImageScores,
    ) -> tuple[score_files.Counts, dict[str, Any], int]:
        """Returns counts at all thresholds, the metrics of maps, and the chosen position.

        The threshold is chosen on the first of `positions` if there are any, and the scores are
        those of the second.
        """
        grid = score_files.THRESHOLDS
        held_out, scored = positions
        best = None
        if len(held_out):
            sample = _score(ctx, held_out, score_one, grid)
            best = score_files.curve(sample.classes, grid, self.protocol)["best_threshold"]
        extra = () if choice.value is None else (choice.value,)
        others = {name: _fixed(setting, inputs) for name, setting in sorted(self.compare.items())}
        counts = _score(ctx, scored, score_one, (*grid, *extra, *others.values()), each)
        result = score_files.curve(counts.classes[: len(grid)], grid, self.protocol)
        if best is not None:
            result |= {"best_threshold": best, "held_out_images": len(held_out)}
        threshold = result["best_threshold"] if choice.value is None else choice.value
        result |= {"threshold": threshold, "threshold_choice": choice.name}
        for number, (name, value) in enumerate(others.items(), len(grid) + len(extra)):
            miou = float(class_scores(counts.classes[number], self.protocol)["miou"])
            result.setdefault("compared", {})[name] = {"threshold": value, "miou": miou}
        return counts, result, len(grid) if extra else grid.index(threshold)


def _score(
    ctx: Context,
    positions: Int[np.ndarray, " n"],
    score_one: ScoreOne,
    thresholds: Sequence[float],
    each: ImageScores | None = None,
) -> score_files.Counts:
    with ctx.progress(len(positions), ctx.stage) as progress:

        def done(counts: score_files.Counts) -> None:
            if each is not None:
                each.add(image_miou(counts.classes))
            progress.update()

        return score_files.score_images(
            map(int, positions), lambda position: score_one(position, thresholds), done
        )


def _mask_scorer(folder: Path, source: Source, lenient: bool) -> ScoreOne:
    masks, sure = folder / "masks", folder / CONFIDENCE_FOLDER
    check_files("mask (.png)", masks, source.ids, ".png")
    known = sure.is_dir()

    def score_one(position: int, thresholds: Sequence[float]) -> score_files.Counts:
        name = f"{source.ids[position]}.png"
        true, confidence = _truth(source, position), sure / name if known else None
        return score_files.score_mask(masks / name, true, len(source.classes), lenient, confidence)

    return score_one


def _crf_scorer(folder: Path, source: Source, alpha: float) -> ScoreOne:
    check_files("CRF result", folder, source.ids, ".npz")

    def score_one(position: int, thresholds: Sequence[float]) -> score_files.Counts:
        path, true = folder / f"{source.ids[position]}.npz", _truth(source, position)
        mask = read_crf_mask(path, alpha, len(source.classes))
        score_files.check_size(path, mask.shape, true)
        return score_files.mask_counts(mask, true, len(source.classes))

    return score_one


def _cam_scorer(folder: Path, source: Source) -> ScoreOne:
    cams = CamFolder(folder, source.ids)

    def score_one(position: int, thresholds: Sequence[float]) -> score_files.Counts:
        path, true = cams[source.ids[position]], _truth(source, position)
        return score_files.score_cams(path, true, len(source.classes), thresholds)

    return score_one


def _truth(source: Source, position: int) -> UInt8[np.ndarray, "h w"]:
    segmentation, name = source[position]["segmentation"], source.ids[position]
    if segmentation is None:
        raise UserError(
            f"expected a ground-truth mask of {name}, found none: score a split with masks"
        )
    return decode_mask(segmentation, f"ground truth of {name}", len(source.classes))


def _fixed(setting: float | str, inputs: Mapping[str, Path]) -> float:
    _refuse_choice(setting)
    value = _parse_choice(setting, inputs).value
    assert value is not None
    return value


def _refuse_choice(setting: float | str) -> None:
    """Refuses a threshold of `compare` that would be chosen on the scored images."""
    if setting in ("oracle", "held_out"):
        raise UserError(f"expected numbers or from:NEED in compare, found {setting!r}: change it")


def _parse_choice(setting: float | str, inputs: Mapping[str, Path]) -> _Choice:
    if setting in ("oracle", "held_out"):
        return _Choice(setting)
    need = _need_of(setting, inputs)
    value = best_threshold(inputs[need])[0] if need else fraction(setting, "threshold")
    return _Choice("fixed", value)


def _need_of(setting: float | str, needs: Collection[str]) -> str | None:
    """Returns the need that a threshold comes from, or None if it does not come from a stage."""
    need = named_need(setting, needs)
    try:
        if need is None and setting not in ("oracle", "held_out"):
            fraction(setting, "threshold")
    except ValueError as error:
        raise UserError(
            f"expected a number, oracle, held_out or from:NEED as threshold, found {setting!r}:"
            " change it"
        ) from error
    return need


def _check_held_out(count: int, images: int) -> None:
    if not 0 < count < images:
        raise UserError(
            f"expected held_out_images above 0 and below the {images} images of the split, found"
            f" {count}: change it"
        )


def _split_off(
    positions: Int[np.ndarray, " n"], count: int, seed: int
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Returns `count` positions drawn with `seed`, and the others, both in the given order."""
    total = len(positions)
    _check_held_out(count, total)
    drawn = np.zeros(total, bool)
    drawn[np.random.default_rng(seed).choice(total, count, replace=False)] = True
    return positions[drawn], positions[~drawn]
