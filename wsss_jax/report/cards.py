"""Cards with charts on a sheet, and the colours of all pictures."""

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wsss_jax.report.sheet import Pixels, Sheet
from wsss_jax.viz.labelled import FONT

NIGHT, PAPER, CARD = "#14122e", "#faf8f4", "#ffffff"
INK, SOFT, LINE = "#1c1a22", "#625c69", "#e4ded3"
PALE, PALER = "#b9b4d0", "#cbc7dc"  # text on the dark band
LINES = ("#b02a5b", "#0b757c", "#8f5d00", "#3957b5", "#47751d", "#7a3da3")
STYLES: tuple[Any, ...] = (
    *("-", (0, (5, 3)), (0, (1.2, 2))),
    *((0, (6, 2, 1, 2)), (0, (3, 3)), (0, (9, 3))),
)


def chart_card(
    sheet: Sheet, left: Pixels, top: Pixels, width: Pixels, height: Pixels, title: str
) -> Axes:
    """A card with a title and empty axes on it."""
    sheet.card(left, top, width, height, CARD, LINE)
    sheet.text(left + 22, top + 36, title, 18, INK, bold=True)
    axes = sheet.axes(left + 62, top + 58, width - 88, height - 112)
    axes.set_facecolor("none")
    axes.grid(axis="y", color=LINE, lw=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=7, labelsize=10, labelcolor=SOFT, labelfontfamily=FONT)
    axes.spines[:].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.01)
    return axes


def finish_axes(
    axes: Axes, x_name: str, legend: Literal["", "lower center", "upper right"] = ""
) -> None:
    """The name of the x axis, and the legend where one is wanted."""
    axes.set_xlabel(x_name, fontsize=10, color=SOFT, loc="right", fontfamily=FONT)
    if legend:
        font = {"family": FONT, "size": 10}
        axes.legend(frameon=False, loc=legend, labelcolor=INK, handlelength=2.2, prop=font)
