"""The colors, line styles and font that all charts and pictures share."""

from typing import Any

FONT = "DejaVu Sans"  # it comes with matplotlib, so pictures are the same everywhere
TEXT = 14  # the size of text in pixels
LETTER = 0.65  # the width of a letter over the font size, rounded up, since few fonts are wider

NIGHT, PAPER, CARD, SUNK = "#14122e", "#faf8f4", "#ffffff", "#f1ede5"
INK, SOFT, LINE = "#1c1a22", "#625c69", "#e4ded3"
PALE, PALER = "#b9b4d0", "#cbc7dc"  # for text on the dark band
LINES = (
    *("#b02a5b", "#0b757c", "#8f5d00", "#3957b5", "#47751d", "#7a3da3"),
    *("#0f6fa8", "#a8471a", "#5b5f66", "#007a52", "#a3217e", "#6b6a00"),
)
# The lines of a chart also differ in their dashes, for print and for color-blind readers.
DASHES: tuple[Any, ...] = (
    *("-", (0, (3.5, 2)), (0, (1, 1.6))),
    *((0, (5, 2, 1, 2)), (0, (2, 2)), (0, (7, 2.5))),
)

PAGE_COLORS = {
    **{color: f"var(--s{number})" for number, color in enumerate(LINES, 1)},
    **{INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)"},
    **{CARD: "var(--card)", SUNK: "var(--sunk)"},
}
"""The names of colors in the style sheet of the pages, which has a dark variant of each."""


def line_style(shade: int) -> tuple[str, Any]:
    """Returns color and dashes of a line; from the thirteenth on, colors repeat with new dashes."""
    again, place = divmod(shade - 1, len(LINES))
    return LINES[place], DASHES[(place + again) % len(DASHES)]
