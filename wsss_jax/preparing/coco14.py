"""Makes the data set that weakly supervised methods call COCO-14 of MS COCO's files of 2014.

Images without an annotation are left out, which leaves 82,081 of 82,783 for train and 40,137 of
40,504 for val. Classes are numbered in the order of COCO's ids. Masks are made as by the converter
that programs of the field point to (coco2voc): smaller objects cover larger ones, and crowds count
as their class. Nothing is ignored unless that is wanted for crowds.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.images import how_decoded, image_size
from wsss_jax.data.masks import IGNORE
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.preparing.data_set import DataSet
from wsss_jax.preparing.photographs import UNTURNED, Photograph
from wsss_jax.preparing.problems import Problems
from wsss_jax.preparing.run_length import decode_segmentation
from wsss_jax.progress import Progress

USABLE = {"train": 82081, "val": 40137}
"""The numbers of images with an annotation in the official files."""

CLASSES = 80
_HEADER = 1 << 18  # bytes in which the size of a JPEG is found


@dataclasses.dataclass(frozen=True)
class _Annotated:
    """An image with its annotations, the smallest first."""

    id: str
    path: Path
    size: tuple[int, int]
    annotations: Sequence[Mapping[str, Any]]


def read_coco14(source: Path, crowds: str, partial: bool) -> tuple[DataSet, Problems]:
    """Reads the annotations of COCO 2014.

    Args:
      source: the folder with ``train2014``, ``val2014`` and ``annotations``.
      crowds: ``class``, or ``ignore`` to give the value 255 to pixels of crowds.
      partial: accept other numbers of images and classes than those of the official files.

    Returns:
      The data set, and everything that is wrong with the source.

    Raises:
      UserError: a file is missing or is not what it should be.
    """
    problems = Problems()
    images: list[_Annotated] = []
    splits: dict[str, list[int]] = {}
    categories: dict[int, str] = {}
    digests: dict[str, str] = {}
    for split in USABLE:
        path = _find(source, f"instances_{split}2014.json", ("", "annotations"))
        data = read_bytes(path, 1 << 32)
        digests[str(path)] = hashlib.sha256(data).hexdigest()
        found = list(_annotated(source, split, path, data, categories))
        if not partial and len(found) != USABLE[split]:
            problems.add(
                "lists of images with annotations in other numbers than usual",
                f"{split}: {len(found):,}, not {USABLE[split]:,}",
                "get the official files, or say --partial",
            )
        splits[split] = list(range(len(images), len(images) + len(found)))
        images += found
    if not partial and len(categories) != CLASSES:
        problems.add(
            "files with another number of classes than 80",
            f"{len(categories)} classes",
            "get the official files, or say --partial",
        )
    index = {category: number for number, category in enumerate(sorted(categories), 1)}
    labels = np.zeros((len(images), len(index)), np.uint8)
    for row, image in zip(labels, images, strict=True):
        row[[index[one["category_id"]] - 1 for one in image.annotations]] = 1
    _check_segmentations(images, problems)
    data_set = DataSet(
        photographs=_photographs(images, problems),
        classes=tuple(categories[category] for category in sorted(categories)),
        labels=labels,
        splits=splits,
        masks={
            row: functools.partial(_mask, image, index, crowds) for row, image in enumerate(images)
        },
        how={
            "command": "coco14",
            "source": str(source),
            "options": {"crowds": crowds, "partial": partial},
            "label_files": digests,
        },
        remarks=problems.remarks,
    )
    return data_set, problems


def _find(source: Path, name: str, folders: Sequence[str]) -> Path:
    for folder in folders:
        if (source / folder / name).exists():
            return source / folder / name
    places = " or ".join(str(source / folder / name) for folder in folders)
    raise UserError(f"expected {places}, found nothing: unpack COCO's files of 2014 there")


def _annotated(
    source: Path, split: str, path: Path, data: bytes, categories: dict[int, str]
) -> Iterator[_Annotated]:
    try:
        content = json.loads(data)
        by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            by_image[one["image_id"]].append(one)
        categories |= {one["id"]: str(one["name"]) for one in content["categories"]}
        if strange := [one for one in categories if type(one) is not int]:
            raise ValueError(f"the category {strange[0]!r}")
        if strange := [
            one for one in content["annotations"] if one["category_id"] not in categories
        ]:
            raise ValueError(f"an object of the category {strange[0]['category_id']!r}")
        folder = _find(source, f"{split}2014", ("", "images"))
        for image in sorted(content["images"], key=lambda one: one["file_name"]):
            name = str(image["file_name"])
            if not re.fullmatch(r"[\w-]+\.jpg", name):
                raise ValueError(f"the file name {name!r}")
            if own := by_image.get(image["id"]):
                yield _Annotated(
                    id=name.removesuffix(".jpg"),
                    path=folder / name,
                    size=(int(image["height"]), int(image["width"])),
                    annotations=sorted(own, key=lambda one: one["area"]),
                )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"expected COCO's annotations of objects in {path}, found something else"
            f" ({type(error).__name__}: {error}): get the file again"
        ) from error


def _photographs(images: Sequence[_Annotated], problems: Problems) -> list[Photograph]:
    """Looks at the beginning of each file; decoding all would take an hour."""
    photographs: list[Photograph] = []
    with Progress(len(images), "looking at images") as progress, thread_pool() as pool:
        for photograph, wrong in pool.map(_look_at, images):
            if wrong:
                problems.add("images that are missing or of another size", wrong, "get them again")
            photographs.append(photograph)
            progress.update()
    return photographs


def _look_at(image: _Annotated) -> tuple[Photograph, str]:
    """Returns a photograph, and what is wrong with its file or ""."""
    turned, wrong = False, ""
    try:
        with image.path.open("rb") as file:
            data = file.read(_HEADER)
        height, width = image_size(data, image.path.name)
        # Masks belong to the pixels as they are stored.
        turned = how_decoded(data).startswith("orientation")
        if image.size != (height, width) and not (turned and image.size == (width, height)):
            expected = f"{image.size[1]} x {image.size[0]}"
            wrong = f"{image.path.name} ({width} x {height}, not {expected})"
    except OSError:
        wrong = f"{image.path.name} (missing)"
    except UserError:
        wrong = f"{image.path.name} (damaged)"
    photograph = Photograph(
        id=image.id,
        path=image.path,
        sha256="",
        size=image.size,
        suffix="" if turned else ".jpg",
        change=UNTURNED if turned else "",
        transparent=False,
    )
    return photograph, wrong


def _check_segmentations(images: Sequence[_Annotated], problems: Problems) -> None:
    for image in images:
        for one in image.annotations:
            if not isinstance(one.get("segmentation"), list | dict):
                problems.add(
                    "annotations without polygons or runs",
                    f"{one.get('id')} of {image.id}",
                    "use the files of instances, not of captions or keypoints",
                )


def _mask(image: _Annotated, index: Mapping[int, int], crowds: str) -> UInt8[np.ndarray, "h w"]:
    """Paints the objects of an image, the largest first."""
    mask = np.zeros(image.size, np.uint8)
    for one in reversed(image.annotations):
        try:
            inside = decode_segmentation(one["segmentation"], *image.size)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(
                f"expected polygons or runs in annotation {one.get('id')} of {image.id}, found"
                f" something else ({error}): get the annotations again"
            ) from error
        ignored = crowds == "ignore" and one.get("iscrowd")
        mask[inside] = IGNORE if ignored else index[one["category_id"]]
    return mask
