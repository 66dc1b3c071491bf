"""Reads records: JSON objects that this program wrote and whose fields have known types.

Every record is read here, so that a damaged one is told in one line that names the file, the field,
what was expected, what was found, and what to do.
"""

import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_jax.errors import UserError
from wsss_jax.files import read_json

_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    type(None): "null",
}


def read_record(
    path: Path,
    fields: Mapping[str, Any],
    remedy: str,
    optional: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """Reads a record.

    Args:
      path: the file.
      fields: the types of the fields that the record must have. A name with dots, such as
        ``parts.seed``, stands for a field of an inner object. Types are those that Python has for
        JSON, such as ``dict[str, int]``, ``list[str]`` and ``int | None``; ``float`` allows
        whole numbers.
      remedy: what to do about a damaged file, which ends the message.
      optional: the types of fields that may also be missing.

    Raises:
      UserError: the file is missing, cannot be read or is not a JSON object, or a field is missing
        or of another type.
    """
    value = read_json(path, remedy)
    if not isinstance(value, dict):
        raise _other(path, "a record of this program, an object", value, remedy)
    check_fields(path, value, fields, remedy, optional)
    return value


def check_fields(
    path: Path,
    record: Mapping[str, Any],
    fields: Mapping[str, Any],
    remedy: str,
    optional: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Checks the fields of a record that was read from `path`; see `read_record`.

    Raises:
      UserError: a field is missing or of another type.
    """
    for name, kind in {**optional, **fields}.items():
        value: Any = record
        *outer, last = name.split(".")
        for part in outer:
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or last not in value:
            if name in fields:
                raise UserError(
                    f"expected {_name(kind)} as {name!r} in {path}, found no such field: {remedy}"
                )
        elif not _fits(value[last], kind):
            raise _other(path, f"{_name(kind)} as {name!r}", value[last], remedy)


def _other(path: Path, expected: str, found: Any, remedy: str) -> UserError:
    text = repr(found)
    shown = text if len(text) <= 40 else text[:37] + "..."
    word = _WORDS.get(type(found), type(found).__name__)
    return UserError(f"expected {expected} in {path}, found {word} ({shown}): {remedy}")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        (inner,) = typing.get_args(kind)
        return isinstance(value, list) and all(_fits(one, inner) for one in value)
    if typing.get_origin(kind) is dict:  # whose names are text in JSON
        inner = typing.get_args(kind)[1]
        return isinstance(value, dict) and all(_fits(one, inner) for one in value.values())
    if kind in (int, float) and isinstance(value, bool):  # which Python counts as a whole number
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # NaN is not
    return isinstance(value, kind)


def _name(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(map(_name, typing.get_args(kind)))
    if typing.get_origin(kind) is list:
        return f"a list (each element {_name(typing.get_args(kind)[0])})"
    if typing.get_origin(kind) is dict:
        return f"an object (each value {_name(typing.get_args(kind)[1])})"
    return _WORDS[kind]
