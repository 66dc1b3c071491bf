"""Finds the settings of a recipe that differ from the defaults of the classes that read it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.settings import element_of, key_of, kind_of, plain, reader_of, room_of, settings_of

_NONE = dataclasses.MISSING


def differences(section: ConfigDict, reader: type) -> Iterator[tuple[str, Any, str]]:
    """Yields the settings of a complete section that differ from their defaults or have none.

    Args:
      section: a section that `wsss_jax.settings.complete` has made.
      reader: the class that reads the section, or the base class of several kinds.

    Yields:
      The path in the section, the value, and the default as text, which is empty if there is no
      default.
    """
    for path, value, default in _in_section(section, reader, _NONE):
        yield path, value, "" if default is _NONE else repr(default)


def _in_section(section: Any, hint: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    reader = reader_of(hint)
    if reader is None:
        element = element_of(hint)
        given = default if isinstance(default, Mapping) else {}
        for name, value in section.items():
            yield from _of_value(name, value, element, given.get(name, _NONE))
        return
    kind = reader
    given = plain(default) if dataclasses.is_dataclass(default) else {}
    if room_of(reader):
        key = key_of(reader)
        kind = kind_of(reader, section[key])
        if given.get(key) != section[key]:
            yield key, section[key], given.get(key, _NONE)
            given = {}
    for name, setting in settings_of(kind).items():
        yield from _of_value(name, section[name], setting.type, given.get(name, setting.default))


def _of_value(name: str, value: Any, hint: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(value, ConfigDict) and (value or reader_of(hint)):
        for path, inner, inner_default in _in_section(value, hint, default):
            yield f"{name}.{path}", inner, inner_default
    elif default is _NONE or _bare(default) != _bare(value):
        yield name, _bare(value), default


def _bare(value: Any) -> Any:
    # ConfigDicts with the same values are unequal if only one of them is locked.
    section = plain(value)
    return section.to_dict() if isinstance(section, ConfigDict) else section
