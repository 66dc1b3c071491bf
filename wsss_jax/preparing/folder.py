"""Makes a data set of a folder of photographs and whatever says what is on them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.class_names import fold, read_classes
from wsss_jax.data.formats.text import read_text
from wsss_jax.data.matching import Matcher, same_file
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError, first
from wsss_jax.preparing.chosen_classes import class_names, without_unknown
from wsss_jax.preparing.data_set import DataSet, Mask
from wsss_jax.preparing.given_masks import GivenMask, match_masks, with_classes
from wsss_jax.preparing.label_files import Mention
from wsss_jax.preparing.label_files.sources import Found, Wanted, find_labels, split_folder
from wsss_jax.preparing.photographs import Photograph, find_photographs, look_at
from wsss_jax.preparing.problems import Problems
from wsss_jax.preparing.remarks import remark_on_labels, remark_on_photographs
from wsss_jax.preparing.splits import stratified

_MOST_CLASSES = 254  # masks have 8 bits, where 0 is the background and 255 is ignored


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user says about a folder.

    Attributes:
      labels: a label file, a folder of them, ``folders``, or "" to find them.
      pattern: a pattern of the names of photographs with ``{class}``, or "".
      columns: the columns of classes in a table; none finds them.
      classes: a file of the names of the classes, or "" to take them from the labels.
      merge: count likely misspellings as the class that they are like.
      keep: keep classes that may be mistakes.
      masks: a folder of masks, or None.
      foreground: the value of the foreground in masks of two values, or 0.
      val: the share of the photographs for val; None takes folders named train and val if there
        are any, and otherwise a fifth.
      val_list: a list of the photographs for val, or None.
      seed: the seed of the splits.
      unlabeled: what becomes of photographs without a label: ``refuse``, ``background`` or
        ``leave_out``.
      skip_damaged: leave out photographs that cannot be read.
    """

    labels: str = ""
    pattern: str = ""
    columns: tuple[str, ...] = ()
    classes: str = ""
    merge: bool = False
    keep: bool = False
    masks: Path | None = None
    foreground: int = 0
    val: float | None = None
    val_list: Path | None = None
    seed: int = 0
    unlabeled: str = "refuse"
    skip_damaged: bool = False


def read_folder(source: Path, options: Options, out: Path | None) -> tuple[DataSet, Problems, str]:
    """Reads a folder of photographs and its labels, and decides on everything.

    Args:
      source: the folder.
      options: what the user says about it.
      out: the folder of the result, which may be inside and is not searched; None for no result.

    Returns:
      The data set, everything that is wrong with the source, and where the labels come from.

    Raises:
      UserError: there are no photographs or labels to begin with.
    """
    problems = Problems()
    leave_out = [path for path in (out, options.masks) if path is not None]
    given = read_classes(options.classes) if options.classes else ()
    paths = find_photographs(source, leave_out, problems)
    matcher = Matcher(paths)
    wanted = Wanted(options.labels, options.pattern, options.columns, given)
    found = find_labels(source, list(paths), wanted, lambda t: bool(matcher.find(t)), leave_out)
    problems.remarks += found.remarks
    photographs = look_at(paths, options.skip_damaged, problems)
    by_photograph = _assign(found, matcher, photographs, options, problems)
    by_photograph = without_unknown(by_photograph, given, options.unlabeled, problems)
    doubts = "merge" if options.merge else "keep" if options.keep else "refuse"
    names = class_names(by_photograph, given, doubts, problems)
    kept = [below for below in photographs if below in by_photograph]
    used = set(kept)
    every = {name for several in names.values() for name in several}
    classes = tuple(given or sorted(every, key=lambda name: (fold(name), name)))
    labels = np.zeros((len(kept), len(classes)), np.uint8)
    position = {name: number for number, name in enumerate(classes)}
    for row, below in enumerate(kept):
        for mention in by_photograph[below]:
            for name in mention.classes:
                labels[row, [position[one] for one in names.get(name, ())]] = 1
    _check_classes(classes, labels, found.what, problems)
    masks = _masks(kept, photographs, classes, labels, options, problems)
    splits = _splits(kept, photographs, labels, options, matcher, problems)
    remark_on_photographs([photographs[below] for below in kept], problems)
    remark_on_labels(classes, labels, splits, problems)
    how = {
        "command": "folder",
        "source": str(source),
        "labels": found.what,
        "label_files": [str(path) for path in found.files],
        "options": dataclasses.asdict(options),
        "left_out": [below for below in paths if below not in used],
    }
    data = DataSet(
        photographs=[photographs[below] for below in kept],
        classes=classes,
        labels=labels,
        splits=splits,
        masks=masks,
        how=how,
        remarks=problems.remarks,
    )
    return data, problems, found.what


def _assign(
    found: Found,
    matcher: Matcher,
    photographs: Mapping[str, Photograph],
    options: Options,
    problems: Problems,
) -> dict[str, list[Mention]]:
    """Returns what is said of each photograph that can be read."""
    result: dict[str, list[Mention]] = {}
    spelled: dict[str, str] = {}
    elsewhere: list[str] = []
    for mention in found.mentions:
        if not mention.image:
            problems.add("rows that name no photograph", mention.where, "complete or delete them")
            continue
        there = matcher.find(mention.image, mention.folder)
        if len(there) != 1 and mention.other:
            there = matcher.find(mention.other, mention.folder) or there
        if len(there) == 1:
            other = spelled.get(there[0], mention.image)
            spelled[there[0]] = max(other, mention.image, key=len)
            if not same_file(other, mention.image):
                problems.add(
                    "labels of different files that fit one photograph",
                    f"{other!r} and {mention.image!r}, {mention.where}: {there[0]}",
                    "add the other photograph, or correct or delete its labels",
                )
            elif there[0] not in result and not same_file(there[0], mention.image):
                elsewhere.append(f"{mention.image} as {there[0]}")
            result.setdefault(there[0], []).append(mention)
        elif there:
            problems.add(
                "labels that fit several photographs",
                f"{mention.image!r}, {mention.where}: {first(there, 2)}",
                "write the folder as well",
            )
        else:
            problems.add(
                "labels without a photograph",
                f"{mention.image!r}, {mention.where}",
                "add the photographs, or correct or delete the labels",
            )
    if matcher.by_number:
        numbers = first(sorted(matcher.by_number), 3)
        problems.remarks.append(f"labels name photographs by number ({numbers})")
    if elsewhere:
        problems.remarks.append(
            f"labels name photographs of other folders or formats: {first(elsewhere, 3)}"
        )
    unlabeled = [below for below in photographs if below not in result]
    if not unlabeled:
        return result
    if options.unlabeled == "refuse":
        for below in unlabeled:
            problems.add(
                "photographs without a label",
                below,
                "label them, or say --unlabeled leave_out, or --unlabeled background if they show"
                " no class",
            )
    elif options.unlabeled == "background":
        result |= {below: [] for below in unlabeled}
        problems.remarks.append(
            f"photographs without a label count as background: {len(unlabeled):,}"
            f" ({first(unlabeled, 3)})"
        )
    else:
        problems.remarks.append(
            f"photographs without a label are left out: {len(unlabeled):,} ({first(unlabeled, 3)})"
        )
    return result


def _check_classes(
    classes: Sequence[str], labels: UInt8[np.ndarray, "n c"], what: str, problems: Problems
) -> None:
    if len(classes) > _MOST_CLASSES:
        raise UserError(
            f"expected at most {_MOST_CLASSES} classes, found {len(classes)} in {what}"
            f" ({first(classes)}): choose the column of classes with --label_column, or give"
            " the names with --classes"
        )
    if len(labels) and not labels.any():
        problems.add("labels, and no class in any of them", what, "check where classes are written")


def _masks(
    kept: Sequence[str],
    photographs: Mapping[str, Photograph],
    classes: Sequence[str],
    labels: UInt8[np.ndarray, "n c"],
    options: Options,
    problems: Problems,
) -> dict[int, Callable[[], Mask]]:
    if options.masks is None:
        if options.foreground:
            raise UserError("expected --masks DIR with --foreground, found none: add it")
        return {}
    files, alone, double = match_masks(options.masks, kept)
    for name in alone:
        problems.add("masks without a photograph", name, "name them like the photographs")
    for name in double:
        problems.add("masks that fit several photographs", name, "name them by path")
    indices = {b: [int(c) + 1 for c in np.flatnonzero(labels[r])] for r, b in enumerate(kept)}
    masks, unclear = with_classes(files, indices, options.foreground)
    for name in unclear:
        problems.add(
            "masks of two values for photographs with several classes",
            name,
            "make masks of class indices",
        )
    row = {below: number for number, below in enumerate(kept)}
    reads = {
        row[below]: functools.partial(mask.read, photographs[below].size, len(classes))
        for below, mask in masks.items()
    }

    def check(item: tuple[str, GivenMask]) -> str | None:
        try:
            mask = reads[row[item[0]]]()
        except UserError as error:
            return str(error)
        extra = set(np.unique(mask).tolist()) - {0, 255, *indices[item[0]]}
        if extra:
            names = first([classes[int(index) - 1] for index in sorted(extra)])
            return (
                f"expected the classes of the label in {item[1].path}, found {names} as well:"
                " correct the mask or the label"
            )
        return None

    with thread_pool() as pool:
        for below, error in zip(masks, pool.map(check, masks.items()), strict=True):
            if error:
                problems.add("masks that cannot be used", f"{below}: {error}", "mend them")
    return reads


def _splits(
    kept: Sequence[str],
    photographs: Mapping[str, Photograph],
    labels: UInt8[np.ndarray, "n c"],
    options: Options,
    matcher: Matcher,
    problems: Problems,
) -> dict[str, list[int]]:
    """Returns the positions of the photographs of each split."""
    everything = list(range(len(kept)))
    if options.val_list is not None:
        if options.val is not None:
            raise UserError("expected --val or --val_list, found both: leave one out")
        chosen: set[str] = set()
        usable = set(kept)
        for line in read_text(options.val_list, "a list of photographs").splitlines():
            if not line.strip():
                continue
            there = matcher.find(line)
            if len(there) == 1 and there[0] in usable:
                chosen.add(there[0])
            else:
                problems.add(
                    f"lines of {options.val_list} that name no labeled photograph, or several",
                    line.strip(),
                    "correct the list",
                )
        return {
            "train": [p for p in everything if kept[p] not in chosen],
            "val": [p for p in everything if kept[p] in chosen],
        }
    folders = [split_folder(below) for below in kept]
    if options.val is None and all(folders) and len(set(folders)) > 1 and "train" in folders:
        problems.remarks.append("the splits are those of the folders")
        names = [name for name in ("train", "val", "test") if name in folders]
        return {name: [p for p in everything if folders[p] == name] for name in names}
    share = 0.2 if options.val is None else options.val
    if not 0 <= share < 1:
        raise UserError(f"expected a share of 0 to 1 for --val, found {share:g}: such as 0.2")
    digests = [photographs[below].sha256 for below in kept]
    chosen_rows = stratified(labels, share, options.seed, digests)
    return {
        "train": np.flatnonzero(~chosen_rows).tolist(),
        "val": np.flatnonzero(chosen_rows).tolist(),
    }
