"""The comparison as a self-contained page."""

from collections.abc import Mapping, Sequence

from wsss_jax.comparison import sections as sections
from wsss_jax.comparison import table as text
from wsss_jax.comparison.trials import SPLITS, Comparison, Entry
from wsss_jax.report import page, wording
from wsss_jax.report.encode import Pictures
from wsss_jax.report.gallery import Sample
from wsss_jax.report.markup import Html, element
from wsss_jax.viz.colors import class_colours


def build_page(
    comparison: Comparison,
    samples: Sequence[Sample],
    split: str,
    classes: Sequence[str],
    provenance: Mapping[str, str],
    no_pictures: str = "",
) -> str:
    """The whole page as text, below 4 MB.

    Args:
      comparison: what was found; at least one entry.
      samples: the gallery, of `split`; may be empty, `no_pictures` then says why.
      classes: foreground class names in the order of their indices.
      provenance: names and values for the foot of the page.
      no_pictures: a sentence, see `samples`.
    """
    colours = ["#" + bytes(row).hex() for row in class_colours(len(classes))]
    data = comparison.entries[0].trials[0].run.data_name

    def make(pictures: Pictures) -> str:
        parts = (
            sections.scores(comparison),
            sections.curves(comparison),
            sections.gallery(samples, split, colours, pictures, no_pictures),
            sections.seeds(comparison),
            sections.settings(comparison),
        )
        return page.document(
            f"Comparison of {wording.count(len(comparison.entries), 'recipe')} on {data}",
            _hero(comparison, data),
            [part for part in parts if part is not None],
            provenance,
            remark=_missing(comparison),
            styles=(("wsss_jax.report", "page.css"), ("wsss_jax.comparison", "comparison.css")),
        )

    return page.small_enough(make)


def title(comparison: Comparison) -> str:
    """``CAM, SSENet and SEAM``; from four on their number."""
    rivals = [entry for entry in comparison.entries if not entry.supervised] or comparison.entries
    names = [entry.label for entry in rivals]
    if len(names) > 3:
        methods = {entry.trials[0].run.method for entry in rivals}
        return f"{len(names)} {'methods' if len(methods) == len(names) else 'recipes'}"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def lede(comparison: Comparison) -> str:
    """What was kept equal, in a sentence."""
    backbones = dict.fromkeys(e.trials[0].run.backbone for e in comparison.entries)
    same = f", the same backbone ({wording.backbone_name(next(iter(backbones)))})"
    counts = sorted({len(entry.trials) for entry in comparison.entries})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else ""
    seeds = seeds or wording.count(counts[0], "seed")
    return f"The same data{same if len(backbones) == 1 else ''} and evaluation, {seeds} each."


def _hero(comparison: Comparison, data: str) -> Html:
    words = element(
        "div",
        element("p", "comparison", class_="eyebrow"),
        element("h1", title(comparison), element("em", f" on {data}")),
        element("p", lede(comparison), class_="lede"),
    )
    split = next((s for s in SPLITS if any(e.score(s) for e in comparison.entries)), SPLITS[0])
    numbers = [page.headline(_headline(comparison, e, split)) for e in comparison.entries]
    return element(
        "header",
        element("div", words, class_="top"),
        element("dl", numbers, class_="numbers"),
        id="top",
    )


def _headline(comparison: Comparison, entry: Entry, split: str) -> wording.Headline:
    spread = entry.score(split)
    gain = comparison.gain(entry, split)
    note = f"mIoU on {split}"
    if entry.supervised:
        note = f"on {split}, learned from true masks"
    elif gain is not None:
        note = f"{sections.signed(gain)} on {split}"
        note += ", more than the spread" if comparison.better(entry, split) else ""
    elif entry.recipe == comparison.baseline:
        note += ", the baseline"
    return wording.Headline(
        label=entry.label,
        value=wording.percent(None if spread is None else spread.mean),
        unit="" if spread is None else text.deviation(spread),
        note=note,
        score=None if spread is None else spread.mean,
    )


def _missing(comparison: Comparison) -> Html | None:
    if not comparison.missing:
        return None
    told = (
        element("li", f"{recipe}, seed {seed}: {why}") for recipe, seed, why in comparison.missing
    )
    return element("div", "No result from", element("ul", told), class_="remark")
