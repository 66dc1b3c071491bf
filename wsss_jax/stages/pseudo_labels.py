"""Turns class activation maps or CRF results into masks: ``masks/<id>.png``.

``confidence/<id>.png`` says how sure they are.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from wsss_jax.data.confidence import CONFIDENCE_FOLDER, confidence, write_confidence
from wsss_jax.data.formats.cam_files import all_cams, read_cams
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.images import decode_mask, encode_mask
from wsss_jax.data.source import Source
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, check_all_found
from wsss_jax.ops.background import power_background
from wsss_jax.scoring.confusion import IGNORE, strongest
from wsss_jax.stages.base import Context, Needs, expect, expect_alpha
from wsss_jax.stages.references import best_threshold, named_need

# Mask and confidence of the image with an id.
_Reader = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Background:
    """What a pixel's greatest score must exceed to be foreground; one of the three is set.

    `threshold`: a constant. `alpha`: (1 − score)^alpha, the background of PSA and SEAM before
    their CRF. `ignore_band` (low, high): up to low is background, above high foreground, 255
    (ignore) between.
    """

    threshold: float | None = None
    alpha: float | None = None
    ignore_band: tuple[float, float] | None = None


def label_map(
    keys: Int[np.ndarray, " k"], cam: Float[np.ndarray, "k h w"], background: Background
) -> UInt8[np.ndarray, "h w"]:
    """The class indices of score maps: 0 background, key + 1 foreground, 255 ignore.

    The strongest class wins where its score is *above* the background's (equal is background), as
    in `threshold_confusions`: the mask has the score that the threshold curve shows.
    """
    winner, score = strongest(cam, keys)
    if background.ignore_band is not None:
        low, high = map(np.float32, background.ignore_band)
        return np.where(score > high, winner, np.where(score > low, IGNORE, 0)).astype(np.uint8)
    return np.where(score > _level(score, background), winner, 0).astype(np.uint8)


def label_confidence(
    cam: Float[np.ndarray, "k h w"], background: Background
) -> UInt8[np.ndarray, "h w"]:
    """How sure the labels of `label_map` are; a band counts as the background in its middle."""
    score = np.asarray(cam, np.float32).max(0, initial=0)
    scores = np.concatenate([_level(score, background)[None], cam])
    return confidence(scores, scores.argmax(0))


def _level(score: Float[np.ndarray, "h w"], background: Background) -> Float[np.ndarray, "h w"]:
    """The background's score where the strongest class has `score`."""
    if background.alpha is not None:
        return power_background(score, background.alpha)
    band = background.ignore_band
    return np.full_like(score, sum(band) / 2 if band is not None else background.threshold)


MAKES = ("masks/", "confidence/")


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    settings: dict[str, Any] = config.to_dict()
    if "crf" in needs:
        expect(needs, "crf", "crf/")
        if settings.get("alpha"):
            expect_alpha(needs, "crf", settings["alpha"])
    else:
        expect(needs, "cams", "cams/")
        choice = _choice(settings, needs)
        if isinstance(choice, str):
            expect(needs, choice, "metrics.json")


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Reads ``cams/`` of the need ``cams``; a mask can only have classes its file has maps of, the
    image's label. Finished masks are kept. Processes share the images. With the need ``crf`` in
    place of ``cams``, masks are the most probable classes of its result for ``alpha``.

    Settings: ``split``, and one kind of background (see `Background`): ``ignore_band`` (two
    numbers) if given, else ``alpha`` if above 0, else ``threshold``: a number, or ``from:NEED``,
    the best threshold of that evaluation or threshold stage. Without ``threshold``, it comes from
    the one need besides ``cams``.

    Returns:
      ``images``, ``class_shares`` (class name → share of this process's pixels, with ``ignore``),
      and ``threshold`` with ``threshold_choice`` (``fixed``, ``contrast``, ``held_out``,
      ``oracle``), or ``alpha``, or ``ignore_band``.

    Raises:
      UserError: a CAM file is missing or damaged, or the settings make no sense.
    """
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    num_classes = len(source.classes)
    if "crf" in inputs:
        read, how = _crf_reader(inputs["crf"] / "crf", source, settings)
    else:
        background, how = _background(settings, inputs)
        read = _cam_reader(inputs["cams"] / "cams", source, background)

    def make(image_id: str) -> np.ndarray:
        target = ctx.stage_dir / "masks" / f"{image_id}.png"
        confident = ctx.stage_dir / CONFIDENCE_FOLDER / f"{image_id}.png"
        if target.is_file() and confident.is_file():  # written atomically, so they are whole
            mask = decode_mask(target.read_bytes(), str(target), num_classes)
        else:
            mask, sure = read(image_id)
            write_confidence(confident, sure)
            with atomic_write(target) as file:
                file.write(encode_mask(mask))
        return np.bincount(mask.ravel(), minlength=IGNORE + 1)

    ids = source.ids[ctx.process_index :: ctx.process_count]
    counts = np.zeros(IGNORE + 1, np.int64)
    with (
        ctx.progress(len(ids), ctx.stage) as progress,
        thread_pool() as pool,
    ):
        for one in pool.map(make, ids):
            counts += one
            progress.update()
    shares = counts / max(counts.sum(), 1)
    names = {index + 1: name for index, name in enumerate(source.classes)}
    names |= {0: "background", IGNORE: "ignore"}
    result = {
        "images": len(source.ids),
        "class_shares": {name: float(shares[index]) for index, name in names.items()},
        **how,
    }
    ctx.log(
        f"{len(source.ids)} masks, {_describe(how)}; pixels:"
        f" {100 * shares[0]:.1f} % background, {100 * shares[IGNORE]:.1f} % ignored"
    )
    return result


def _cam_reader(folder: Path, source: Source, background: Background) -> _Reader:
    """Makes the mask of an image's maps; all files are looked for first."""
    found = all_cams(folder, source.ids)

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        keys, cam = read_cams(found[image_id], len(source.classes))
        return label_map(keys, cam, background), label_confidence(cam, background)

    return read


def _crf_reader(
    folder: Path, source: Source, settings: Mapping[str, Any]
) -> tuple[_Reader, dict[str, Any]]:
    """As `_cam_reader` for CRF results, with what is to be said of them in the metrics."""
    alpha = settings.get("alpha")
    if not alpha:
        raise UserError(
            f"{folder} has a result for each alpha: set alpha to one of the crf stage's"
        )
    missing = [name for name in source.ids if not (folder / f"{name}.npz").is_file()]
    check_all_found("CRF result", missing, len(source.ids), folder)

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        keys, q = read_crf(folder / f"{image_id}.npz", alpha, len(source.classes))
        q = q.astype(np.float32)  # comparing float16 is ten times slower
        chosen = q.argmax(0)
        classes = np.concatenate([[0], keys + 1]).astype(np.uint8)
        return classes[chosen], confidence(q, chosen)

    return read, {"alpha": float(alpha), "crf": True}


def _background(
    settings: Mapping[str, Any], inputs: dict[str, Path]
) -> tuple[Background, dict[str, Any]]:
    """The background and how it came about, for the metrics."""
    choice = _choice(settings, inputs)
    if isinstance(choice, str):
        threshold, how = best_threshold(inputs[choice])
        return Background(threshold=threshold), {"threshold": threshold, "threshold_choice": how}
    found = {name: v for name, v in dataclasses.asdict(choice).items() if v is not None}
    return choice, found | ({"threshold_choice": "fixed"} if "threshold" in found else {})


def _choice(settings: Mapping[str, Any], needs: Collection[str]) -> Background | str:
    """The background of the settings, or the need whose best threshold it is.

    Raises:
      UserError: the settings make no sense.
    """
    band, alpha = tuple(settings.get("ignore_band", ())), settings.get("alpha", 0)
    if band:
        if len(band) != 2 or not 0 <= band[0] <= band[1]:
            raise UserError(f"expected ignore_band (low, high) with 0 ≤ low ≤ high, found {band}")
        return Background(ignore_band=(float(band[0]), float(band[1])))
    if alpha:
        if not isinstance(alpha, int | float) or alpha < 0:
            raise UserError(f"expected an alpha above 0 (or 0 for none), found {alpha!r}")
        return Background(alpha=float(alpha))
    others = [need for need in needs if need != "cams"]
    setting = settings.get("threshold", f"from:{others[0]}" if len(others) == 1 else None)
    need = named_need(setting, needs)
    if need is not None:
        return need
    try:
        return Background(threshold=float(setting))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"expected a number or from:NEED as threshold, found {setting!r}"
        ) from error


def _describe(how: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in how.items())
