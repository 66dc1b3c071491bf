"""Finds the photographs of a source, and looks at each of them."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss_jax.data.formats.id_lists import image_id
from wsss_jax.data.images import CONVERT, SUFFIXES, UNREAD, decode_photograph, open_image, strips
from wsss_jax.data.plain_folder import told_results, walk
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError, first
from wsss_jax.files import read_bytes
from wsss_jax.preparing.problems import Problems
from wsss_jax.progress import Progress

UNTURNED = "stored without their EXIF orientation, which their masks ignore"
"""The change of photographs whose masks belong to the pixels as they are stored."""

_KEPT = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n", ".png"))
# An id with a folder on both sides of a blank would read like an image and its mask in a list.
_LIKE_A_PAIR = re.compile(r"\S*/\S+\s+\S*/\S+")


class Photograph(NamedTuple):
    """A photograph of the source.

    Attributes:
      id: the path below the source without suffix, where lists can hold it.
      path: the file.
      sha256: the digest of the file.
      size: height and width as shown.
      suffix: ``.jpg`` or ``.png`` if the file is used as it is.
      change: what is done to a file that is not used as it is, such as ``turned by EXIF``.
      transparent: whether some of its pixels are transparent.
    """

    id: str
    path: Path
    sha256: str
    size: tuple[int, int]
    suffix: str
    change: str
    transparent: bool


def find_photographs(
    source: Path, leave_out: Sequence[Path], problems: Problems
) -> dict[str, Path]:
    """Finds the photographs in a folder and below, in any case of suffix.

    Files in formats that are not read are among them, unless a photograph has the same name.

    Args:
      source: the folder.
      leave_out: folders that are not searched.
      problems: gets names that occur twice, and remarks on what is not used.

    Returns:
      The files, sorted, by their paths below the source.

    Raises:
      UserError: there is no such folder, or no photograph in it.
    """
    if not source.is_dir():
        found = "a file" if source.exists() else "no such folder"
        raise UserError(f"expected a folder of photographs at {source}, found {found}")
    paths: dict[str, Path] = {}
    by_stem: dict[str, str] = {}
    results: list[Path] = []
    for path in walk(source, leave_out, results):
        below, suffix = path.relative_to(source).as_posix(), path.suffix.lower()
        if suffix in SUFFIXES:
            other = by_stem.setdefault(below.removesuffix(path.suffix), below)
            if other != below:
                problems.add(
                    "photographs that differ only in their suffix",
                    f"{other} and {path.name}",
                    "rename one of them, or give a folder of masks with --masks",
                )
                continue
        if suffix in (*SUFFIXES, *UNREAD):
            paths[below] = path
    if told := told_results(results, source):
        problems.remarks.append(told)
    beside = [
        below
        for below, path in paths.items()
        if path.suffix.lower() in UNREAD and below.removesuffix(path.suffix) in by_stem
    ]
    if beside:
        paths = {below: path for below, path in paths.items() if below not in beside}
        problems.remarks.append(
            f"files beside photographs of the same name are not used: {len(beside):,}"
            f" ({first(beside)})"
        )
    if not paths:
        raise UserError(
            f"expected photographs ({', '.join(SUFFIXES)}) in {source} or below, found none"
        )
    return paths


def safe_ids(below: Iterable[str]) -> dict[str, str]:
    """Returns an id for each path below the source.

    It is the path without suffix. Only what a line of a list could not hold is replaced by ``_``:
    line breaks, blanks at the ends, blanks between two folders, and a second suffix.
    """
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for path in below:
        name = path[: path.rindex(".")] if "." in path.rpartition("/")[2] else path
        name = "/".join(_safe_part(part) for part in name.split("/"))
        if _LIKE_A_PAIR.fullmatch(name):
            name = re.sub(r"\s", "_", name)
        stem, number = name, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        ids[path] = name
    return ids


def _safe_part(part: str) -> str:
    part = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\\]", "_", part)
    part = re.sub(r"^\s|\s$", "_", part)
    if part == "JPEGImages" or part.strip(".") == "":
        return part + "_"
    while image_id(part) != part:  # a second suffix, such as a.jpg of a.jpg.png
        stem, _, suffix = part.rpartition(".")
        part = f"{stem}_{suffix}"
    return part


def look_at(
    paths: Mapping[str, Path], skip_damaged: bool, problems: Problems
) -> dict[str, Photograph]:
    """Decodes every photograph.

    Args:
      paths: the files by their paths below the source.
      skip_damaged: leave out files that cannot be read, or in formats that are not read, with a
        remark.
      problems: gets these files.

    Returns:
      The readable photographs by their paths below the source.
    """
    ids = safe_ids(paths)
    found: dict[str, Photograph] = {}
    kinds = {
        False: ("photographs that cannot be read", "replace them"),
        True: ("files in formats that are not read", CONVERT),
    }
    damaged: dict[str, list[str]] = {}
    with Progress(len(paths), "reading photographs") as progress, thread_pool() as pool:
        for below, one in zip(paths, pool.map(_look_at, ids.values(), paths.values()), strict=True):
            if isinstance(one, Photograph):
                found[below] = one
            else:
                kind, advice = kinds[paths[below].suffix.lower() in UNREAD]
                damaged.setdefault(kind, []).append(below)
                if not skip_damaged:
                    problems.add(kind, below, f"{advice}, or leave them out with --skip_damaged")
            progress.update()
    if skip_damaged:
        if not found:
            raise UserError(
                f"expected photographs that can be read, found none among {len(paths)}: replace"
                " them, or save them as JPEG or PNG"
            )
        problems.remarks += [
            f"{kind} are left out: {len(names):,} ({first(names)})"
            for kind, names in damaged.items()
        ]
    return found


def _look_at(name: str, path: Path) -> Photograph | UserError:
    try:
        if path.suffix.lower() in UNREAD:
            raise UserError(f"expected a photograph, found {path}: {CONVERT}")
        data = read_bytes(path)
        pixels, orientation, bits = decode_photograph(data, str(path))
    except UserError as error:
        return error
    size = (pixels.shape[0], pixels.shape[1])
    del pixels  # before the image is decoded again
    suffix = next((suffix for start, suffix in _KEPT if data.startswith(start)), "")
    change = ""
    if orientation > 1:
        change = "turned as their EXIF orientation says"
    elif not suffix:
        change = "re-encoded from other formats"
    elif bits > 8:
        change = "reduced to 8 bits"
    return Photograph(
        id=name,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        size=size,
        suffix="" if change else suffix,
        change=change,
        transparent=suffix != ".jpg" and _is_transparent(data),
    )


def _is_transparent(data: bytes) -> bool:
    image = open_image(data, "")
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    alphas = (strip.convert("RGBA").getchannel("A") for _, strip in strips(image))
    return any(alpha.getextrema() != (255, 255) for alpha in alphas)
