"""Sections of a recipe become typed objects, strictly."""

import dataclasses
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
"""A part of a recipe: values by name."""


def read(cls: type[T], section: Section, where: str = "", **given: Any) -> T:
    """An object of `cls` whose settings are those of a recipe's section.

    Args:
      cls: a dataclass. One with a `room` stands for the kind that the section names.
      section: values by name; what is not there has its default.
      where: path of the section in the recipe, for messages.
      **given: values of fields that are no settings, see `supplied`; those that the class does not
        have are left out.

    Raises:
      UserError: an unknown key, a value of the wrong type or one that the class refuses, or a
        setting without default that is missing.
    """
    kind, values = typed(cls, items_of(section), where)
    fields = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore
    accepted = {name: value for name, value in given.items() if name in fields}
    try:
        return kind(**values, **accepted)
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def items_of(section: Section) -> dict[str, Any]:
    """The values of a section by name, its references as such."""
    if isinstance(section, ConfigDict):
        return dict(section.items(preserve_field_references=True))  # pyright: ignore
    return dict(section)


def typed(cls: type[T], values: dict[str, Any], where: str) -> tuple[type[T], dict[str, Any]]:
    """The kind of `cls` that the values name, and those of its settings that they hold."""
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
    return f"{path_of(where, name)} is no setting of {cls.__name__}{near}{listed}"


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as a value of the annotated type `hint`, or a refusal.

    Whole numbers stand for numbers, lists for tuples and mappings for dataclasses.

    Raises:
      UserError: the value is of another type; `where` is its path in the recipe.
    """
    matched, result = _match(value, hint, where)
    if not matched:
        raise UserError(
            f"expected {where} to be {expected(hint)}, found {value!r}{choice(value, hint)}"
        )
    return result


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The annotations of which `hint` is the union; itself where it is none."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def reader_of(hint: Any) -> Any:
    """The dataclass among the alternatives of an annotation that reads a section, or None."""
    classes = (one for one in alternatives(hint) if isinstance(one, type))
    return next((one for one in classes if dataclasses.is_dataclass(one)), None)


def element_of(hint: Any) -> Any:
    """What an annotation says of the values of a section with free names; None for nothing."""
    for one in alternatives(hint):
        origin = typing.get_origin(one)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            element = typing.get_args(one)[1]
            return None if element is Any else element
    return None


def choice(value: Any, hint: Any) -> str:
    """As `wsss_jax.errors.nearest`, where the type `hint` is one of several words."""
    if typing.get_origin(hint) is typing.Literal and isinstance(value, str):
        return nearest(value, [str(choice) for choice in typing.get_args(hint)])
    return ""


def _match(value: Any, hint: Any, where: str) -> tuple[bool, Any]:
    """Whether `value` fits, and what it becomes."""
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
        fits = number and isinstance(value, int | float | np.integer | np.floating)
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
    """An annotation in words: ``a whole number``, ``a tuple of numbers``, ``one of 'a', 'b'``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    if hint in words:
        return words[hint]
    if hint is Any:
        return "anything"
    if hint is None or hint is types.NoneType:
        return "None"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expected(one) for one in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a tuple, each element {expected(arguments[0])}"
        return (
            f"a tuple of {len(arguments)}: {', '.join(expected(a) for a in arguments) or 'empty'}"
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a section, each value {expected(arguments[1])}"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"a section with the settings of {hint.__name__}"
    return getattr(hint, "__name__", str(hint))
