"""Typed settings: the base of everything that a recipe can configure.

Stages, methods, backbones, heads, augmentation, optimizers and data sets are dataclasses whose
fields are their settings. `read` turns a recipe's section into such an object, strictly: an
unknown key names the nearest setting, and a value of the wrong type says what was expected.
`complete` fills a section with all defaults, so that the command line can replace every setting.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from ml_collections import ConfigDict, FieldReference

from wsss_jax.settings.fields import Setting, settings_of, supplied
from wsss_jax.settings.kinds import key_of, kind_names, kind_of, name_of, room_of
from wsss_jax.settings.reading import (
    Section,
    alternatives,
    choice,
    convert,
    element_of,
    expected,
    items_of,
    read,
    reader_of,
    typed,
)

__all__ = [
    "Section",
    "Setting",
    "Settings",
    "alternatives",
    "choice",
    "complete",
    "convert",
    "element_of",
    "expected",
    "key_of",
    "kind_names",
    "kind_of",
    "name_of",
    "part",
    "plain",
    "read",
    "reader_of",
    "room_of",
    "settings_of",
    "supplied",
    "to_config",
]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The base class of frozen dataclasses whose fields are settings.

    The base class of several kinds, such as all methods, sets `room` to the package whose modules
    have one kind each. A section then names its kind under the key `key`. The name is that of a
    module in the room, the dotted name of any importable module, or ``module:Class``.
    """

    room: ClassVar[str] = ""
    key: ClassVar[str] = "name"

    def __post_init__(self) -> None:
        """Checks the values; subclasses that override this also call that of their base classes.

        Raises:
          UserError: a value is out of its range.
        """

    @classmethod
    def from_config(cls: type[T], section: Section, where: str = "", **given: Any) -> T:
        """Reads the settings of a recipe's section; see `read`."""
        return read(cls, section, where, **given)

    @classmethod
    def defaults(cls, kind: str | None = None, /, **changed: Any) -> ConfigDict:
        """Returns a complete section; see `complete`. `kind` names one of several subclasses."""
        return complete(cls, changed if kind is None else {cls.key: kind, **changed})


def complete(cls: type, changed: Section, where: str = "") -> ConfigDict:
    """Completes the section `changed` with defaults, so that it has every setting.

    References (`FieldReference`) in `changed` stay references.

    Raises:
      UserError: as in `read`, except for values that the class itself refuses.
    """
    items = items_of(changed)
    found = {n: v.get() if isinstance(v, FieldReference) else v for n, v in items.items()}
    kind, values = typed(cls, found, where)
    named = {key_of(cls): name_of(kind)} if room_of(cls) else {}
    defaults = {name: setting.default for name, setting in settings_of(kind).items()}
    section = _section(named | {n: plain(v) for n, v in (defaults | values).items()})
    for name, value in items.items():
        if isinstance(value, FieldReference):
            section[name] = value
        elif isinstance(value, ConfigDict) and isinstance(section.get(name), ConfigDict):
            _keep_references(section[name], value)
    return section


def to_config(settings: Any) -> ConfigDict:
    """Returns the complete section that `read` turns into an equal object."""
    cls = type(settings)
    named = {key_of(cls): name_of(cls)} if room_of(cls) else {}
    return _section(named | {n: plain(getattr(settings, n)) for n in settings_of(cls)})


def part(settings: Any, cls: type[T]) -> T:
    """Returns the settings that an object has from its base class `cls`, as an object of `cls`.

    Other processes get this object, because the class of `settings` can be in a module that imports
    JAX, which they must not import.
    """
    return cls(**{name: getattr(settings, name) for name in settings_of(cls)})


def plain(value: Any) -> Any:
    """Converts a value to that of a recipe, where sections stand for objects of settings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_config(value)
    if isinstance(value, Mapping):
        return _section({str(k): plain(v) for k, v in value.items()})
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    return value


def _section(values: dict[str, Any]) -> ConfigDict:
    # The class that reads the section checks types. A type-safe `ConfigDict` would only accept the
    # type of the first value, even if several are allowed, such as a number or a reference.
    return ConfigDict(values, type_safe=False)


def _keep_references(section: Any, given: Any) -> None:
    for name, value in given.items(preserve_field_references=True):
        if isinstance(value, FieldReference):
            section[name] = value
        elif isinstance(value, ConfigDict) and isinstance(section.get(name), ConfigDict):
            _keep_references(section[name], value)
