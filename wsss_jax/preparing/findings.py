"""What is wrong with a data set whose files have all been opened, or may be."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from wsss_jax.preparing.verified import Finding, Image, Verified

_FEW = 10  # images of a class
_NEAR = 3  # bits of 64 in which the fingerprints of near duplicates differ
_FLAT = 8  # bits that a fingerprint needs; those of plain areas have fewer
_SMALL = 32  # pixels


def findings(data: Verified) -> Iterator[Finding]:
    """Yields everything that is found; findings without names are none."""
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
        [
            _group(group)
            for group in groups
            if not _leaks(group) and len({one.label for one in group}) == 1
        ],
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
