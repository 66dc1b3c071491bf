"""Replaces values of a recipe by those of the command line, ``--config.KEY=VALUE``.

The class that reads a section determines its settings and their types. In a section that no class
reads, its present values determine them.
"""

import ast
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from wsss_jax.errors import UserError, nearest
from wsss_jax.files import flatten
from wsss_jax.settings import (
    alternatives,
    choice,
    complete,
    convert,
    element_of,
    expected,
    key_of,
    kind_of,
    plain,
    reader_of,
    room_of,
    settings_of,
)

_OVERRIDE = re.compile(r"--(?P<off>no)?config\.(?P<key>[^=]+)(=(?P<text>.*))?", re.DOTALL)
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_ANY = "*"  # This stands for every name in a section whose names are free.


class _Unknown(UserError):
    """The setting does not exist, or only will when another override has changed the kind."""


def replace(config: ConfigDict, overrides: Sequence[str], readers: Mapping[str, Any]) -> None:
    """Replaces values of a recipe; the last of several values for one key counts.

    References stay references: setting a value that several stages share sets it for all of them.
    If a section gets another kind, such as another method, it keeps the values of settings that
    both kinds have if they differ from the defaults of the old kind. All other settings get the
    defaults of the new kind.

    Args:
      config: the recipe.
      overrides: ``--config.KEY=VALUE``, or ``--config.KEY`` and ``--noconfig.KEY`` for True and
        False.
      readers: the classes that read its sections, by the names of the sections.

    Raises:
      UserError: a key is unknown (the nearest one is named), or a value does not fit.
    """
    matches = map(_matched, overrides)
    given = {match["key"]: "false" if match["off"] else match["text"] for match in matches}
    waiting, done = tuple(given), []
    while waiting:
        refused: dict[str, _Unknown] = {}
        for key in waiting:
            try:
                _replace(config, key, given[key], readers)
            except _Unknown as error:
                refused[key] = error
            else:
                done.append(key)
        if len(refused) == len(waiting):
            raise next(iter(refused.values()))
        waiting = tuple(refused)
    # A change of a kind drops values that were the defaults of the old kind, or that the new kind
    # does not have. Values of the command line are meant for the new kind, so they are set again.
    for key in done:
        _replace(config, key, given[key], readers)


def overridden(overrides: Iterable[str]) -> set[str]:
    """Returns the keys that the command line sets."""
    return {_matched(override)["key"] for override in overrides}


def _matched(override: str) -> re.Match[str]:
    match = _OVERRIDE.fullmatch(override)
    if match is None or (match["off"] and match["text"] is not None):
        raise UserError(f"expected --config.KEY=VALUE, found {override}")
    return match


def _replace(config: ConfigDict, key: str, text: str | None, readers: Mapping[str, Any]) -> None:
    *path, name = key.split(".")
    section: Any = config
    hints: Mapping[str, Any] = readers
    base: Any = None
    for depth, part in enumerate(path, 1):
        hint = hints.get(part, hints.get(_ANY))
        section = section.get(part)
        if not isinstance(section, ConfigDict):
            raise _unknown(config, key)
        base, hints = _settings(hint, section, ".".join(path[:depth]))
    where = f"--config.{key}"
    if base is not None and name == key_of(base):
        _change_kind(section, base, _value(text, str, where), "--config." + ".".join(path))
    elif name in section or name in hints or _ANY in hints:
        hint = hints.get(name, hints.get(_ANY))
        _set(section, name, _value(text, hint or _type_of(section[name]), where))
    else:
        raise _unknown(config, key)


def _settings(hint: Any, section: ConfigDict, where: str) -> tuple[Any, Mapping[str, Any]]:
    """Returns the base class of a section's kinds, if it has kinds, and its settings' types."""
    cls = reader_of(hint)
    if cls is None:
        element = element_of(hint)
        return None, {} if element is None else {_ANY: element}
    base = cls if room_of(cls) else None
    values: Any = section
    kind = cls if base is None else kind_of(base, values[key_of(base)], where)
    return base, {name: setting.type for name, setting in settings_of(kind).items()}


def _type_of(value: Any) -> Any:
    """Returns the type of a value that no class describes."""
    if isinstance(value, ConfigDict):
        return Mapping[str, Any]
    if isinstance(value, tuple):
        kinds = {type(element) for element in value}
        return tuple[kinds.pop() if len(kinds) == 1 else Any, ...]
    return Any if value is None else type(value)


def _value(text: str | None, hint: Any, where: str) -> Any:
    """Converts a text of the command line to a value of the annotated type `hint`."""
    for reading in (True,) if text is None else _readings(text, hint):
        try:
            return plain(convert(reading, hint, where))
        except UserError:
            if isinstance(reading, Mapping):
                raise  # The message says which of the values does not fit.
    found = "no value" if text is None else repr(text)
    raise UserError(f"expected {where} to be {expected(hint)}, found {found}{choice(text, hint)}")


def _readings(text: str, hint: Any) -> Iterator[Any]:
    """Yields the values that a text can stand for, the likeliest first."""
    if hint is str:
        yield text
        return
    hints = alternatives(hint)
    if bool in hints and text.lower() in _TRUTHS:
        yield _TRUTHS[text.lower()]
    try:
        literal = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        literal = None
    else:
        if not isinstance(literal, str):
            yield literal
    if any(typing.get_origin(one) is tuple for one in hints):
        if literal is not None and not isinstance(literal, tuple | list | dict):
            yield (literal,)
        yield tuple(part.strip() for part in text.split(","))
    yield text


def _set(section: ConfigDict, name: str, value: Any) -> None:
    values: dict[str, Any] = dict(section.items(preserve_field_references=True))  # pyright: ignore
    if isinstance(values.get(name), FieldReference):
        values[name].set(value, type_safe=False)
        return
    with section.unlocked(), section.ignore_type():
        section[name] = value


def _change_kind(section: ConfigDict, base: Any, name: str, where: str) -> None:
    """Changes the kind of a section to another one of `base`."""
    kind = kind_of(base, name, where)
    settings = settings_of(kind)
    values: dict[str, Any] = dict(section.items(preserve_field_references=True))  # pyright: ignore
    old = kind_of(base, values[key_of(base)], where)
    if kind is old:
        kept = values
    else:
        defaults = {n: setting.default for n, setting in settings_of(old).items()}
        kept = {
            n: v
            for n, v in values.items()
            if n in settings
            and (isinstance(v, FieldReference) or n not in defaults or not _is(v, defaults[n]))
            and _fits(v, settings[n].type)
        }
    fresh = complete(base, {**kept, key_of(base): name}, where)
    with section.unlocked(), section.ignore_type():
        for gone in [n for n in section if n not in fresh]:
            del section[gone]
        for new in [n for n in fresh if n not in section or n not in kept]:
            section[new] = fresh[new]


def _is(value: Any, default: Any) -> bool:
    """Returns whether a value of a recipe is the default, which can be an object of settings."""
    if isinstance(value, ConfigDict):
        given = plain(default)
        return isinstance(given, ConfigDict) and value.to_dict() == given.to_dict()
    return value == default


def _fits(value: Any, hint: Any) -> bool:
    try:
        convert(value.get() if isinstance(value, FieldReference) else value, hint, "")
    except UserError:
        return False
    return True


def _unknown(config: ConfigDict, key: str) -> _Unknown:
    keys = [known for known, _ in flatten(config)]
    meant = _nearest_key(key, keys)
    return _Unknown(f"the config has no value {key}{meant} (--dry_run --details lists all values)")


def _nearest_key(key: str, keys: Iterable[str]) -> str:
    """Like `nearest`, but in a section that exists, only names a value with a similar last name."""
    section, _, name = key.rpartition(".")
    siblings = [k for k in keys if k.rpartition(".")[0] == section]
    if not siblings:
        return nearest(key, keys)
    own = {k.rpartition(".")[2]: k for k in siblings}
    found = difflib.get_close_matches(name, list(own), n=1, cutoff=0.6)
    return f"; did you mean {own[found[0]]}?" if found else ""
