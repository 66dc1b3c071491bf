"""A matplotlib figure addressed in pixels from its upper left corner."""

import io

import cv2
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from matplotlib.transforms import IdentityTransform
from PIL import Image

from wsss_jax.viz.labelled import FONT

Pixels = int | float


class Sheet:
    """An empty sheet of `width` × `height` pixels in the colour `paper`."""

    def __init__(self, width: int, height: int, paper: str):
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=paper)
        self._canvas = FigureCanvasAgg(self._figure)
        self._pictures: list[tuple[UInt8[np.ndarray, "h w 3"], int, int]] = []

    def axes(self, left: Pixels, top: Pixels, width: Pixels, height: Pixels) -> Axes:
        """Axes that fill a rectangle; their labels lie around it."""
        box = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self._figure.add_axes(box)

    def fill(self, left: Pixels, top: Pixels, width: Pixels, height: Pixels, colour: str) -> None:
        """Paints a rectangle."""
        corner = (left, self.height - top - height)
        shape = Rectangle(corner, width, height, facecolor=colour, lw=0)
        self._put_behind(shape)

    def card(
        self, left: Pixels, top: Pixels, width: Pixels, height: Pixels, colour: str, edge: str
    ) -> None:
        """Paints a rectangle with round corners and an edge."""
        shape = FancyBboxPatch(
            (left, self.height - top - height),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=14",
            facecolor=colour,
            edgecolor=edge,
        )
        self._put_behind(shape)

    def _put_behind(self, shape: Patch) -> None:
        shape.set_transform(IdentityTransform())
        shape.set_zorder(-1)  # axes have 0
        self._figure.add_artist(shape)

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
        """Puts an RGB image into a rectangle: as large as fits in the middle, or stretched."""
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
        colour: str,
        *,
        bold: bool = False,
    ) -> float:
        """Writes a line on its base line, `size` in pixels; returns where it ends."""
        made = self._figure.text(
            left / self.width,
            1 - base / self.height,
            text,
            fontsize=size * 0.72,  # points of 1/72 inch at 100 pixels an inch
            color=colour,
            fontweight="bold" if bold else "normal",
            fontfamily=FONT,
            va="baseline",
            parse_math=False,
        )
        return float(made.get_window_extent(self._canvas.get_renderer()).x1)

    def png(self) -> bytes:
        """The sheet as PNG; nothing in it but the pixels."""
        self._canvas.draw()
        sheet = Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3])
        for image, x, y in self._pictures:
            sheet.paste(Image.fromarray(image), (x, y))
        file = io.BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()
