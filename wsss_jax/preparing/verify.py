"""Looks at every file of a data set, and tells what is wrong with it or may be."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.images import decode_photograph
from wsss_jax.data.labels import (
    mask_label,
    match,
    names_an_image,
    read_annotations,
    read_label_file,
)
from wsss_jax.data.masks import IGNORE, decode_mask
from wsss_jax.data.threads import thread_pool
from wsss_jax.data.voc_folder import Listing, find_devkit, list_split
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.preparing.data_set import LIST_FOLDER
from wsss_jax.preparing.findings import findings as conclusions
from wsss_jax.preparing.verified import Finding, Image, Verified
from wsss_jax.progress import Progress

_STRANGE = 8  # values of a mask that are no class, from which its edges are blurred


def verify(root: Path, labels: str = "", masks: str = "", classes: str = "") -> Verified:
    """Looks at every photograph, mask and label that the lists of a folder name.

    Args:
      root: a prepared folder, or one laid out like PASCAL VOC.
      labels: as the setting ``data.labels``.
      masks: as the setting ``data.masks``.
      classes: as the setting ``data.classes``.

    Raises:
      UserError: there is no such folder, no list in it, or no list can be followed.
    """
    devkit, _ = find_devkit(str(root))
    names = sorted(path.stem for path in (devkit / LIST_FOLDER).glob("*.txt"))
    if not names:
        raise UserError(f"expected lists in {devkit / LIST_FOLDER}, found none: prepare the folder")
    findings: list[Finding] = []
    listings: dict[str, Listing] = {}
    for name in names:
        try:
            listings[name] = list_split(str(root), name, labels, masks or "optional", classes)
        except UserError as error:
            findings.append(Finding(f"{name}.txt cannot be followed", [], str(error), True))
    if not listings:
        raise UserError(findings[0].advice)
    listed = _listed(listings, findings)
    with Progress(len(listed), "checking images") as progress, thread_pool() as pool:
        count = len(next(iter(listings.values())).classes)
        images = []
        for one in pool.map(lambda image: _look_at(image, count), listed):
            images.append(one)
            progress.update()
    result = Verified(
        folder=devkit,
        classes=next(iter(listings.values())).classes,
        images=images,
        splits={name: len(listing.ids) for name, listing in listings.items()},
        findings=(),
    )
    findings += [one for one in conclusions(result) if one.names]
    order = sorted(findings, key=lambda one: not one.mend)
    return dataclasses.replace(result, findings=order)


def _listed(listings: Mapping[str, Listing], findings: list[Finding]) -> list[Image]:
    """Returns the images of all lists, each once, with their labels."""
    found: dict[str, Image] = {}
    labels: dict[Path, Mapping[str, Any]] = {}
    for name, listing in listings.items():
        source = listing.labels
        rows: Mapping[str, Any] = {}
        if source is not None:
            try:
                if source.is_dir():
                    rows = read_annotations(source, listing.ids, listing.classes)
                else:
                    if source not in labels:
                        is_image = names_an_image(listing.ids)
                        labels[source] = read_label_file(source, listing.classes, is_image)
                    rows = match(labels[source], listing.ids, source, listing.every)
            except UserError as error:
                findings.append(Finding(f"labels of {name}", [str(source)], str(error), True))
        for position, one in enumerate(listing.ids):
            if old := found.get(one):
                found[one] = old._replace(splits=(*old.splits, name))
                continue
            row = rows.get(one)
            found[one] = Image(
                id=one,
                splits=(name,),
                path=listing.images[position],
                mask=None if listing.masks is None else listing.masks[position],
                label=None if row is None else frozenset(np.flatnonzero(row).tolist()),
                label_is_mask=source is None,
            )
    return [found[name] for name in sorted(found)]


def _look_at(image: Image, num_classes: int) -> Image:
    try:
        data = read_bytes(image.path)
        photograph = decode_photograph(data, str(image.path))
    except UserError as error:
        return image._replace(error=str(error))
    size = photograph.pixels.shape[0], photograph.pixels.shape[1]
    image = image._replace(
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=fingerprint(photograph.pixels),
        size=size,
        orientation=photograph.orientation,
    )
    return image if image.mask is None else _look_at_mask(image, image.mask, num_classes)


def _look_at_mask(image: Image, path: Path, num_classes: int) -> Image:
    def wrong(state: str, error: str) -> Image:
        return image._replace(mask_state=state, mask_error=error)

    try:
        mask = decode_mask(read_bytes(path), str(path), None)
    except UserError as error:
        colors = "pixels" in str(error) or "16-bit" in str(error)
        kind = "masks with colors in place of indices" if colors else "masks that cannot be read"
        return wrong(kind, str(error))
    if mask.shape != image.size:
        return wrong(
            "masks of another size than their photographs",
            f"{image.id} ({mask.shape[1]} x {mask.shape[0]}, not"
            f" {image.size[1]} x {image.size[0]})",
        )
    values = np.unique(mask)
    strange = values[(values > num_classes) & (values != IGNORE)]
    if strange.size >= _STRANGE:
        return wrong("masks with blurred edges", f"{image.id} ({values.size} values)")
    if strange.size:
        shown = ", ".join(map(str, strange[:5]))
        return wrong("masks with values that are no class", f"{image.id} ({shown})")
    in_mask = frozenset(np.flatnonzero(mask_label(mask, num_classes)).tolist())
    return image._replace(
        in_mask=in_mask,
        only_ignored=not in_mask and IGNORE in values,
        label=in_mask if image.label_is_mask else image.label,
    )


def fingerprint(pixels: UInt8[np.ndarray, "h w 3"]) -> int:
    """Returns 64 bits that tell which of neighboring parts of a photograph are brighter.

    Sizes, compression and brightness hardly change them (a difference hash of 9 x 8 parts).
    """
    gray = cv2.resize(
        cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA
    )
    bits = (gray[:, 1:] > gray[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
