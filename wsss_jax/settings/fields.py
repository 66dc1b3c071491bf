"""The fields of a dataclass that are settings, and what their docstring says of them."""

import dataclasses
import inspect
import re
import typing
from typing import Any

_SUPPLIED = "supplied"


def supplied(**options: Any) -> Any:
    """A field that is no setting: the program supplies it (the number of classes, for instance)."""
    return dataclasses.field(metadata={_SUPPLIED: True}, **options)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a class.

    Attributes:
      name: the key in a recipe.
      type: the annotation.
      default: the value where a recipe says nothing; `dataclasses.MISSING` where it has to.
      doc: the description in the class's docstring.
    """

    name: str
    type: Any
    default: Any
    doc: str


def settings_of(cls: type) -> dict[str, Setting]:
    """The settings of a dataclass (a Flax module is one, too), by name."""
    hints = typing.get_type_hints(cls)
    docs = _documented(cls)
    found = {}
    fields = dataclasses.fields(cls)
    # Flax gives every module both; a name alone is a setting like others.
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
    """Descriptions of fields, from the ``Attributes:`` of the docstrings of `cls` and its bases."""
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
