"""A matplotlib figure that is addressed in pixels from its upper-left corner, for PNG and SVG."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.transforms import IdentityTransform
from PIL import Image

from wsss_jax.viz.fonts import font_for
from wsss_jax.viz.style import FONT, PAGE_COLORS

Pixels = int | float

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that XML does not allow
_NUMBER = re.compile(r"-?\d+\.\d+")


class Sheet:
    """A sheet of `width` × `height` pixels in the color `paper`; ``none`` makes it transparent.

    At 72 dots per inch a point is a pixel, so font sizes and line widths are in pixels too.
    """

    def __init__(self, width: Pixels, height: Pixels, paper: str = "none"):
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=paper)
        self._canvas = FigureCanvasAgg(self._figure)
        self._pictures: list[tuple[UInt8[np.ndarray, "h w 3"], int, int]] = []

    def axes(self, left: Pixels, top: Pixels, width: Pixels, height: Pixels) -> Axes:
        """Returns axes that fill a rectangle; their labels lie outside of it."""
        bottom = self.height - top - height
        return self._figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def fill(self, left: Pixels, top: Pixels, width: Pixels, height: Pixels, color: str) -> None:
        """Paints a rectangle."""
        corner = (left, self.height - top - height)
        self._put_behind(Rectangle(corner, width, height, facecolor=color, lw=0))

    def card(
        self, left: Pixels, top: Pixels, width: Pixels, height: Pixels, color: str, edge: str
    ) -> None:
        """Paints a rectangle with rounded corners and an edge."""
        corner = (left, self.height - top - height)
        box = "round,pad=0,rounding_size=14"
        self._put_behind(
            FancyBboxPatch(corner, width, height, boxstyle=box, facecolor=color, edgecolor=edge)
        )

    def rule(self, left: Pixels, top: Pixels, length: Pixels, width: Pixels, **style: Any) -> None:
        """Draws a horizontal line."""
        level = self.height - top
        self._put_behind(Line2D([left, left + length], [level, level], lw=width, **style))

    def _put_behind(self, artist: Artist) -> None:
        artist.set_transform(IdentityTransform())
        artist.set_zorder(-1)  # axes have 0
        self._figure.add_artist(artist)

    def picture(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        left: Pixels,
        top: Pixels,
        width: Pixels,
        height: Pixels,
        *,
        stretch: bool = False,
    ) -> None:
        """Puts an RGB image into a rectangle, centered and as large as fits, or stretched.

        Only `png` shows it.
        """
        factors = width / image.shape[1], height / image.shape[0]
        across, down = factors if stretch else (min(factors), min(factors))
        size = max(1, round(image.shape[1] * across)), max(1, round(image.shape[0] * down))
        method = cv2.INTER_AREA if min(across, down) < 1 else cv2.INTER_CUBIC
        scaled = cv2.resize(image, size, interpolation=method)
        x, y = round(left + (width - size[0]) / 2), round(top + (height - size[1]) / 2)
        self._pictures.append((scaled, x, y))

    def text(
        self,
        left: Pixels,
        base: Pixels,
        text: str,
        size: Pixels,
        color: str,
        *,
        bold: bool = False,
    ) -> float:
        """Writes a line of text, `size` in pixels, on a baseline and returns where it ends."""
        made = self._figure.text(
            left / self.width,
            1 - base / self.height,
            text,
            fontsize=size,
            color=color,
            fontweight="bold" if bold else "normal",
            fontfamily=(font_for(text) or (FONT, ""))[0],
            va="baseline",
            parse_math=False,
        )
        with _drawing():
            return float(made.get_window_extent(self._canvas.get_renderer()).x1)

    def png(self) -> bytes:
        """Returns the sheet as a PNG file that has no metadata."""
        with _drawing():
            self._canvas.draw()
        sheet = Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3])
        for image, x, y in self._pictures:
            sheet.paste(Image.fromarray(image), (x, y))
        file = io.BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()

    def svg(self, name: str) -> str:
        """Returns the sheet as an SVG element for a page.

        Text stays text in the font of the page. Colors become variables of the page, so that its
        dark variant applies to charts too. A sheet gives the same SVG on every machine.

        Args:
          name: a name that is unique among the charts of a page; ids in the SVG depend on it.
        """
        file = io.StringIO()
        with _drawing(name):
            self._figure.savefig(file, format="svg", metadata={"Date": None})
        root = ElementTree.fromstring(_CONTROL.sub("", file.getvalue()))
        for parent in reversed(list(root.iter())):
            _simplify(parent)
            for child in list(parent):
                if _says_nothing(child):
                    parent.remove(child)
        root.attrib = {"viewBox": root.attrib["viewBox"], "aria-hidden": "true"}
        return ElementTree.tostring(root, encoding="unicode")


@contextlib.contextmanager
def _drawing(name: str = "") -> Iterator[None]:
    """Sets matplotlib so that SVG ids depend on `name` alone and SVG text stays text.

    Small bold letters keep their shape without hinting. Characters that the font lacks become boxes
    without a warning.
    """
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.hinting": "none",
    }
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def _says_nothing(element: ElementTree.Element) -> bool:
    """Returns whether an element draws nothing."""
    empty = element.tag in ("g", "defs") and not len(element)
    return empty or element.tag in ("metadata", "style") or element.get("style") == "fill:none"


def _simplify(element: ElementTree.Element) -> None:
    """Removes what a page does not need: namespaces, names of groups, the font, white space."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    element.text = element.text if element.tag == "text" else None
    found = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag == "g":
        found.pop("id", None)
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    for key in ("d", "x", "y"):
        if key in found:
            rounded = _NUMBER.sub(
                lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), found[key]
            )
            found[key] = " ".join(rounded.split())
    if "style" in found:
        parts = [part.strip() for part in found["style"].split(";")]
        style = ";".join(p.replace(": ", ":") for p in parts if not p.startswith("font-family"))
        for color, variable in PAGE_COLORS.items():
            style = style.replace(color, variable)
        found["style"] = style
    element.attrib = found
