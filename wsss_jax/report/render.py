"""Renders pages from templates; a page contains everything that it shows."""

import base64
import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from wsss_jax.report import wording
from wsss_jax.viz.bar_chart import BarChart, draw_bars
from wsss_jax.viz.line_chart import LineChart, draw_lines
from wsss_jax.viz.sheet import Sheet
from wsss_jax.viz.style import PAGE_COLORS, line_style

_MOST_BYTES = 3_600_000  # without the explorer's data
_WIDTH, _HEIGHT = 560, 350  # of a chart; pages scale it to the width of its card


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Encodes RGB pictures as JPEG of at most `side` pixels with the given quality."""

    side: int
    quality: int

    def uri(self, picture: UInt8[np.ndarray, "h w 3"], side: int | None = None) -> str:
        """Returns the picture as ``data:`` URI; its longer side is at most `side`, if given."""
        factor = min(1.0, min(side or self.side, self.side) / max(picture.shape[:2]))
        if factor < 1.0:
            height, width = (max(1, round(n * factor)) for n in picture.shape[:2])
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        file = io.BytesIO()
        # Without chroma subsampling, the colored outlines stay sharp.
        Image.fromarray(picture).save(file, "JPEG", quality=self.quality, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


# Tried in turn until the page is small enough.
_PICTURES = (
    Pictures(480, 85),
    Pictures(400, 80),
    Pictures(320, 74),
    Pictures(240, 66),
    Pictures(160, 55),
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart on a page.

    `data` has the values that the page's script shows at the pointer, and `area` is the rectangle
    of the plot within the SVG (left, top, width, height in percent). Both are None if there are no
    values to show.
    """

    title: str
    note: str
    summary: str
    svg: Markup
    data: dict[str, Any] | None = None
    area: tuple[float, ...] | None = None


def line_figure(chart: LineChart, name: str) -> Figure:
    """Draws lines for a page in which `name` occurs once."""
    chart, sheet = chart.thinned(), Sheet(_WIDTH, _HEIGHT)
    axes = draw_lines(sheet, chart, 0, 0, _WIDTH, _HEIGHT)
    box = axes.get_position()
    data = {
        "x": [_short(v) for v in chart.x],
        "s": [
            {
                "n": s.name,
                "c": PAGE_COLORS[line_style(s.shade)[0]],
                "y": [None if v is None else _short(v) for v in s.y],
            }
            for s in chart.series
            if not s.faint
        ],
        "ax": axes.get_xlim(),
        "ay": axes.get_ylim(),
        "log": axes.get_yscale() == "log",
        "u": chart.x_name,
    }
    area = tuple(round(100 * v, 2) for v in (box.x0, 1 - box.y1, box.width, box.height))
    return Figure(chart.title, chart.note, chart.summary(), Markup(sheet.svg(name)), data, area)


def bar_figure(chart: BarChart, name: str) -> Figure:
    """Draws bars for a page in which `name` occurs once."""
    sheet = Sheet(_WIDTH, chart.height)
    draw_bars(sheet, chart, 0, 0, _WIDTH)
    return Figure(chart.title, "", chart.summary(), Markup(sheet.svg(name)))


def _short(value: int | float) -> float:
    return float(f"{value:.5g}")


def render(package: str, template: str, *, further: int = 0, **values: Any) -> str:
    """Renders a template of `package` with `values`.

    Pictures are as large as possible with a page below 4 MB, not counting `further` bytes that do
    not depend on them. Templates get `pictures` (see
    `Pictures`), the module `wording`, and ``asset(NAME)`` for a file of style or script. Everything
    else that they insert is escaped, and a name that does not exist is an error.
    """
    page = ""
    for pictures in _PICTURES:
        page = _environment(package).get_template(template).render(pictures=pictures, **values)
        if len(page.encode()) - further < _MOST_BYTES:
            break
    return page


@functools.cache
def _environment(package: str) -> Environment:
    packages = dict.fromkeys((package, "wsss_jax.report"))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = wording.percent
    environment.globals |= {"wording": wording, "asset": _asset_reader(environment)}
    return environment


def _asset_reader(environment: Environment) -> Callable[[str], Markup]:
    def asset(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    return asset
