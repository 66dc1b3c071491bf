"""Segments photographs with the network that a run has trained."""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from wsss_jax import console
from wsss_jax.data.formats.coco_polygons import Region, regions, write_polygons
from wsss_jax.data.images import decode_image
from wsss_jax.data.known_classes import multi_hot
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.photographs import Photographs, open_photographs
from wsss_jax.data.plain_folder import PREDICTED
from wsss_jax.errors import UserError, first
from wsss_jax.files import atomic_write, remove_unfinished, with_tuples, write_json
from wsss_jax.pipeline.finished_run import Trained
from wsss_jax.progress import Progress
from wsss_jax.records import read_record
from wsss_jax.settings import to_config
from wsss_jax.stages.per_image import ImageWork, run_on_images
from wsss_jax.stages.predict import Predict
from wsss_jax.viz.labeled import labeled_mask
from wsss_jax.weights import checkpoint

RECORD = PREDICTED[0]
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
    not_of_masks = {Predict.key, "needs", "split", *Predict.no_effect}
    settings = to_config(network.settings).to_dict()
    made_with = {
        "network": checkpoint.digest(network.checkpoint / "weights.npz")[:16],
        "settings": {k: v for k, v in settings.items() if k not in not_of_masks},
        "classes": ("background", *network.classes),
    }
    if labels:
        made_with["settings"]["labels"] = tuple(sorted(labels))
    files = take_up(out, made_with, source)
    run_all(source, out, network.settings.work(source, network.checkpoint, scores), "masks")
    run_all(source, out, _overlays(source, out), "overlays")
    if scores:
        write_scores(files, out)
    if polygons is not None:
        _write_polygons(files, network.classes, out, polygons)
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
        console.note(
            f"{len(large)} photographs have more than {most / 1e6:g} megapixels"
            f" ({first(large, 3)}): the network sees smaller copies of them, which bounds the"
            " memory; their masks have full size"
        )


def take_up(out: Path, made_with: dict[str, Any], source: Photographs) -> dict[str, str]:
    """Records in `out` what its masks are made with, and removes results of changed images.

    Returns:
      The file of each image that has results in `out`, or will have, by name; "" if an earlier
      version has not recorded it.

    Raises:
      UserError: the masks in `out` were made with something else, have no record, or are those of
        another photograph of the same name.
    """
    record = made_with | {
        "images": dict(zip(source.ids, source.digests, strict=True)),
        "files": dict(zip(source.ids, map(str, source.paths), strict=True)),
    }
    before: dict[str, Any] = {}
    if (out / RECORD).exists():
        remedy = "choose another --out, or delete it"
        found = read_record(out / RECORD, _FIELDS, remedy, {"files": dict})
        before = with_tuples(found)
    if not before and any((out / "masks").rglob("*.png")):
        raise UserError(
            f"expected an empty folder or results of this program in {out}, found masks of"
            " unknown origin: choose another --out"
        )
    for name in ("network", "classes", "settings"):
        if before and before[name] != record[name]:
            raise UserError(
                f"{out} contains masks that were made with other {name}"
                f"{_difference(before[name], record[name])}: choose another --out, such as"
                f" {_new_folder(out)}, or delete it"
            )
    old, files = before.get("images", {}), before.get("files", {})
    changed = [n for n, digest in old.items() if record["images"].get(n, digest) != digest]
    others = [name for name in changed if files.get(name) != record["files"][name]]
    if others:
        name = others[0]
        raise UserError(
            f"expected photographs of other names than those of earlier ones in {out}, found"
            f" {record['files'][name]}, and {name} is the name of"
            f" {files.get(name, 'another one')}: choose another --out, such as"
            f" {_new_folder(out)}, or name all photographs in one command"
        )
    for name in changed:
        for folder, suffix in _RESULTS:
            (out / folder / f"{name}{suffix}").unlink(missing_ok=True)
    record["images"] = old | record["images"]
    record["files"] = dict.fromkeys(old, "") | files | record["files"]
    write_json(out / RECORD, record)
    return record["files"]


def _new_folder(out: Path) -> Path:
    """Returns the name of a folder beside `out` that does not exist."""
    names = (out.with_name(f"{out.resolve().name}_{number}") for number in itertools.count(2))
    return next(path for path in names if not path.exists())


def write_scores(files: Mapping[str, str], out: Path) -> None:
    """Joins the files ``scores/<id>.json`` to ``scores.json``, which names every photograph.

    Args:
      files: the photographs by name; those without a file of scores are left out.
      out: the folder of the results.
    """
    found = {
        name: {"file": file, **json.loads(path.read_text())}
        for name, file in files.items()
        if (path := out / "scores" / f"{name}.json").exists()
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


def _write_polygons(
    files: Mapping[str, str], classes: Sequence[str], out: Path, tolerance: float
) -> None:
    def image(name: str) -> tuple[str, tuple[int, int], list[Region]]:
        path = out / "masks" / f"{name}.png"
        mask = decode_mask(path.read_bytes(), str(path), len(classes))
        size = mask.shape[0], mask.shape[1]
        return name + Path(files[name]).suffix, size, [*regions(mask, tolerance)]

    about = {"description": "masks made by wsss_jax.predict", "tolerance": tolerance}
    names = [name for name in files if (out / "masks" / f"{name}.png").exists()]
    with Progress(len(names), "polygons") as progress:

        def images() -> Any:
            for name in names:
                yield image(name)
                progress.update()

        write_polygons(out / "polygons.json", images(), classes, about)


def _difference(old: Any, new: Any) -> str:
    """Returns what differs, in brackets, or an empty string if that says nothing."""
    if isinstance(old, tuple):
        there, here = (
            first([one.partition(",")[0] for one in names if one != "background"], 3) or "the best"
            for names in (old, new)
        )
        return f" ({there}, now {here})"
    if not isinstance(old, dict):
        return ""
    key = next(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    return f" ({key} was {old.get(key)}, is now {new.get(key)})"
