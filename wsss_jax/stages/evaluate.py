"""Scores masks, CRF results or class activation maps against the ground truth of a split."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

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
from wsss_jax.stages.base import Context, Needs, expect, expect_alpha
from wsss_jax.stages.references import best_threshold, named_need

ScoreOne = Callable[[str, Sequence[float]], score_files.Counts]


@dataclasses.dataclass(frozen=True)
class _Choice:
    """How the threshold is chosen: `value` where it is fixed beforehand."""

    name: str
    value: float | None = None


MAKES = ("metrics.json",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    settings: dict[str, Any] = config.to_dict()
    expect(needs, "pred", "masks/", "crf/", "cams/")
    _protocol(settings)
    made = needs["pred"].makes or ()
    if "crf/" in made:
        if not settings.get("alpha"):
            raise UserError(
                f"{needs['pred'].stage} has a result for each alpha: set alpha to one of them"
            )
        expect_alpha(needs, "pred", settings["alpha"])
    if "cams/" in made:
        for setting in (settings.get("threshold", "oracle"), *dict(_compared(settings)).values()):
            _need_of(setting, needs)


def _protocol(settings: Mapping[str, Any]) -> Protocol:
    protocol = settings.get("protocol", "strict")
    if protocol not in ("strict", "present"):
        raise UserError(
            f"expected protocol strict or present, found {protocol!r}: set --config.protocol"
        )
    return protocol


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Reads ``masks/`` of the need ``pred``, or else its ``crf/`` (the most probable classes), or
    else its ``cams/``, and scores every image of ``split``. Writes ``per_image.json`` (id → mIoU
    over the image's own classes). The first process does the scoring, the others return at once:
    it is bound by reading files.

    Settings: ``split``; ``protocol`` (``strict``, ``present``; see `confusion_scores`);
    ``ignore_as_background`` (masks: a predicted 255 counts as background; refused otherwise);
    ``alpha`` (CRF results: which of them). For maps ``threshold``:

    - a number: fixed beforehand;
    - ``oracle`` (default): the best on the scored images;
    - ``held_out``: the best on ``held_out_images`` (100) images drawn with the config's seed; the
      scores are those of the remaining images;
    - ``from:NEED``: the best of another evaluation, say of train for scoring val, or that of a
      threshold stage.

    ``compare`` (name → number or ``from:NEED``) scores further thresholds beside it.

    Returns:
      The scores as fractions (`scoring.summary`; masks get boundary IoUs too), ``images``,
      ``protocol``, ``split``; for masks with confidences ``by_confidence``, see
      `scoring.by_confidence`; for maps also ``threshold`` with ``threshold_choice``,
      ``compared``, the curves over `scoring.THRESHOLDS` on the scored images, and
      ``best_threshold``: the best on the held-out sample if there is one, otherwise on the
      scored images.

    Raises:
      UserError: a prediction or ground truth is missing, damaged or of another size.
    """
    if ctx.process_index != 0:
        return {}
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    protocol = _protocol(settings)
    names = ("background", *source.classes)
    folder = inputs["pred"]
    result: dict[str, Any]
    if (folder / "masks").is_dir():
        score_one = _mask_scorer(folder, source, settings)
        scored = _score(ctx, source.ids, score_one, ())
        result, column = {}, 0
        if len(scored.confusion) > 1:
            result["by_confidence"] = score_files.by_confidence(scored.confusion, protocol)
    elif (folder / "crf").is_dir():
        scored = _score(ctx, source.ids, _crf_scorer(folder / "crf", source, settings), ())
        result, column = {"alpha": float(settings["alpha"])}, 0
    elif (folder / "cams").is_dir():
        choice = _parse_choice(settings.get("threshold", "oracle"), inputs)
        score_one = _cam_scorer(folder / "cams", source)
        scored, result, column = _score_maps(
            ctx, settings, source, score_one, choice, inputs, protocol
        )
    else:
        raise UserError(f"expected crf/, masks/ or cams/ in {folder}, found none; run its stage")

    confusion = scored.confusion[column]
    result |= score_files.summary(confusion, names, protocol, scored.boundary)
    result |= {"images": len(scored.image_miou), "protocol": protocol, "split": settings["split"]}
    per_image = {name: float(miou[column]) for name, miou in scored.image_miou.items()}
    write_json(ctx.stage_dir / "per_image.json", per_image)
    chosen = (
        f", threshold {result['threshold']:.2f} ({choice.name})" if "threshold" in result else ""
    )
    compared: Any = result.get("compared", {})
    for name, other in compared.items():
        chosen += f"; at {other['threshold']:.2f} ({name}) mIoU {100 * other['miou']:.2f}"
    ctx.log(
        f"{result['split']}: {result['images']} images, {protocol}{chosen}\n{class_table(result)}"
    )
    if "by_confidence" in result:
        ctx.log("the surer pixels alone\n" + confidence_table(result["by_confidence"]))
    return result


def _score_maps(
    ctx: Context,
    settings: Mapping[str, Any],
    source: Source,
    score_one: ScoreOne,
    choice: _Choice,
    inputs: dict[str, Path],
    protocol: score_files.Protocol,
) -> tuple[score_files.Scored, dict[str, Any], int]:
    """The scores at all thresholds, the metrics of maps alone, the chosen threshold's position."""
    grid = score_files.THRESHOLDS
    ids = source.ids
    best = None
    if choice.name == "held_out":
        seed: Any = ctx.config.seed
        held_out, ids = _split_off(ids, settings.get("held_out_images", 100), seed)
        sample = _score(ctx, held_out, score_one, grid)
        best = score_files.curve(sample.confusion, grid, protocol)["best_threshold"]
    extra = () if choice.value is None else (choice.value,)
    others = {name: _fixed(setting, inputs) for name, setting in _compared(settings)}
    scored = _score(ctx, ids, score_one, (*grid, *extra, *others.values()))
    result = score_files.curve(scored.confusion[: len(grid)], grid, protocol)
    if best is not None:
        result |= {"best_threshold": best, "held_out_images": len(source.ids) - len(ids)}
    threshold = result["best_threshold"] if choice.value is None else choice.value
    result |= {"threshold": threshold, "threshold_choice": choice.name}
    for number, (name, value) in enumerate(others.items(), len(grid) + len(extra)):
        miou = float(confusion_scores(scored.confusion[number], protocol)["miou"])
        result.setdefault("compared", {})[name] = {"threshold": value, "miou": miou}
    return scored, result, len(grid) if extra else grid.index(threshold)


def _score(
    ctx: Context, ids: Sequence[str], score_one: ScoreOne, thresholds: Sequence[float]
) -> score_files.Scored:
    with ctx.progress(len(ids), ctx.stage) as progress:
        return score_files.score_images(
            ids, lambda image_id: score_one(image_id, thresholds), progress.update
        )


def _mask_scorer(folder: Path, source: Source, settings: Mapping[str, Any]) -> ScoreOne:
    masks, sure = folder / "masks", folder / CONFIDENCE_FOLDER
    missing = [name for name in source.ids if not (masks / f"{name}.png").is_file()]
    check_all_found("mask (.png)", missing, len(source.ids), masks)
    truth = _truth_reader(source)
    lenient = bool(settings.get("ignore_as_background", False))
    known = sure.is_dir()

    def score_one(image_id: str, thresholds: Sequence[float]) -> score_files.Counts:
        name = f"{image_id}.png"
        true, confidence = truth(image_id), sure / name if known else None
        return score_files.score_mask(masks / name, true, len(source.classes), lenient, confidence)

    return score_one


def _crf_scorer(folder: Path, source: Source, settings: Mapping[str, Any]) -> ScoreOne:
    alpha = settings.get("alpha")
    if not alpha:
        raise UserError(
            f"{folder} has a result for each alpha: set alpha to one of the crf stage's"
        )
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
                f"expected a ground-truth mask of {image_id}, found none; score a split with masks"
            )
        return decode_mask(segmentation, f"ground truth of {image_id}", len(source.classes))

    return read


def _compared(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    compare = settings.get("compare") or {}
    if not isinstance(compare, dict):
        raise UserError(f"expected compare to give names to thresholds, found {compare!r}")
    return sorted(compare.items())


def _fixed(setting: Any, inputs: dict[str, Path]) -> float:
    value = _parse_choice(setting, inputs).value
    if value is None:
        raise UserError(f"expected numbers or from:NEED in compare, found {setting!r}")
    return value


def _parse_choice(setting: Any, inputs: dict[str, Path]) -> _Choice:
    if setting in ("oracle", "held_out"):
        return _Choice(setting)
    need = _need_of(setting, inputs)
    value = best_threshold(inputs[need])[0] if need else float(setting)
    return _Choice("fixed", value)


def _need_of(setting: Any, needs: Collection[str]) -> str | None:
    """The need that a threshold comes from; None where it is a number or a way to choose one."""
    need = named_need(setting, needs)
    try:
        if need is None and setting not in ("oracle", "held_out"):
            float(setting)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"expected a number, oracle, held_out or from:NEED as threshold, found {setting!r}"
        ) from error
    return need


def _split_off(ids: Sequence[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """`count` ids drawn with `seed`, and the others, both in the given order."""
    if not 0 < count < len(ids):
        raise UserError(
            f"expected held_out_images from 1 to {len(ids) - 1} of {len(ids)}, found {count}"
        )
    drawn = set(np.random.default_rng(seed).choice(len(ids), count, replace=False).tolist())
    held_out = [name for index, name in enumerate(ids) if index in drawn]
    return held_out, [name for index, name in enumerate(ids) if index not in drawn]
