"""Segments photographs with the network that a run has trained."""

import functools
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from wsss_jax.data.formats.coco_polygons import Region, regions, write_polygons
from wsss_jax.data.images import decode_image, decode_mask
from wsss_jax.data.known_classes import multi_hot
from wsss_jax.data.photographs import Photographs, open_photographs
from wsss_jax.errors import UserError, first
from wsss_jax.files import atomic_write, remove_unfinished, with_tuples, write_json
from wsss_jax.pipeline.finished_run import Trained
from wsss_jax.progress import Progress
from wsss_jax.records import read_record
from wsss_jax.settings import to_config
from wsss_jax.stages.per_image import ImageWork, run_on_images
from wsss_jax.stages.predict import Predict
from wsss_jax.viz.labeled import labeled_mask

RECORD = "predict.json"
_FIELDS = {"network": str, "settings": dict, "classes": list[str], "images": dict}
_RESULTS = (("masks", ".png"), ("overlays", ".jpg"), ("maps", ".jpg"), ("scores", ".json"))
_OVERLAY_PIXELS = 12_000_000
"""The most pixels of an overlay; those of larger photographs are smaller copies."""


def segment(
    network: Trained[Predict],
    images: Path | Sequence[Path],
    out: Path,
    labels: Sequence[str] = (),
    scores: bool = False,
    polygons: float | None = None,
) -> tuple[int, list[str]]:
    """Makes masks and overlays of images, and of the images of folders and below.

    Args:
      network: the network.
      images: images and folders.
      out: where the results go.
      labels: the names of the only classes that masks may show; none allows all.
      scores: whether to write ``scores.json`` as well.
      polygons: whether to write ``polygons.json`` as well, and how far these may be from the masks,
        in pixels; None writes none.

    Returns:
      The number of images that have masks, and messages about the images that were left out.

    Raises:
      UserError: there are no images, a label is unknown, or `out` contains masks of another network
        or other settings.
    """
    given = [images] if isinstance(images, Path) else images
    if {out.resolve(), (out / "masks").resolve()} & {path.resolve() for path in given}:
        raise UserError(
            "expected --out to be another folder than that of the photographs, found the same:"
            " change one of them"
        )
    if (out / "masks").is_dir():
        remove_unfinished(out)
    label = multi_hot(labels, network.classes, "correct --labels") if labels else None
    source, damaged = open_photographs(images, network.classes, out, label)
    tell_of_large(source, network.settings.max_pixels)
    weights = (network.checkpoint / "weights.npz").read_bytes()
    not_of_masks = {Predict.key, "needs", "split", *Predict.no_effect}
    settings = to_config(network.settings).to_dict()
    made_with = {
        "network": hashlib.sha256(weights).hexdigest()[:16],
        "settings": {k: v for k, v in settings.items() if k not in not_of_masks},
        "classes": ("background", *network.classes),
    }
    if labels:
        made_with["settings"]["labels"] = tuple(sorted(labels))
    take_up(out, made_with, source)
    run_all(source, out, network.settings.work(source, network.checkpoint, scores), "masks")
    run_all(source, out, _overlays(source, out), "overlays")
    if scores:
        write_scores(source, out)
    if polygons is not None:
        _write_polygons(source, out, polygons)
    return len(source), [str(error) for error in damaged]


def run_all(source: Photographs, out: Path, work: ImageWork[Any], label: str) -> None:
    """Does `work` on all photographs with a progress bar."""
    progress = functools.partial(Progress, label=label)
    run_on_images(source.ids, out, range(len(source)), work, progress)


def tell_of_large(source: Photographs, most: int) -> None:
    """Prints a note about photographs that networks see at a smaller size, of `most` pixels."""
    large = [
        name
        for name, (height, width) in zip(source.ids, source.sizes, strict=True)
        if height * width > most
    ]
    if large:
        print(
            f"note: {len(large)} photographs have more than {most / 1e6:g} megapixels"
            f" ({first(large, 3)}): the network sees smaller copies of them, which bounds the"
            " memory; their masks have full size",
            file=sys.stderr,
        )


def take_up(out: Path, made_with: dict[str, Any], source: Photographs) -> None:
    """Records in `out` what its masks are made with, and removes results of changed images.

    Raises:
      UserError: the masks in `out` were made with something else, or have no record.
    """
    record = made_with | {"images": dict(zip(source.ids, source.digests, strict=True))}
    before: dict[str, Any] = {}
    if (out / RECORD).exists():
        remedy = "choose another --out, or delete it"
        before = with_tuples(read_record(out / RECORD, _FIELDS, remedy))
    if not before and any((out / "masks").rglob("*.png")):
        raise UserError(
            f"expected an empty folder or results of this program in {out}, found masks of"
            " unknown origin: choose another --out"
        )
    for name in ("network", "classes", "settings"):
        if before and before[name] != record[name]:
            raise UserError(
                f"{out} contains masks that were made with other {name}"
                f"{_difference(before[name], record[name])}: choose another --out, or delete it"
            )
    old = before.get("images", {})
    for name, digest in old.items():
        if record["images"].get(name, digest) != digest:
            for folder, suffix in _RESULTS:
                (out / folder / f"{name}{suffix}").unlink(missing_ok=True)
    write_json(out / RECORD, record | {"images": old | record["images"]})


def write_scores(source: Photographs, out: Path) -> None:
    """Joins the files ``scores/<id>.json`` to ``scores.json``, which names every photograph."""
    found = {
        name: {"file": str(path), **json.loads((out / "scores" / f"{name}.json").read_text())}
        for name, path in zip(source.ids, source.paths, strict=True)
    }
    with atomic_write(out / "scores.json") as file:
        file.write(json.dumps(found, indent=1, ensure_ascii=False).encode())


def _overlays(source: Photographs, out: Path) -> ImageWork[None]:
    return ImageWork(
        files=("overlays/{id}.jpg",),
        prepare=functools.partial(_overlay, source, out),
        finish=_write_overlay,
    )


def _overlay(source: Photographs, out: Path, position: int) -> Image.Image:
    name = source.ids[position]
    image = decode_image(source[position]["image"], name)
    mask = _mask(source, out, position)
    scale = (_OVERLAY_PIXELS / mask.size) ** 0.5
    if scale < 1:
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    return Image.fromarray(labeled_mask(image, mask, source.classes))


def _mask(source: Photographs, out: Path, position: int) -> Any:
    path = out / "masks" / f"{source.ids[position]}.png"
    return decode_mask(path.read_bytes(), str(path), len(source.classes))


def _write_overlay(picture: Image.Image, paths: tuple[Path, ...]) -> None:
    with atomic_write(paths[0]) as file:
        picture.save(file, "JPEG", quality=90, subsampling=0)


def _write_polygons(source: Photographs, out: Path, tolerance: float) -> None:
    def image(position: int) -> tuple[str, tuple[int, int], list[Region]]:
        path, size = source.paths[position], source.sizes[position]
        name = source.ids[position] + path.suffix
        return name, size, [*regions(_mask(source, out, position), tolerance)]

    about = {"description": "masks made by wsss_jax.predict", "tolerance": tolerance}
    with Progress(len(source), "polygons") as progress:

        def images() -> Any:
            for position in range(len(source)):
                yield image(position)
                progress.update()

        write_polygons(out / "polygons.json", images(), source.classes, about)


def _difference(old: Any, new: Any) -> str:
    """Returns the first setting that differs, in brackets, or an empty string for other values."""
    if not isinstance(old, dict):
        return ""
    key = next(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    return f" ({key} was {old.get(key)}, is now {new.get(key)})"
