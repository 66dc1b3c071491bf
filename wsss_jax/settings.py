"""Typed settings: the base of everything that a recipe can configure.

Stages, methods, backbones, heads, augmentation, optimizers and data sets are dataclasses whose
fields are their settings. `read` turns a recipe's section into such an object, strictly: an
unknown key names the nearest setting, and a value of the wrong type says what was expected.
`complete` fills a section with all defaults, so that the command line can replace every setting.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from ml_collections import ConfigDict, FieldReference

from wsss_jax.errors import UserError, nearest

T = TypeVar("T")
Section = Mapping[str, Any] | ConfigDict
"""A part of a recipe: values by name."""

_SUPPLIED = "supplied"


def supplied(**options: Any) -> Any:
    """A field that is no setting: the program supplies it (the number of classes, for instance)."""
    return dataclasses.field(metadata={_SUPPLIED: True}, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of frozen dataclasses whose fields are settings.

    A base class of several kinds (of all methods, say) sets `room` to the package whose modules
    hold one kind each. A section then names its kind under the key `key`: the name of a module in
    that room, the dotted name of any importable module, or ``module:Class``.
    """

    room: ClassVar[str] = ""
    key: ClassVar[str] = "name"

    def __post_init__(self) -> None:
        """Refuses values that make no sense; a subclass that does calls its base classes' too.

        Raises:
          UserError: one of the values makes no sense.
        """

    @classmethod
    def from_config(cls: type[T], section: Section, where: str = "", **given: Any) -> T:
        """The settings of a recipe's section; see `read`."""
        return read(cls, section, where, **given)

    @classmethod
    def defaults(cls, kind: str | None = None, /, **changed: Any) -> ConfigDict:
        """A complete section; see `complete`. `kind` names a subclass where there are several."""
        return complete(cls, changed if kind is None else {cls.key: kind, **changed})


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


def kind_of(base: type[T], name: str, where: str = "") -> type[T]:
    """The subclass of `base` called `name`, see `Settings`.

    Raises:
      UserError: there is no such module. A mistake inside the module is shown as itself.
      TypeError: the module does not hold exactly one such class.
    """
    room = room_of(base)
    path, _, class_name = name.partition(":")
    module_name = path if "." in path or class_name else f"{room}.{path}"
    kinds = _kinds_in(module_name, base)
    if kinds is None or (not kinds and module_name.startswith(f"{room}.")):
        known = kind_names(base)
        raise UserError(
            f"expected {_path(where, key_of(base))} to be one of {', '.join(known)}, or the dotted"
            f" name of a module, found {name!r}{nearest(name, known)}"
        )
    chosen = [kind for kind in kinds if not class_name or kind.__name__ == class_name]
    if len(chosen) != 1:
        names = ", ".join(kind.__name__ for kind in kinds) or "none"
        raise TypeError(
            f"expected one {base.__name__} in the module {module_name}, found {names}: name one as"
            f" {path}:CLASS"
        )
    return chosen[0]


def kind_names(base: type) -> tuple[str, ...]:
    """Names of the modules in the room of `base` that hold a kind of it, sorted."""
    room = room_of(base)
    package = importlib.import_module(room)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return tuple(name for name in sorted(names) if _kinds_in(f"{room}.{name}", base))


def _kinds_in(module_name: str, base: type[T]) -> list[type[T]] | None:
    """The kinds of `base` that a module defines; None where there is no such module."""
    if not all(part.isidentifier() for part in module_name.split(".")):
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The module itself, or a package that it would be in; not something that it imports.
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            return None
        raise
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
        and not value.__name__.startswith("_")
        and value is not base
    ]


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
    kind, values = _typed(cls, _items(section), where)
    fields = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore
    accepted = {name: value for name, value in given.items() if name in fields}
    try:
        return kind(**values, **accepted)
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def complete(cls: type, changed: Section, where: str = "") -> ConfigDict:
    """The section that `read` reads the same as `changed`, with every setting in it.

    References (`FieldReference`) in `changed` stay references.

    Raises:
      UserError: see `read`; but what only the class itself refuses is not found here.
    """
    items = _items(changed)
    found = {n: v.get() if isinstance(v, FieldReference) else v for n, v in items.items()}
    kind, values = _typed(cls, found, where)
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
    """The complete section that `read` turns into an equal object."""
    cls = type(settings)
    named = {key_of(cls): name_of(cls)} if room_of(cls) else {}
    return _section(named | {n: plain(getattr(settings, n)) for n in settings_of(cls)})


def part(settings: Any, cls: type[T]) -> T:
    """The settings that an object has from its base class `cls`, as an object of it.

    It is what other processes are given: the class of `settings` may be of a module that imports
    JAX, and they must not.
    """
    return cls(**{name: getattr(settings, name) for name in settings_of(cls)})


def _items(section: Section) -> dict[str, Any]:
    if isinstance(section, ConfigDict):
        return dict(section.items(preserve_field_references=True))  # pyright: ignore
    return dict(section)


def _typed(cls: type[T], values: dict[str, Any], where: str) -> tuple[type[T], dict[str, Any]]:
    """The kind of `cls` that the values name, and those of its settings that they hold."""
    values = {n: v.get() if isinstance(v, FieldReference) else v for n, v in values.items()}
    if room_of(cls):
        name = values.pop(key_of(cls), None)
        if not isinstance(name, str):
            raise UserError(
                f"expected {_path(where, key_of(cls))} to be one of {', '.join(kind_names(cls))},"
                f" found {'none' if name is None else repr(name)}"
            )
        cls = kind_of(cls, name, where)
    settings = settings_of(cls)
    for name in values:
        if name not in settings:
            raise UserError(_unknown(cls, str(name), tuple(settings), where))
    for name, setting in settings.items():
        if name not in values and setting.default is dataclasses.MISSING:
            raise UserError(
                f"expected {_path(where, name)} ({expected(setting.type)}), found none: set it"
            )
    return cls, {n: convert(v, settings[n].type, _path(where, n)) for n, v in values.items()}


def _unknown(cls: type, name: str, known: tuple[str, ...], where: str) -> str:
    near = nearest(name, known)
    listed = "" if near else f" (there are {', '.join(sorted(known)) or 'none'})"
    return f"{_path(where, name)} is no setting of {cls.__name__}{near}{listed}"


def room_of(cls: type) -> str:
    """The package of the kinds of `cls`; empty where there is no choice. See `Settings`."""
    return getattr(cls, "room", "")


def key_of(cls: type) -> str:
    """The key under which a section names its kind."""
    return getattr(cls, "key", "name")


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _keep_references(section: Any, given: Any) -> None:
    for name, value in given.items(preserve_field_references=True):
        if isinstance(value, FieldReference):
            section[name] = value
        elif isinstance(value, ConfigDict) and isinstance(section.get(name), ConfigDict):
            _keep_references(section[name], value)


def name_of(cls: type) -> str:
    """What a section calls a kind: its module's name in its room, or a dotted name."""
    room = room_of(cls)
    if cls.__module__.startswith(f"{room}."):
        return cls.__module__.removeprefix(f"{room}.")
    base = next(b for b in reversed(cls.__mro__) if room_of(b) == room and b is not cls)
    alone = len(_kinds_in(cls.__module__, base) or ()) == 1 and "." in cls.__module__
    return cls.__module__ if alone else f"{cls.__module__}:{cls.__name__}"


def plain(value: Any) -> Any:
    """A value as a recipe holds it: objects of settings become their sections."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_config(value)
    if isinstance(value, Mapping):
        return _section({str(k): plain(v) for k, v in value.items()})
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    return value


def _section(values: dict[str, Any]) -> ConfigDict:
    # Types are those of the class that reads the section. A `ConfigDict` would hold the type of
    # the first value against all later ones, where several are allowed: a number or a reference.
    return ConfigDict(values, type_safe=False)


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
