"""Segments a folder of photographs with the network that a run has trained."""

import functools
import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from wsss_jax.data.images import decode_image, decode_mask
from wsss_jax.data.photographs import Photographs, open_photographs
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, remove_unfinished, with_tuples, write_json
from wsss_jax.pipeline.finished_run import Trained
from wsss_jax.progress import Progress
from wsss_jax.records import read_record
from wsss_jax.settings import to_config
from wsss_jax.stages.per_image import ImageWork, run_on_images
from wsss_jax.stages.predict import Predict
from wsss_jax.viz.labeled import labeled_mask

RECORD = "segment.json"

_FIELDS = {"network": str, "settings": dict, "classes": list[str], "images": dict}


def segment(network: Trained[Predict], images: Path, out: Path) -> tuple[int, list[str]]:
    """Makes masks and overlays of a single image, or of the images of a folder and below.

    Returns:
      The number of images that have masks, and messages about the images that were left out.

    Raises:
      UserError: there are no images, or `out` contains masks of another network or other settings.
    """
    if images.resolve() in (out.resolve(), (out / "masks").resolve()):
        raise UserError(
            "expected --out to be another folder than --images, found the same: change one of them"
        )
    if (out / "masks").is_dir():
        remove_unfinished(out)
    source, damaged = open_photographs(images, network.classes, leave_out=out)
    _take_up(out, network, source)
    masks = network.settings.work(source, network.checkpoint)
    overlays = ImageWork(
        files=("overlays/{id}.jpg",),
        prepare=functools.partial(_overlay, source, out),
        finish=_write_overlay,
    )
    for work, label in ((masks, "masks"), (overlays, "overlays")):
        progress = functools.partial(Progress, label=label)
        run_on_images(source.ids, out, range(len(source)), work, progress)
    return len(source), [str(error) for error in damaged]


def _overlay(source: Photographs, out: Path, position: int) -> Image.Image:
    name = source.ids[position]
    image = decode_image(source[position]["image"], name)
    path = out / "masks" / f"{name}.png"
    mask = decode_mask(path.read_bytes(), str(path), len(source.classes))
    return Image.fromarray(labeled_mask(image, mask, source.classes))


def _write_overlay(picture: Image.Image, paths: tuple[Path, ...]) -> None:
    with atomic_write(paths[0]) as file:
        picture.save(file, "JPEG", quality=90, subsampling=0)


def _take_up(out: Path, network: Trained[Predict], source: Photographs) -> None:
    """Records in `out` what its masks are made with, and removes masks of changed images.

    Raises:
      UserError: the masks in `out` were made with something else, or have no record.
    """
    weights = (network.checkpoint / "weights.npz").read_bytes()
    not_of_masks = {Predict.key, "needs", "split", *Predict.no_effect}
    settings = to_config(network.settings).to_dict()
    record = {
        "network": hashlib.sha256(weights).hexdigest()[:16],
        "settings": {k: v for k, v in settings.items() if k not in not_of_masks},
        "classes": ("background", *network.classes),
        "images": dict(zip(source.ids, source.digests, strict=True)),
    }
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
            for path in (out / "masks" / f"{name}.png", out / "overlays" / f"{name}.jpg"):
                path.unlink(missing_ok=True)
    write_json(out / RECORD, record | {"images": old | record["images"]})


def _difference(old: Any, new: Any) -> str:
    """Returns the first setting that differs, in brackets, or an empty string for other values."""
    if not isinstance(old, dict):
        return ""
    key = next(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    return f" ({key} was {old.get(key)}, is now {new.get(key)})"
