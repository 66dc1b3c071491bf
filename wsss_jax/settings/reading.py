"""Reads sections of a recipe strictly into typed objects."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from ml_collections import ConfigDict, FieldReference

from wsss_jax.errors import UserError, nearest
from wsss_jax.settings.fields import settings_of
from wsss_jax.settings.kinds import is_base, key_of, kind_names, kind_of, name_of, path_of, room_of

T = TypeVar("T")
Section = Mapping[str, Any] | ConfigDict
"""A part of a recipe, with values by name."""


def read(cls: type[T], section: Section, where: str = "", **given: Any) -> T:
    """Returns an object of `cls` with the settings of a recipe's section.

    Args:
      cls: a dataclass; one with a `room` stands for the kind that the section names.
      section: the values by name; settings that it does not have get their defaults.
      where: the path of the section in the recipe, for messages.
      **given: the values of fields that are not settings (see `supplied`); those that the class
        does not have are ignored.

    Raises:
      UserError: a key is unknown, a value has the wrong type or the class refuses it, or a setting
        without a default is missing.
    """
    kind, values = typed(cls, items_of(section), where)
    fields = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore
    accepted = {name: value for name, value in given.items() if name in fields}
    try:
        return kind(**values, **accepted)
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def items_of(section: Section) -> dict[str, Any]:
    """Returns the values of a section by name, where references stay references."""
    if isinstance(section, ConfigDict):
        return dict(section.items(preserve_field_references=True))  # pyright: ignore
    return dict(section)


def typed(cls: type[T], values: dict[str, Any], where: str) -> tuple[type[T], dict[str, Any]]:
    """Returns the kind of `cls` that the values name, and the settings in the values."""
    values = {n: v.get() if isinstance(v, FieldReference) else v for n, v in values.items()}
    if room_of(cls):
        name = values.pop(key_of(cls), None)
        if is_base(cls) or name not in (None, name_of(cls)):
            if not isinstance(name, str):
                raise UserError(
                    f"expected {path_of(where, key_of(cls))} to be one of"
                    f" {', '.join(kind_names(cls))}, found {'none' if name is None else repr(name)}"
                )
            cls = kind_of(cls, name, where)
    settings = settings_of(cls)
    for name in values:
        if name not in settings:
            raise UserError(_unknown(cls, str(name), tuple(settings), where))
    for name, setting in settings.items():
        if name not in values and setting.default is dataclasses.MISSING:
            raise UserError(
                f"expected {path_of(where, name)} ({expected(setting.type)}), found none: set it"
            )
    return cls, {n: convert(v, settings[n].type, path_of(where, n)) for n, v in values.items()}


def _unknown(cls: type, name: str, known: tuple[str, ...], where: str) -> str:
    near = nearest(name, known)
    listed = "" if near else f" (there are {', '.join(sorted(known)) or 'none'})"
    return f"{path_of(where, name)} is not a setting of {cls.__name__}{near}{listed}"


def convert(value: Any, hint: Any, where: str) -> Any:
    """Converts `value` to the annotated type `hint`.

    Whole numbers become numbers, lists become tuples, and mappings become dataclasses.

    Raises:
      UserError: the value has another type; `where` is its path in the recipe.
    """
    matched, result = _match(value, hint, where)
    if not matched:
        raise UserError(
            f"expected {where} to be {expected(hint)}, found {value!r}{choice(value, hint)}"
        )
    return result


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the annotation itself if it is not a union."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def reader_of(hint: Any) -> Any:
    """Returns the dataclass among the alternatives of an annotation, which reads a section."""
    classes = (one for one in alternatives(hint) if isinstance(one, type))
    return next((one for one in classes if dataclasses.is_dataclass(one)), None)


def element_of(hint: Any) -> Any:
    """Returns the annotation of the values of a section with free names, or None if any fit."""
    for one in alternatives(hint):
        origin = typing.get_origin(one)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            element = typing.get_args(one)[1]
            return None if element is Any else element
    return None


def choice(value: Any, hint: Any) -> str:
    """Returns `wsss_jax.errors.nearest` if the type `hint` is one of several words, or ""."""
    if typing.get_origin(hint) is typing.Literal and isinstance(value, str):
        return nearest(value, [str(choice) for choice in typing.get_args(hint)])
    return ""


def _match(value: Any, hint: Any, where: str) -> tuple[bool, Any]:
    """Returns whether `value` fits, and the converted value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True, value
    if origin in (typing.Union, types.UnionType):
        for one in arguments:
            matched, result = _match(value, one, where)
            if matched:
                return True, result
        return False, None
    if origin is typing.Literal:
        return any(value == c and type(value) is type(c) for c in arguments), value
    if origin is tuple:
        return _match_tuple(value, arguments, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping | ConfigDict):
            return False, None
        plain = value.to_dict() if isinstance(value, ConfigDict) else value
        return True, {str(k): convert(v, arguments[1], f"{where}.{k}") for k, v in plain.items()}
    if hint is None or hint is types.NoneType:
        return value is None, None
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping | ConfigDict):
            return True, read(hint, value, where)
        return isinstance(value, hint), value
    return _match_plain(value, hint)


def _match_plain(value: Any, hint: Any) -> tuple[bool, Any]:
    if hint is bool:
        return isinstance(value, bool | np.bool_), bool(value)
    number = not isinstance(value, bool | np.bool_)
    if hint is int:
        whole = number and isinstance(value, int | np.integer)
        return whole, int(value) if whole else None
    if hint is float:
        # No setting has a use for infinity, and a value that is no number passes comparisons.
        fits = number and isinstance(value, int | float | np.integer | np.floating)
        fits = fits and math.isfinite(value)
        return fits, float(value) if fits else None
    return isinstance(value, hint), value


def _match_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[bool, Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False, None
    repeated = len(arguments) == 2 and arguments[1] is Ellipsis
    if not repeated and len(value) != len(arguments):
        return False, None
    hints = [arguments[0]] * len(value) if repeated else arguments
    parts = [
        _match(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(value, hints, strict=True))
    ]
    return all(matched for matched, _ in parts), tuple(result for _, result in parts)


def expected(hint: Any) -> str:
    """Returns an annotation in words, such as ``a whole number`` or ``one of 'a', 'b'``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    if hint in words:
        return words[hint]
    if hint is Any:
        return "anything"
    if hint is None or hint is types.NoneType:
        return "None"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_brief(one) for one in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a tuple, each element {_brief(arguments[0])}"
        return f"a tuple of {len(arguments)}: {', '.join(map(_brief, arguments)) or 'empty'}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a section, each value {expected(arguments[1])}"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"a section with the settings of {hint.__name__}"
    return getattr(hint, "__name__", str(hint))


def _brief(hint: Any) -> str:
    """Returns a part of another annotation in words, where ``(a number, text)`` is a tuple."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or Ellipsis in arguments:
        return expected(hint)
    words = ", ".join(map(_brief, arguments))
    return f"({words},)" if len(arguments) == 1 else f"({words})"
