"""Gathers what the explorer of a page shows: images with maps, masks, truth, and their counts.

Pixels of an image are one text of base64, the concatenation of the photograph (WebP), the ground
truth and the planes of every layer (see `wsss_jax.report.planes`); the data give their lengths.
"""

import base64
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from wsss_jax.data.formats.cam_files import find_cams, read_cams
from wsss_jax.data.formats.crf_files import read_crf_mask
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.source import Record, Source
from wsss_jax.data.threads import ahead, thread_count, thread_pool
from wsss_jax.files import read_bytes
from wsss_jax.report import wording
from wsss_jax.report.collect import Evaluation, Run, StageResult
from wsss_jax.report.planes import map_pairs, mask_pairs, pack, ranks, threshold_levels
from wsss_jax.scoring.confusion import strongest
from wsss_jax.viz.colors import class_colors
from wsss_jax.viz.overlay import HEAT_COLORS

_LONG_SIDE, _QUALITY = 640, 72  # of photographs
_MOST_KEYS = 255  # maps of one image whose classes fit into 8 bits
_DEFAULT_THRESHOLD = 0.2


@dataclasses.dataclass(frozen=True)
class Layer:
    """Maps or masks that a stage left; `alpha` chooses one of a CRF's results."""

    kind: Literal["maps", "mask"]
    title: str
    stage: StageResult
    alpha: float | None = None

    def file(self, name: str) -> Path | None:
        """Returns the file of an image, if it exists."""
        if self.kind == "maps":
            return find_cams(self.stage.folder / "cams", name)
        masks = self.stage.folder / "masks" / f"{name}.png"
        path = masks if self.alpha is None else self.stage.folder / "crf" / f"{name}.npz"
        return path if path.is_file() else None

    def scores(self, run: Run, split: str) -> Evaluation | None:
        """Returns the evaluation of the layer on a split, the last one if there are several."""
        found = [
            e
            for e in run.evaluations
            if e.scored.name == self.stage.name
            and e.split == split
            and self.alpha in (None, e.find("alpha"))
        ]
        return found[-1] if found else None


@dataclasses.dataclass(frozen=True)
class Explorer:
    """The data of the explorer, as JSON values, and the pixels of each image."""

    data: dict[str, Any]
    pixels: tuple[str, ...]

    @property
    def json(self) -> str:
        """The data as text that can stand in a script element."""
        text = json.dumps(self.data, separators=(",", ":"), ensure_ascii=False)
        return text.replace("<", "\\u003c")  # no name can end the element

    @property
    def bytes(self) -> int:
        """The number of bytes that it adds to the page."""
        return len(self.json.encode()) + sum(map(len, self.pixels))

    @property
    def remark(self) -> str:
        """A sentence about the images that are not there, or nothing."""
        parts = [
            f"{split['shown']:,} of {wording.count(split['total'], 'image')} of split"
            f" {split['name']}"
            for split in self.data["splits"]
            if split["shown"] < split["total"]
        ]
        if not parts:
            return ""
        return (
            f"This page holds {' and '.join(parts)}, drawn at random. explorer_images and"
            " explorer_megabytes of the report's section set how many."
        )


def find_layers(run: Run) -> list[Layer]:
    """Returns the layers of all stages that have some, in the order in which they were made."""
    found: list[Layer] = []
    for stage in run.stages:
        kind = wording.kind(Evaluation(stage, (stage,)))
        if (stage.folder / "cams").is_dir():
            found.append(Layer("maps", "Maps" if stage.type == "infer_cam" else kind, stage))
        elif (stage.folder / "masks").is_dir():
            found.append(Layer("mask", kind, stage))
        elif (stage.folder / "crf").is_dir():
            alphas = stage.metrics.get("alphas") or stage.section.get("alphas") or ()
            found += [Layer("mask", f"CRF, α = {alpha:g}", stage, alpha) for alpha in alphas]
    return found


def make_explorer(
    run: Run,
    shown: Evaluation,
    source_of: Callable[[str], Source],
    images: int,
    megabytes: float,
    seed: int,
) -> Explorer | None:
    """Returns the explorer of a run, or None if there is nothing to show.

    Args:
      run: the results of the stages.
      shown: the evaluation of the page's pictures, whose split comes first.
      source_of: opens the records of a split.
      images: the most images of each split.
      megabytes: the most megabytes of the data and pixels, shared by the splits.
      seed: draws the images where not all fit.

    Raises:
      UserError: an image, a map or a mask is broken.
    """
    layers = find_layers(run)
    names = dict.fromkeys([shown.split, *(e.split for e in run.evaluations)])
    sources = {name: source_of(name) for name in names if name}
    # Masks of an image may have been made for a larger split that contains it.
    sources = {
        name: source
        for name, source in sources.items()
        if len(source) and any(layer.file(source.ids[0]) for layer in layers)
    }
    if not sources or images < 1 or megabytes <= 0:
        return None
    levels = threshold_levels(filter(None, (_used(run, layer) for layer in layers)))
    splits, entries, pixels = [], [], []
    for number, (name, source) in enumerate(sources.items()):
        share = 1 / (len(sources) - number)  # what the splits before have left is shared, too
        spent = sum(map(len, pixels)) + sum(len(json.dumps(entry)) for entry in entries)
        most_bytes = share * (1e6 * megabytes - spent)
        made = _encode_split(source, layers, levels, images, most_bytes, seed)
        splits.append({"name": name, "total": len(source), "shown": len(made)})
        entries += [entry | {"split": number} for entry, _ in made]
        pixels += [text for _, text in made]
    kept = [n for n in range(len(layers)) if any(entry["layers"][n] for entry in entries)]
    for entry in entries:
        entry["layers"] = [entry["layers"][n] for n in kept]
    classes = next(iter(sources.values())).classes
    data = {
        "classes": ["background", *classes],
        "colors": class_colors(len(classes)).tolist(),
        "heat": HEAT_COLORS[::5].tolist(),
        "levels": levels,
        "protocol": "present" if "present" in wording.protocols(run.evaluations) else "strict",
        "splits": splits,
        "layers": [
            _layer_data(run, layer, splits, layers) for layer in map(layers.__getitem__, kept)
        ],
        "images": entries,
    }
    return Explorer(data, tuple(pixels))


def _used(run: Run, layer: Layer) -> float | None:
    """Returns the threshold that was used for the maps of a layer, if there is one."""
    if layer.kind != "maps":
        return None
    scored = [e.stage for e in run.evaluations if e.scored.name == layer.stage.name]
    made = [s for s in run.stages if layer.stage.name in s.upstream]
    for stage in (*scored, *made):
        for key in ("threshold", "best_threshold"):
            value = stage.metrics.get(key)
            if isinstance(value, int | float):
                return float(value)
    return _DEFAULT_THRESHOLD


def _layer_data(
    run: Run, layer: Layer, splits: Sequence[dict[str, Any]], layers: Sequence[Layer]
) -> dict[str, Any]:
    scores = []
    for split in splits:
        found = layer.scores(run, split["name"])
        metrics = {} if found is None else found.stage.metrics
        scores.append(
            {
                "stage": found.stage.name,
                "miou": metrics["miou"],
                "images": metrics.get("images"),
                "threshold": metrics.get("threshold"),
                "curve": metrics.get("miou_curve"),
                "thresholds": metrics.get("thresholds"),
            }
            if found is not None
            else None
        )
    return {
        "kind": layer.kind,
        "title": _title(layer, layers),
        "stage": layer.stage.name,
        "threshold": _used(run, layer),
        "scores": scores,
    }


def _title(layer: Layer, layers: Sequence[Layer]) -> str:
    """Returns the title, with the stage where another layer of the same split has the same one."""
    split = layer.stage.section.get("split")
    same = [o for o in layers if o.title == layer.title and o.stage.section.get("split") == split]
    return f"{layer.title} ({layer.stage.name})" if len(same) > 1 else layer.title


def _encode_split(
    source: Source,
    layers: Sequence[Layer],
    levels: Sequence[float],
    images: int,
    most_bytes: float,
    seed: int,
) -> list[tuple[dict[str, Any], str]]:
    """Returns data and pixels of as many images as may be, in the order of the split."""
    drawn = np.random.default_rng(seed).permutation(len(source))[:images]
    here = [n for n, layer in enumerate(layers) if layer.file(source.ids[0])]

    compared = np.asarray(levels, np.float32)

    def encode(position: int) -> tuple[int, dict[str, Any], str]:
        return position, *_encode(source[position], layers, here, len(source.classes), compared)

    made, spent = [], 0.0
    with thread_pool() as pool:
        # The images are those of the draw up to the first that does not fit any more.
        for (one,) in ahead(pool, encode, ([int(p)] for p in drawn), thread_count()):
            spent += len(one[2]) + len(json.dumps(one[1]))
            if spent > most_bytes:
                break
            made.append(one)
    return [(entry, text) for _, entry, text in sorted(made, key=lambda one: one[0])]


def _encode(
    record: Record,
    layers: Sequence[Layer],
    here: Sequence[int],
    num_classes: int,
    levels: Float32[np.ndarray, " l"],
) -> tuple[dict[str, Any], str]:
    """Returns the data and the pixels of an image; a layer without its file is None."""
    name = record["id"]
    image = decode_image(record["image"], name)
    size = image.shape[:2]
    encoded = record["segmentation"]
    truth = None if encoded is None else decode_mask(encoded, name, num_classes)
    parts = [_webp(image), b"" if truth is None else pack(truth)]
    entries: list[dict[str, Any] | None] = [None] * len(layers)
    for number in here:
        path = layers[number].file(name)
        if path is None:
            continue
        if layers[number].kind == "maps":
            keys, cam = read_cams(path, num_classes)
            if len(keys) == 0:
                cam = np.zeros((0, *size), np.float32)
            if cam.shape[1:] != size or len(keys) > _MOST_KEYS:
                continue
            winner, best = strongest(cam, keys)
            rank = ranks(best, levels)
            entries[number] = {
                "keys": (keys + 1).tolist() or [0],
                "pairs": map_pairs(truth, winner, rank, len(levels) + 1),
                "parts": [len(parts), len(parts) + 1],
            }
            place = np.searchsorted(keys + 1, winner).astype(np.uint8)
            parts += [pack(place), pack(rank)]
        else:
            alpha = layers[number].alpha
            mask = (
                decode_mask(read_bytes(path), str(path), num_classes)
                if alpha is None
                else read_crf_mask(path, alpha, num_classes)
            )
            if mask.shape == size:
                entries[number] = {"pairs": mask_pairs(truth, mask), "parts": [len(parts)]}
                parts.append(pack(mask))
    entry = {
        "id": name,
        "size": [int(side) for side in size],
        "label": (np.flatnonzero(np.asarray(record["label"]) > 0) + 1).tolist(),
        "truth": truth is not None,
        "lengths": [len(part) for part in parts],
        "layers": entries,
    }
    return entry, base64.b64encode(b"".join(parts)).decode()


def _webp(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    factor = min(1.0, _LONG_SIDE / max(image.shape[:2]))
    if factor < 1.0:
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=_QUALITY, method=4)
    return file.getvalue()
