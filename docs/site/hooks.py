"""What the site needs beyond MkDocs: formulas as MathML, and no links to files outside of it."""

import html
import json
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\(((?:\.\./)+(?:wsss_jax|examples|tests|configs|benchmarks)/[^)]+)\)"
)


_NOTEBOOK = re.compile(r"<!-- cells of (\w+\.ipynb) -->")
_NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the cells of a notebook where a page names it.

    The path of a source file is shown in place of a link, because the site has no such page.
    """
    markdown = _NOTEBOOK.sub(lambda match: cells_of(_NOTEBOOKS / match[1]), markdown)
    return _OUTSIDE.sub(lambda match: f"`{match[1]}`", markdown)


def cells_of(path: Path) -> str:
    """Returns the cells of a notebook as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts)


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers show without a library."""
    return _FORMULA.sub(_formula, content)


def _formula(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    return latex2mathml.converter.convert(html.unescape(match[3]), display=display)
