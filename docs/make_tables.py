"""Writes docs/settings.md, tables of all settings, and the table of weights in docs/weights.md.

    python docs/make_tables.py

The tables are made from the classes that read settings, and from the catalogue of weights.
`make docs-tables` does the same. Tests hold both pages current.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsss_jax.data.augment import Augment
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.views import LocalCrops, StrongView
from wsss_jax.methods.base import Method
from wsss_jax.models.base import Backbone
from wsss_jax.models.heads.base import Head
from wsss_jax.pipeline.recipe import Recipe
from wsss_jax.settings import (
    Setting,
    element_of,
    expected,
    kind_names,
    kind_of,
    name_of,
    plain,
    reader_of,
    room_of,
    settings_of,
)
from wsss_jax.stages.base import Stage
from wsss_jax.training.evaluators.base import Evaluator
from wsss_jax.training.optimizer import OptimizerSettings
from wsss_jax.weights.published import PUBLISHED

PAGE = Path(__file__).with_name("settings.md")
WEIGHTS_PAGE = Path(__file__).with_name("weights.md")
WEIGHTS_HEAD = """\
| name | what it is | trained on | license | MB | file | who publishes it |
|---|---|---|---|---|---|---|
"""

GROUPS: dict[str, tuple[type, ...]] = {
    "General settings": (Recipe,),
    "Stages": (Stage,),
    "Methods": (Method,),
    "Backbones": (Backbone,),
    "Heads": (Head,),
    "Optimizer": (OptimizerSettings,),
    "Evaluators": (Evaluator,),
    "Augmentation": (Augment, StrongView, LocalCrops),
    "Data sets": (DataSettings,),
}
"""Classes by the title above their tables; a class of several kinds stands for all of them."""

_INTRODUCTION = """\
# Settings

<!-- Made by `make docs-tables` from the classes that read a recipe; changes made here are lost. -->

These are the settings of every section of a recipe. A setting that a section does not name has
its default; one that is required has none. On the command line `--config.SECTION.SETTING=VALUE`
replaces any of them. [recipes.md](recipes.md) tells what the stages do and how a recipe is written.
"""


def page() -> str:
    """The whole page.

    Raises:
      ValueError: a setting without a description.
    """
    parts = (part for title, bases in GROUPS.items() for part in _group(title, bases))
    return "\n".join([_INTRODUCTION, *parts])


def weights_page() -> str:
    """The page of weights, with the table of published weights as it should be."""
    before, _, rest = WEIGHTS_PAGE.read_text(encoding="utf-8").partition(WEIGHTS_HEAD)
    rows = ""
    for one in PUBLISHED:
        cells = (f"`{one.name}`", one.title, one.data, one.license, f"{one.megabytes:.0f}")
        rows += f"| {' | '.join((*cells, f'`{one.files[0]}`', one.publisher))} |\n"
    return before + WEIGHTS_HEAD + rows + rest[rest.index("\n\n") + 1 :]


def kinds(base: type) -> tuple[type, ...]:
    """The classes that a section of `base` may name, or `base` alone."""
    if not room_of(base):
        return (base,)
    return tuple(kind_of(base, name) for name in kind_names(base))


def _group(title: str, bases: tuple[type, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    for base in bases:
        for cls in kinds(base):
            yield _table(cls)


def _table(cls: type) -> str:
    text = inspect.cleandoc(cls.__doc__ or "").split("\nAttributes:")[0].strip()
    name = name_of(cls) if room_of(cls) else cls.__name__
    lines = [f"### {name}\n", _markdown(text), ""]
    settings = settings_of(cls)
    if settings:
        lines += ["| setting | value | default | meaning |", "|---|---|---|---|"]
    lines += [_row(cls, setting) for setting in settings.values()]
    return "\n".join([*lines, ""])


def _row(cls: type, setting: Setting) -> str:
    if not setting.doc:
        raise ValueError(f"{cls.__module__}.{cls.__name__} does not describe {setting.name}")
    default = setting.default
    if default is dataclasses.MISSING:
        shown = "required"
    elif dataclasses.is_dataclass(default):
        shown = "its defaults"
    else:
        shown = f"`{plain(default)!r}`" if default != {} else "none"
    cells = (f"`{setting.name}`", _value(setting.type), shown, _markdown(setting.doc))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(hint: Any) -> str:
    """A type in words, with a link where it is a section."""
    words = _plural(expected(hint))
    reader = reader_of(hint) or reader_of(element_of(hint))
    for title, bases in GROUPS.items():
        if reader in bases:
            link = title.lower().replace(" ", "-") if room_of(reader) else reader.__name__.lower()
            phrase = f"a section with the settings of {reader.__name__}"
            return words.replace(phrase, f"a section of [{title.lower()}](#{link})")
    return words


def _plural(words: str) -> str:
    """``a tuple, each element a number`` in short: ``numbers``."""
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers")):
        count = re.search(rf"\({one}(?:, {one})*\)", words)
        if count:
            words = words.replace(count[0], f"{count[0].count(one)} {many}")
        words = words.replace(f"a tuple, each element {one}", many)
        words = re.sub(rf"a tuple of (\d): {one}(?:, {one})*", rf"\1 {many}", words)
    return words.replace("a tuple, each element text", "texts")


def _markdown(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    WEIGHTS_PAGE.write_text(weights_page(), encoding="utf-8")
