"""A matplotlib figure addressed in pixels from its upper left corner."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

FONT = "DejaVu Sans"  # comes with matplotlib, so a picture is the same everywhere


class Sheet:
    """An empty sheet of `width` × `height` pixels in the colour `paper`."""

    def __init__(self, width: int, height: int, paper: str):
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=paper)
        self._canvas = FigureCanvasAgg(self._figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes that fill a rectangle; everything outside of their lines lies around it."""
        box = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self._figure.add_axes(box)

    def fill(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Paints a rectangle."""
        axes = self.axes(left, top, width, height)
        axes.set_facecolor(colour)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)

    def card(
        self, left: float, top: float, width: float, height: float, colour: str, edge: str
    ) -> None:
        """Paints a rectangle with round corners and an edge."""
        axes = self.axes(left, top, width, height)
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(0, height)
        shape = FancyBboxPatch(
            (1, 1),
            width - 2,
            height - 2,
            boxstyle="round,pad=0,rounding_size=14",
            facecolor=colour,
            edgecolor=edge,
        )
        axes.add_patch(shape)

    def picture(self, image: Any, left: float, top: float, width: float, height: float) -> None:
        """Draws an RGB image into a rectangle, as large as fits, in the middle."""
        axes = self.axes(left, top, width, height)
        axes.imshow(image, interpolation="antialiased")
        axes.set_axis_off()

    def text(
        self, left: float, base: float, text: str, size: float, colour: str, *, bold: bool = False
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
        """The sheet as PNG, without the date or the program's version."""
        file = io.BytesIO()
        self._canvas.print_png(file, metadata={"Software": None})
        return file.getvalue()
