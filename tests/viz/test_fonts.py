"""Names in scripts that the common font lacks."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.font_manager import findfont

from wsss_jax.viz import fonts
from wsss_jax.viz.labeled import labeled_mask
from wsss_jax.viz.sheet import Sheet
from wsss_jax.viz.style import FONT

NOWHERE = "\U0010fffd" * 2  # for private use: no font has it


def other_letter() -> str:
    """A letter that a font of matplotlib has and the common one has not."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    common = fonts._characters(findfont(FONT))
    others = frozenset().union(*(fonts._characters(str(path)) for path in folder.glob("[!L]*.ttf")))
    return min(others - common - {chr(n) for n in range(32)})


def test_the_common_font_comes_first():
    assert fonts.font_for("a cat, Käse, рысь") == (FONT, findfont(FONT))
    found = fonts.font_for(other_letter())
    assert found is not None and found[0] != FONT
    assert fonts.font_for(NOWHERE) is None and fonts.font_for("a" + NOWHERE) is None


def test_a_name_that_no_font_can_write_is_a_number():
    assert fonts.readable("cat", 2) == "cat" and fonts.readable(NOWHERE, 2) == "class 2"
    image, mask = np.full((60, 200, 3), 90, np.uint8), np.zeros((60, 200), np.uint8)
    mask[10:40, 10:60], mask[10:40, 90:120] = 1, 2
    made = labeled_mask(image, mask, ("cat", NOWHERE))
    np.testing.assert_array_equal(made, labeled_mask(image, mask, ("cat", "class 2")))
    assert (made != labeled_mask(image, mask, ("cat", "dog"))).any()


@pytest.mark.parametrize("text", [other_letter(), "cat"])
def test_letters_of_other_fonts_are_drawn(text):
    """The picture of a letter is not that of a missing one."""

    def drawn(shown: str) -> bytes:
        sheet = Sheet(80, 40, "#ffffff")
        sheet.text(5, 30, shown, 24, "#000000")
        return sheet.png()

    assert len({drawn(text), drawn(NOWHERE[0] * len(text)), drawn("")}) == 3
