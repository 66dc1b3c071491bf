"""Finds the fields of a dataclass that are settings, and their descriptions in the docstring."""

import dataclasses
import inspect
import re
import typing
from typing import Any

_SUPPLIED = "supplied"


def supplied(**options: Any) -> Any:
    """Returns a field that is not a setting, but supplied by the program, like `num_classes`."""
    return dataclasses.field(metadata={_SUPPLIED: True}, **options)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting of a class.

    Attributes:
      name: the key in a recipe.
      type: the annotation.
      default: the default, or `dataclasses.MISSING` if a recipe has to set it.
      doc: the description in the docstring of the class.
    """

    name: str
    type: Any
    default: Any
    doc: str


def settings_of(cls: type) -> dict[str, Setting]:
    """Returns the settings of a dataclass (Flax modules are dataclasses too), by name."""
    hints = typing.get_type_hints(cls)
    docs = _documented(cls)
    found = {}
    fields = dataclasses.fields(cls)
    # Flax adds both fields to every module; in other classes, a name is a setting like others.
    given = {"parent", "name"} if "parent" in {field.name for field in fields} else set()
    for field in fields:
        if field.metadata.get(_SUPPLIED) or not field.init or field.name in given:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = Setting(
            field.name, hints[field.name], default, docs.get(field.name, "")
        )
    return found


def _documented(cls: type) -> dict[str, str]:
    """Returns descriptions of fields from ``Attributes:`` in the docstrings of `cls` and bases."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        doc = inspect.cleandoc(one.__dict__.get("__doc__") or "")
        part = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
        if not part:
            continue
        for entry in re.split(r"\n(?=  \S)", "\n" + part[1].rstrip()):
            names, _, text = entry.strip().partition(":")
            for name in names.split(","):
                found[name.strip()] = " ".join(text.split())
    return found
