"""Makes a data set of PASCAL VOC 2007 or 2012 and the masks of SBD, from archives or folders.

With the masks of the Semantic Boundaries Dataset (SBD, Hariharan et al. 2011), the list
``train_aug`` has VOC's train and all images of SBD that are not in VOC's val. They come from SBD's
own ``.mat`` files or from a folder ``SegmentationClassAug``. VOC's own masks stay as they are.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.labels import read_label_file, select
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.preparing.archives import Entry, find_entries
from wsss_jax.preparing.data_set import (
    begin,
    digest_of,
    finish,
    run_all,
    write_labels,
    write_lists,
    write_mask,
)
from wsss_jax.preparing.mat_files import read_field
from wsss_jax.preparing.problems import Problems

USUAL = {
    "2012": {"train": 1464, "val": 1449, "trainval": 2913, "test": 1456, "train_aug": 10582},
    "2007": {"train": 209, "val": 213, "trainval": 422, "test": 210},
}
"""The numbers of ids in the lists of each year."""

_AUGMENTED = "SegmentationClassAug"
_VOC = re.compile(
    r"(?:.*/)?VOC(?P<year>2007|2012)/(?P<folder>JPEGImages|SegmentationClass|Annotations|"
    r"ImageSets/Segmentation)/(?P<name>[^/]+)\.(?P<suffix>jpg|png|xml|txt)"
)
_SBD = re.compile(rf"(?:.*/)?(?:cls/(?P<mat>[^/]+)\.mat|{_AUGMENTED}/(?P<png>[^/]+)\.png)")


@dataclasses.dataclass(frozen=True)
class Voc:
    """A year of VOC that is ready to be written.

    Attributes:
      year: ``2007`` or ``2012``.
      files: the files by their paths in the year's folder.
      lists: the ids of each list.
      augmented: SBD's masks by id, of images without a mask of VOC.
      labels: a label file, or None for VOC's annotations.
      source: what it is made of.
    """

    year: str
    files: Mapping[str, Entry]
    lists: Mapping[str, Sequence[str]]
    augmented: Mapping[str, Entry]
    labels: Path | None
    source: Path


def read_voc(
    source: Path, sbd: Path | None, year: str | None, labels: Path | None, partial: bool
) -> tuple[Voc, Problems]:
    """Finds the files of a year of VOC and checks that they are complete.

    Args:
      source: the folder of VOC2012 or of VOC2007, VOCdevkit, one with official archives, or one
        archive.
      sbd: SBD's folder ``dataset``, its parent, or a folder ``SegmentationClassAug``; None takes
        what is in `source`.
      year: ``2007``, ``2012``, or None for the only year that is there.
      labels: a label file, or None.
      partial: accept lists of other lengths than usual.

    Raises:
      UserError: there is nothing of VOC, there are several years, or a file cannot be read.
    """
    problems = Problems()
    places = _places(source)
    years: dict[str, dict[str, Entry]] = {}
    for match, entry in find_entries(places, _VOC):
        path = f"{match['folder']}/{match['name']}.{match['suffix']}"
        years.setdefault(match["year"], {})[path] = entry
    chosen = year or "".join(years) * (len(years) == 1)
    if chosen not in years:
        found = " and ".join(f"VOC{one}" for one in sorted(years)) or "nothing of it"
        advice = "say which with --year" if len(years) > 1 else "check the path"
        raise UserError(
            f"expected VOC{year or '2012 or VOC2007'} in {source}, found {found}: {advice}"
        )
    files = years[chosen]
    lists = {
        path.rpartition("/")[2].removesuffix(".txt"): _ids(entry, path)
        for path, entry in files.items()
        if path.startswith("ImageSets/")
    }
    if "train" not in lists:
        raise UserError(
            f"expected ImageSets/Segmentation/train.txt of VOC{chosen} in {source}, found"
            f" {', '.join(sorted(lists)) or 'no list'}: add the archive of trainval"
        )
    masks = {path for path in files if path.startswith("SegmentationClass/")}
    augmented: dict[str, Entry] = {}
    if chosen == "2012":
        where = places if sbd is None else [sbd]
        if sbd is not None and not sbd.is_dir():
            raise UserError(
                f"expected a folder of SBD at {sbd}, found none: unpack its archive and give the"
                " folder with cls, or SegmentationClassAug"
            )
        everything = {
            match["mat"] or match["png"]: entry for match, entry in find_entries(where, _SBD)
        }
        if sbd is not None and not everything:
            raise UserError(
                f"expected cls/ID.mat or {_AUGMENTED}/ID.png in {sbd}, found none: check the path"
            )
        augmented = {
            n: e for n, e in everything.items() if f"SegmentationClass/{n}.png" not in masks
        }
        if everything:
            held_out = set(lists.get("val", ()))
            lists["train_aug"] = sorted({*lists["train"], *everything} - held_out)
    _check(chosen, files, lists, partial, problems)
    return Voc(chosen, files, lists, augmented, labels, source), problems


def _places(source: Path) -> list[Path]:
    if not source.exists():
        raise UserError(f"expected VOC at {source}, found nothing: check the path")
    return [source, *sorted(source.rglob("*.tar"))] if source.is_dir() else [source]


def _ids(entry: Entry, path: str) -> list[str]:
    ids = entry.read().decode("utf-8", "replace").split()
    if any(not re.fullmatch(r"[\w-]+", name) for name in ids):
        raise UserError(f"expected an id per line in {path}, found something else: get it again")
    return ids


def _check(
    year: str,
    files: Mapping[str, Entry],
    lists: Mapping[str, Sequence[str]],
    partial: bool,
    problems: Problems,
) -> None:
    for name, ids in lists.items():
        usual = USUAL[year].get(name)
        if usual is not None and len(ids) != usual and not partial:
            problems.add(
                "lists of unusual lengths",
                f"{name} {len(ids):,}, not {usual:,}",
                "get the official files, or say --partial",
            )
        for one in ids:
            if f"JPEGImages/{one}.jpg" not in files:
                problems.add("ids without an image", one, "add the archive that has them")
            if name in ("train", "val", "trainval") and f"SegmentationClass/{one}.png" not in files:
                problems.add("ids without a mask", one, "add the archive that has them")


def write_voc(voc: Voc, out: Path, copy: bool, options: Mapping[str, object]) -> bool:
    """Writes a year of VOC, or what is still missing of it.

    Returns:
      False if everything was there already.

    Raises:
      UserError: a file cannot be read or written, or `out` has something else.
    """
    rows = None
    ids = list(dict.fromkeys(n for k, v in voc.lists.items() if k != "test" for n in v))
    if voc.labels is not None:
        labels = read_label_file(voc.labels, VOC_CLASSES)
        rows = select(labels, ids, voc.labels).astype(np.uint8)
    told = {
        "command": "voc",
        "year": voc.year,
        "source": str(voc.source),
        "options": dict(options),
        "splits": {name: len(found) for name, found in voc.lists.items()},
        "masks_of_sbd": len(voc.augmented),
    }
    plan = digest_of({**told, "lists": {k: list(v) for k, v in voc.lists.items()}})
    if not begin(out, plan):
        return False
    tasks: list[Callable[[], None]] = []
    for name in dict.fromkeys(one for found in voc.lists.values() for one in found):
        for path in (
            f"JPEGImages/{name}.jpg",
            f"SegmentationClass/{name}.png",
            f"Annotations/{name}.xml",
        ):
            if entry := voc.files.get(path):
                tasks.append(lambda e=entry, t=out / path: e.put(t, copy))
        if entry := voc.augmented.get(name):
            target = out / _AUGMENTED / f"{name}.png"
            tasks.append(lambda e=entry, t=target: write_mask(t, lambda: augmented_mask(e)))
    run_all(tasks, "writing")
    write_lists(out, voc.lists)
    if rows is not None:
        write_labels(out, ids, VOC_CLASSES, rows)
    finish(out, plan, told)
    return True


def augmented_mask(entry: Entry) -> UInt8[np.ndarray, "h w"]:
    """Reads a mask of SBD: the structure ``GTcls`` of a ``.mat`` file, or a PNG of indices.

    Raises:
      UserError: the file has neither.
    """
    data = entry.read()
    if data.startswith(b"\x89PNG"):
        return decode_mask(data, str(entry.path), len(VOC_CLASSES))
    try:
        mask = read_field(data, "GTcls", "Segmentation")
        if mask.size == 0 or mask.max() > len(VOC_CLASSES):
            raise ValueError(f"an array of shape {mask.shape} with {mask.max(initial=0)}")
    except ValueError as error:
        raise UserError(
            f"expected GTcls.Segmentation of SBD in {entry.path}, found something else ({error}):"
            " get the file again"
        ) from error
    return mask
