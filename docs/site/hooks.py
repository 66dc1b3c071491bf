"""What the site needs beyond MkDocs: formulas as MathML, and no links to files outside of it."""

import html
import re
from typing import Any

import latex2mathml.converter

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\(((?:\.\./)+(?:wsss_jax|examples|tests|configs|benchmarks)/[^)]+)\)"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Shows the path of a source file in place of a link, because the site has no such page."""
    return _OUTSIDE.sub(lambda match: f"`{match[1]}`", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers show without a library."""
    return _FORMULA.sub(_formula, content)


def _formula(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    return latex2mathml.converter.convert(html.unescape(match[3]), display=display)
