"""The page that shows what `verify` has found."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.preparing.verified import Finding, Image, Verified
from wsss_jax.report.render import render
from wsss_jax.report.wording import Headline
from wsss_jax.viz.colors import class_colors, paint_mask

_PER_CLASS, _MOST_CLASSES, _PER_FINDING = 3, 40, 4
_MOST_TOGETHER = 30  # classes whose co-occurrence fits into a table


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture of the page and its caption."""

    title: str
    picture: UInt8[np.ndarray, "h w 3"]


def verify_page(data: Verified) -> str:
    """Returns the page as text; it contains everything that it shows."""
    together = data.together()
    counts = {name: data.counts(name) for name in data.splits}
    colors = class_colors(len(data.classes))
    most = max([int(together[c, c]) for c in range(len(data.classes))] or [1]) or 1
    rows = [
        (name, f"rgb({r} {g} {b})", [int(counts[s][c]) for s in counts], int(together[c, c]) / most)
        for c, (name, (r, g, b)) in enumerate(zip(data.classes, colors[1:].tolist(), strict=True))
    ]
    mend = [one for one in data.findings if one.mend]
    masks = sum(image.mask is not None for image in data.images)
    lines = (
        (
            "images",
            f"{len(data.images):,}",
            ", ".join(f"{n:,} {s}" for s, n in data.splits.items()),
        ),
        ("classes", f"{len(data.classes)}", ""),
        ("masks", f"{masks:,}", ""),
        ("to mend", f"{len(mend)}", "training would be refused or misled" if mend else ""),
    )
    return render(
        "wsss_jax.preparing",
        "verify.html.jinja",
        data=data,
        data_name=data.folder.resolve().name,
        headlines=[Headline(label, value, "", note, None) for label, value, note in lines],
        rows=rows,
        split_names=list(counts),
        together=together.tolist() if len(data.classes) <= _MOST_TOGETHER else None,
        most_together=int(max(1, (together - np.diag(np.diag(together))).max(initial=0))),
        findings=[(one, _of_finding(one, data)) for one in data.findings],
        samples=[(name, list(_of_class(data, index))) for index, name in enumerate(data.classes)][
            :_MOST_CLASSES
        ],
        provenance={"folder": str(data.folder)},
    )


def _of_class(data: Verified, index: int) -> Iterator[Shown]:
    """Yields the first photographs of a class, with their masks painted over them."""
    chosen = [one for one in data.images if one.label and index in one.label and not one.error]
    for image in chosen[:_PER_CLASS]:
        yield _shown(image, data)


def _of_finding(finding: Finding, data: Verified) -> Sequence[Shown]:
    by_id = {image.id: image for image in data.images if not image.error}
    ids = [part for name in finding.names for part in name.split(" = ")]
    found = [by_id.get(one) or by_id.get(one.rpartition(" (")[0]) for one in ids]
    images = list(dict.fromkeys(one for one in found if one is not None))
    return [_shown(image, data) for image in images[:_PER_FINDING]]


def _shown(image: Image, data: Verified) -> Shown:
    pixels = decode_image(read_bytes(image.path), image.id)
    names = ", ".join(data.classes[index] for index in sorted(image.label or ()))
    if image.mask is not None:
        try:
            mask = decode_mask(read_bytes(image.mask), image.id, len(data.classes))
            if mask.shape == pixels.shape[:2]:
                pixels = paint_mask(pixels, mask, class_colors(len(data.classes)))
        except UserError:  # It is one of the findings.
            pass
    return Shown(f"{image.id}: {names or 'no class'}", pixels)
