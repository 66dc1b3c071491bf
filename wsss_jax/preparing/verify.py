"""Looks at every file of a data set, and tells what is wrong with it or may be."""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Int64, UInt8

from wsss_jax.data.images import IGNORE, decode_mask, decode_photograph
from wsss_jax.data.labels import mask_label, read_annotations, read_label_file
from wsss_jax.data.threads import thread_pool
from wsss_jax.data.voc_folder import Listing, find_devkit, list_split
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.preparing.data_set import LIST_FOLDER
from wsss_jax.progress import Progress

_FEW = 10  # images of a class
_NEAR = 3  # bits of 64 in which the fingerprints of near duplicates differ
_FLAT = 8  # bits that a fingerprint needs; those of plain areas have fewer
_SMALL = 32  # pixels
_STRANGE = 8  # values of a mask that are no class, from which its edges are blurred


class Finding(NamedTuple):
    """Something that was found.

    Attributes:
      title: what it is, such as ``photographs that cannot be read``.
      names: the ids, classes or files.
      advice: what it means or what to do.
      mend: whether a training would be refused or misled.
    """

    title: str
    names: Sequence[str]
    advice: str
    mend: bool


class Image(NamedTuple):
    """What was found in the files of an id.

    Attributes:
      id: the id.
      splits: the lists that name it.
      path: the photograph.
      mask: its mask, or None.
      label: the positions of its classes, or None if it has no label.
      label_is_mask: whether its label is what its mask has.
      sha256: the digest of the photograph.
      fingerprint: 64 bits that similar photographs share.
      size: height and width as shown; zeros if it cannot be read.
      orientation: its EXIF orientation.
      error: why the photograph cannot be read, or "".
      mask_state: what is wrong with the mask, or "".
      mask_error: the file and its values.
      in_mask: the positions of the classes in the mask.
      only_ignored: whether the mask has nothing but 0 and 255, and some 255.
    """

    id: str
    splits: tuple[str, ...]
    path: Path
    mask: Path | None
    label: frozenset[int] | None
    label_is_mask: bool = False
    sha256: str = ""
    fingerprint: int = 0
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    error: str = ""
    mask_state: str = ""
    mask_error: str = ""
    in_mask: frozenset[int] = frozenset()
    only_ignored: bool = False


@dataclasses.dataclass(frozen=True)
class Verified:
    """A data set and what was found in it.

    Attributes:
      folder: its folder.
      classes: the names of its C foreground classes.
      images: its images, sorted by id.
      splits: the number of images of each list.
      findings: what was found, the worst first.
    """

    folder: Path
    classes: tuple[str, ...]
    images: Sequence[Image]
    splits: Mapping[str, int]
    findings: Sequence[Finding]

    def counts(self, split: str) -> Int64[np.ndarray, " c"]:
        """Returns how many images of a split have each class."""
        counts = np.zeros(len(self.classes), np.int64)
        for image in self.images:
            if split in image.splits and image.label:
                counts[list(image.label)] += 1
        return counts

    def together(self) -> Int64[np.ndarray, "c c"]:
        """Returns how many images have both of two classes; the diagonal has those of one."""
        rows = np.zeros((len(self.images), len(self.classes)), np.int64)
        for row, image in zip(rows, self.images, strict=True):
            row[list(image.label or ())] = 1
        return rows.T @ rows


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
    findings += [one for one in _findings(result) if one.names]
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
                        labels[source] = read_label_file(source, listing.classes)
                    rows = labels[source]
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


def near_duplicates(fingerprints: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields the positions of pairs whose fingerprints differ in at most three bits.

    Two such fingerprints agree in one of four quarters, so only these are compared.
    """
    seen: set[tuple[int, int]] = set()
    for shift in (0, 16, 32, 48):
        groups: dict[int, list[int]] = defaultdict(list)
        for position, value in enumerate(fingerprints):
            if _FLAT <= value.bit_count() <= 64 - _FLAT:
                groups[(value >> shift) & 0xFFFF].append(position)
        for group in groups.values():
            values = np.array([fingerprints[p] for p in group], np.uint64)
            for number, one in enumerate(group[:-1]):
                bits = np.bitwise_count(values[number + 1 :] ^ values[number])
                for other in np.flatnonzero(bits <= _NEAR):
                    pair = (one, group[number + 1 + int(other)])
                    if pair not in seen:
                        seen.add(pair)
                        yield pair


def _findings(data: Verified) -> Iterator[Finding]:
    broken = [image for image in data.images if image.error]
    yield Finding(
        "photographs that cannot be read",
        [image.id for image in broken],
        "replace them or leave them out; the first: " + (broken[0].error if broken else ""),
        True,
    )
    yield Finding(
        "images without a label",
        [image.id for image in data.images if image.label is None and "test" not in image.splits],
        "complete the labels, or take the images off the lists",
        True,
    )
    yield from _mask_findings(data)
    yield from _class_findings(data)
    yield from _duplicates(data)
    readable = [image for image in data.images if not image.error]
    yield Finding(
        "photographs with an EXIF orientation",
        [image.id for image in readable if image.orientation > 1],
        "they are turned as viewers turn them, but other programs may not do so",
        False,
    )
    yield Finding(
        f"photographs below {_SMALL} pixels",
        [image.id for image in readable if min(image.size) < _SMALL],
        "there is little to see in them",
        False,
    )


def _mask_findings(data: Verified) -> Iterator[Finding]:
    advice = {
        "masks with colors in place of indices": "give each color the index of its class",
        "masks with blurred edges": (
            "they were resized with interpolation or saved as JPEG; make them again without,"
            " because the values between two classes mean other classes"
        ),
        "masks with values that are no class": "check the order of the classes",
        "masks of another size than their photographs": "make them for these photographs",
    }
    by_state: dict[str, list[Image]] = defaultdict(list)
    for image in data.images:
        if image.mask_state:
            by_state[image.mask_state].append(image)
    for state, images in by_state.items():
        named = [one.mask_error if one.mask_error.startswith(one.id) else one.id for one in images]
        yield Finding(state, named, advice.get(state, "replace them"), True)
    masked = [one for one in data.images if one.mask and not one.mask_state and not one.error]
    expected = any(one.label or one.only_ignored for one in masked)
    if expected and not any(one.in_mask for one in masked):
        yield Finding(
            "masks, and none of them has a class",
            [one.id for one in masked],
            "255 means ignored; if it marks the object, prepare the data with --foreground 255",
            True,
        )
    else:
        yield Finding(
            "masks of 0 and 255 alone",
            [one.id for one in masked if one.only_ignored and one.label],
            "255 means ignored, but their labels have classes",
            True,
        )
    labeled = [one for one in masked if one.label is not None]
    yield Finding(
        "masks with a class that the label lacks",
        [_with_names(one, data, one.in_mask - (one.label or frozenset())) for one in labeled
         if one.in_mask - (one.label or frozenset())],
        "correct the label or the mask",
        True,
    )  # fmt: skip
    yield Finding(
        "labels with a class that the mask lacks",
        [_with_names(one, data, (one.label or frozenset()) - one.in_mask) for one in labeled
         if not one.only_ignored and (one.label or frozenset()) - one.in_mask],
        "usual for objects that are hidden or too small to be drawn",
        False,
    )  # fmt: skip


def _with_names(image: Image, data: Verified, indices: frozenset[int]) -> str:
    return f"{image.id} ({', '.join(data.classes[index] for index in sorted(indices))})"


def _class_findings(data: Verified) -> Iterator[Finding]:
    split = next((name for name in ("train_aug", "train") if name in data.splits), "")
    if not split:
        return
    images = [one for one in data.images if split in one.splits and one.label is not None]
    counts = data.counts(split)
    if images and not counts.any():
        yield Finding(
            f"images of {split}, and none of them has a class",
            [one.id for one in images],
            "check the labels and the names of the classes",
            True,
        )
        return
    named = list(zip(data.classes, counts.tolist(), strict=True))
    yield Finding(
        f"classes without an image in {split}",
        [name for name, count in named if not count],
        "add images, or remove the class",
        True,
    )
    yield Finding(
        f"classes with fewer than {_FEW} images in {split}",
        [f"{name} ({count})" for name, count in named if 0 < count < _FEW],
        "expect little of them",
        False,
    )
    same = len({one.label for one in images}) == 1
    yield Finding(
        f"classes of every image in {split}",
        [name for name, count in named if count == len(images)],
        "a classifier learns a class from images without it as well; add some",
        same,
    )


def _duplicates(data: Verified) -> Iterator[Finding]:
    readable = [image for image in data.images if not image.error]
    same: dict[str, list[Image]] = defaultdict(list)
    for image in readable:
        same[image.sha256].append(image)
    groups = [group for group in same.values() if len(group) > 1]
    yield Finding(
        "equal photographs with different labels",
        [_group(group) for group in groups if len({one.label for one in group}) > 1],
        "one of the labels is wrong",
        True,
    )
    yield Finding(
        "equal photographs in train and in val or test",
        [_group(group) for group in groups if _leaks(group)],
        "scores of val are too good; take them off one of the lists",
        True,
    )
    yield Finding(
        "equal photographs",
        [_group(group) for group in groups if not _leaks(group)],
        "they count several times",
        False,
    )
    pairs = [
        (readable[a], readable[b])
        for a, b in near_duplicates([image.fingerprint for image in readable])
        if readable[a].sha256 != readable[b].sha256
    ]
    yield Finding(
        "similar photographs in train and in val or test",
        [_group(pair) for pair in pairs if _leaks(pair)],
        "if they show the same, scores of val are too good",
        False,
    )
    yield Finding(
        "similar photographs",
        [_group(pair) for pair in pairs if not _leaks(pair)],
        "if they show the same, they count several times",
        False,
    )


def _group(images: Sequence[Image]) -> str:
    return " = ".join(image.id for image in images)


def _leaks(images: Sequence[Image]) -> bool:
    """Returns whether one image is in a list for training, and another one in one for scores."""
    held_out = [bool({"val", "test"} & set(one.splits)) for one in images]
    trained = [bool({"train", "train_aug"} & set(one.splits)) for one in images]
    return any(held_out) and any(
        train and not held for train, held in zip(trained, held_out, strict=True)
    )


def lines(data: Verified) -> Iterator[str]:
    """Yields what was found as lines of text; those that begin with ! must be mended."""
    yield f"{data.folder}: {len(data.images):,} images, {len(data.classes)} classes"
    for name, count in data.splits.items():
        masks = sum(one.mask is not None for one in data.images if name in one.splits)
        yield f"  {name:<12} {count:,} images, {masks:,} masks"
    sizes = Counter(image.size for image in data.images if not image.error)
    if sizes:
        (small, *_), (*_, large) = sorted(sizes), sorted(sizes)
        usual = sizes.most_common(1)[0][0]
        shown = [f"{width} x {height}" for height, width in (small, usual, large)]
        yield f"  sizes        {shown[0]} to {shown[2]}, most often {shown[1]}"
    width = min(30, max(map(len, data.classes)))
    by_split = {name: data.counts(name) for name in data.splits}
    for index, name in enumerate(data.classes[:40]):
        counts = ", ".join(f"{counts[index]:,} {split}" for split, counts in by_split.items())
        yield f"  {index + 1:>3} {name:<{width}} {counts}"
    together = data.together()
    np.fill_diagonal(together, 0)
    pairs = np.argsort(-np.triu(together), axis=None)[:5]
    shown_pairs = [np.unravel_index(int(pair), together.shape) for pair in pairs]
    often = [
        f"{data.classes[int(a)]} and {data.classes[int(b)]} ({together[a, b]})"
        for a, b in shown_pairs
        if together[a, b]
    ]
    if often:
        yield f"  together     {', '.join(often)}"
    for one in data.findings:
        some = ", ".join(one.names[:5]) + (", ..." if len(one.names) > 5 else "")
        count = f"{len(one.names):,} " if one.names else ""
        named = f" ({some})" if some else ""
        yield f"{'!' if one.mend else ' '} {count}{one.title}{named}: {one.advice}"
    wrong = sum(one.mend for one in data.findings)
    yield f"{wrong} to mend" if wrong else "nothing to mend"
