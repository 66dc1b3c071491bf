"""Decides which class each name of the labels means."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from wsss_jax.data.class_names import fold
from wsss_jax.data.class_spelling import (
    doubtful,
    is_not_known,
    is_nothing,
    likely_misspellings,
    separated,
    spellings,
)
from wsss_jax.errors import first, nearest
from wsss_jax.preparing.label_files import Mention
from wsss_jax.preparing.problems import Problems

Labels = Mapping[str, Sequence[Mention]]
"""What is said of each photograph."""


def without_unknown(
    labels: Labels, given: Sequence[str], unlabeled: str, problems: Problems
) -> dict[str, list[Mention]]:
    """Returns the labels without those that say that nobody knows, such as ``?``.

    A photograph with such a label counts as one without a label.

    Args:
      labels: what is said of each photograph.
      given: the names of the classes, if they are given.
      unlabeled: what becomes of photographs without a label; see `Options`.
      problems: gets them if they are refused, and otherwise a remark.
    """
    known = set(map(fold, given))
    result: dict[str, list[Mention]] = {}
    open_ones: list[str] = []
    for below, mentions in labels.items():
        asked = [
            f"{name!r}, {one.where}"
            for one in mentions
            for name in one.classes
            if is_not_known(name) and fold(name) not in known
        ]
        if not asked:
            result[below] = list(mentions)
            continue
        open_ones.append(below)
        if unlabeled == "refuse":
            problems.add(
                "labels that are open",
                asked[0],
                "write the classes, or say --unlabeled leave_out, or --unlabeled background if the"
                " photographs show no class",
            )
        if unlabeled != "leave_out":
            result[below] = [
                one._replace(
                    classes=tuple(n for n in one.classes if not is_not_known(n) or fold(n) in known)
                )
                for one in mentions
            ]
    if open_ones and unlabeled != "refuse":
        what = "are left out" if unlabeled == "leave_out" else "count as without a class"
        problems.remarks.append(
            f"photographs whose label is open {what}: {len(open_ones):,} ({first(open_ones, 3)})"
        )
    return result


def class_names(
    labels: Labels,
    given: Sequence[str],
    doubts: Literal["refuse", "merge", "keep"],
    problems: Problems,
) -> dict[str, tuple[str, ...]]:
    """Returns the classes that each name of the labels means.

    Args:
      labels: what is said of each photograph.
      given: the names of the classes, if they are given; other names are refused.
      doubts: what becomes of names that are hardly classes (see `doubtful`): likely misspellings
        may be merged with the class that they are like.
      problems: gets names that are refused, and remarks.
    """
    counts = Counter(name for mentions in labels.values() for name in set(_names(mentions)))
    where: dict[str, str] = {}
    for mentions in labels.values():
        for one in mentions:
            for name in one.classes:
                where.setdefault(name, one.where)
    several = separated(counts, given)
    for name, parts in several.items():
        counts.update(dict.fromkeys(parts, counts.pop(name)))
    single = spellings(counts, given)
    for name in sorted(counts.keys() - single.keys()):
        problems.add(
            "names that are no classes",
            f"{name!r}, {where[name]}{nearest(name, given)}",
            "correct them, or add them to --classes",
        )
    varied = {c: sorted(n for n in single if single[n] == c and n != c) for c in single.values()}
    if shown := [f"{', '.join(map(repr, n))} as {c!r}" for c, n in varied.items() if n]:
        problems.remarks.append(f"spelled differently: {first(shown)}")
    if shown := [f"{name!r} as {' and '.join(parts)}" for name, parts in several.items()]:
        problems.remarks.append(f"several classes in one name: {first(shown)}")
    names = {name: (chosen,) for name, chosen in single.items()}
    names |= {name: tuple(single[part] for part in parts) for name, parts in several.items()}
    if given:
        return names
    images = Counter(
        chosen
        for mentions in labels.values()
        for chosen in {c for name in _names(mentions) for c in names[name]}
    )
    merged = likely_misspellings(images) if doubts == "merge" else {}
    for rare, frequent in merged.items():
        problems.remarks.append(f"{rare!r} is counted as {frequent!r}: {images[rare]}")
    for rare, like in doubtful(images).items():
        if rare in merged:
            continue
        times = "once" if images[rare] == 1 else f"{images[rare]} times"
        text = f"{rare!r} {times}, {where.get(rare, '')}{f'; did you mean {like}?' if like else ''}"
        if doubts == "keep":
            problems.remarks.append(f"a class that may be a mistake is kept: {text}")
        else:
            problems.add(
                "classes that may be mistakes",
                text,
                "correct them, count misspelled ones as what they are like with --merge, or keep"
                " them with --yes",
            )
    return {name: tuple(merged.get(one, one) for one in chosen) for name, chosen in names.items()}


def _names(mentions: Sequence[Mention]) -> Iterator[str]:
    return (name for one in mentions for name in one.classes if not is_nothing(name))
