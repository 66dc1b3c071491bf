"""The self-contained page: everything it shows is inside the file."""

import importlib.resources
from collections.abc import Callable, Mapping, Sequence

from wsss_jax.report import sections, wording
from wsss_jax.report.collect import Evaluation, Run
from wsss_jax.report.encode import Pictures
from wsss_jax.report.gallery import Sample
from wsss_jax.report.markup import Html, element
from wsss_jax.viz.colors import class_colours

_MOST_BYTES = 3_600_000
# Long side and JPEG quality of the pictures, tried in turn until the page is small enough.
_PICTURES = (
    Pictures(480, 85),
    Pictures(400, 80),
    Pictures(320, 74),
    Pictures(240, 66),
    Pictures(160, 55),
)


def build_page(
    run: Run,
    samples: Sequence[Sample],
    evaluation: Evaluation | None,
    classes: Sequence[str],
    provenance: Mapping[str, str],
    no_pictures: str = "",
) -> str:
    """The whole page as text, below 4 MB.

    Args:
      run: what the stages left behind.
      samples: the gallery, of `evaluation`; may be empty, `no_pictures` then says why.
      classes: foreground class names in the order of their indices.
      provenance: names and values for the foot of the page.
      no_pictures: a sentence, see `samples`.
    """
    colours = ["#" + bytes(row).hex() for row in class_colours(len(classes))]
    named_colours = dict(zip(("background", *classes), colours, strict=True))
    title = f"{wording.title(run)} on {run.data_name}: {run.name}"

    def page(pictures: Pictures) -> str:
        parts = (
            sections.gallery(samples, evaluation, colours, pictures, no_pictures),
            sections.scores(run),
            sections.classes(run, named_colours),
            sections.training(run),
            sections.settings(run),
        )
        shown = [part for part in parts if part is not None]
        hero = _hero(run, samples, pictures)
        return document(title, hero, shown, provenance, remark=_unfinished(run))

    return small_enough(page)


def small_enough(make: Callable[[Pictures], str]) -> str:
    """The page that `make` builds with the largest pictures that keep it below 4 MB."""
    page = ""
    for pictures in _PICTURES:
        page = make(pictures)
        if len(page.encode()) < _MOST_BYTES:
            break
    return page


def document(
    title: str,
    hero: Html,
    parts: Sequence[sections.Section],
    provenance: Mapping[str, str],
    *,
    remark: Html | None = None,
    styles: Sequence[tuple[str, str]] = (("wsss_jax.report", "page.css"),),
) -> str:
    """A page: bar, opening, `remark`, parts, foot; `styles` are packages and their files."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        (element("style", _asset(*style)) for style in styles),
    )
    body = element(
        "body",
        _bar(parts),
        hero,
        element("main", remark, (part.markup() for part in parts)),
        _foot(provenance),
        _lightbox(),
        element("script", _asset("wsss_jax.report", "page.js")),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _asset(package: str, name: str) -> Html:
    return Html(importlib.resources.files(package).joinpath(name).read_text("utf-8"))


def _bar(parts: Sequence[sections.Section]) -> Html:
    return element(
        "nav",
        element("a", "wsss_jax", href="#top", class_="brand"),
        element("div", (element("a", part.title, href=f"#{part.name}") for part in parts)),
        # The script shows and names it; without script the system's choice holds.
        element("button", "Auto", type="button", id="theme", hidden=True),
        aria_label="Parts of this report",
    )


def _hero(run: Run, samples: Sequence[Sample], pictures: Pictures) -> Html:
    title, backbone = wording.title(run), wording.backbone_name(run.backbone)
    words = element(
        "div",
        element("p", run.name, class_="eyebrow"),
        element("h1", title, element("em", f" on {run.data_name}")),
        element(
            "p",
            f"{title}{' with ' + backbone if backbone else ''} learns from image-level labels"
            " alone which pixels belong to which class. Pictures first, then every score and how"
            " it was measured.",
            class_="lede",
        ),
    )
    figures = [headline(line) for line in wording.headlines(run)]
    return element(
        "header",
        element("div", words, _strip(samples, pictures), class_="top"),
        element("dl", figures, class_="numbers") if figures else None,
        id="top",
    )


def headline(line: wording.Headline) -> Html:
    """A large number of the opening."""
    gauge = None
    if line.score is not None:
        filled = element("i", style=f"width:{100 * line.score:.1f}%")
        gauge = element("i", filled, class_="gauge", aria_hidden="true")
    return element(
        "div",
        element("dt", line.label),
        element(
            "dd",
            element("b", line.value, element("small", line.unit)),
            gauge,
            element("p", line.note) if line.note else None,
        ),
    )


def _strip(samples: Sequence[Sample], pictures: Pictures) -> Html | None:
    """From label to mask in three pictures: those of the best sample that has them."""
    wanted = ("image", "heat", "mask")
    sample = next((s for s in samples if all(s.view(kind) for kind in wanted)), None)
    if sample is None:
        return None
    captions = (f"label “{', '.join(sample.labels)}”", "activation", "mask")
    views = [view for view in map(sample.view, wanted) if view is not None]
    return element(
        "div",
        (
            element(
                "figure",
                element("img", src=pictures.uri(view.picture, 320), alt=view.alt),
                element("figcaption", caption),
            )
            for view, caption in zip(views, captions, strict=True)
        ),
        class_="strip",
    )


def _unfinished(run: Run) -> Html | None:
    if not run.unfinished:
        return None
    names = ", ".join(run.unfinished)
    return element("p", f"No result yet from: {names}. Their parts are left out.", class_="remark")


def _foot(provenance: Mapping[str, str]) -> Html:
    return element(
        "footer",
        element(
            "dl",
            (
                element("div", element("dt", name), element("dd", value))
                for name, value in provenance.items()
                if value
            ),
        ),
    )


def _lightbox() -> Html:
    """Filled by the script when a picture is chosen."""
    return element(
        "dialog",
        element(
            "div",
            element("p", id="box-name"),
            element("div", id="box-views", role="group", aria_label="Views"),
            element("button", "Close", type="button", id="box-close"),
            class_="box-head",
        ),
        element("img", id="box-picture", alt=""),
        element(
            "div",
            element("button", "‹ Previous", type="button", id="box-previous"),
            element("p", id="box-score"),
            element("button", "Next ›", type="button", id="box-next"),
            class_="box-foot",
        ),
        id="box",
        aria_label="Enlarged picture",
    )
