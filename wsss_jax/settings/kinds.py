"""Finds the kinds of a base class, one per module, in its room or anywhere else."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import typing
from typing import Any, ClassVar, TypeVar

from wsss_jax.errors import UserError, nearest

T = TypeVar("T")


def kind_of(base: type[T], name: str, where: str = "") -> type[T]:
    """Returns the subclass of `base` called `name`; see `Settings`.

    A mistake inside the module raises its own exception.

    Raises:
      UserError: there is no such module, or it has no class of the given name.
      TypeError: the module does not have exactly one such class, or the class is abstract or not a
        dataclass.
    """
    room = room_of(base)
    path, _, class_name = name.partition(":")
    module_name = path if "." in path or class_name else f"{room}.{path}"
    classes = _classes_in(module_name, base)
    if classes is None or (not classes and module_name.startswith(f"{room}.")):
        known = kind_names(base)
        raise UserError(
            f"expected {path_of(where, key_of(base))} to be one of {', '.join(known)}, or the"
            f" dotted name of a module, found {name!r}{_hint(base, name, known)}"
        )
    if class_name:
        chosen = [one for one in classes if one.__name__ == class_name]
        if classes and not chosen:
            names = [f"{path}:{one.__name__}" for one in classes]
            raise UserError(
                f"expected {path_of(where, key_of(base))} to name a {base.__name__} of the module"
                f" {path} ({', '.join(names)}), found {name!r}{nearest(name, names)}"
            )
    else:
        chosen = [one for one in classes if not inspect.isabstract(one)] or classes
    if len(chosen) != 1:
        names = ", ".join(kind.__name__ for kind in chosen) or "none"
        raise TypeError(
            f"expected one {base.__name__} in the module {module_name}, found {names}: name one as"
            f" {path}:CLASS"
        )
    _check_definition(chosen[0], base)
    return chosen[0]


def _hint(base: type, name: str, known: tuple[str, ...]) -> str:
    """Returns what to do about the name of a kind that does not exist."""
    path, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in path.split(".")):
        return nearest(name, known)
    if "." in path or class_name:
        return (
            f": there is no module {path} in the working directory, beside the recipe or among the"
            " installed packages"
        )
    own = _classes_in_source(path, base)
    return f": write {' or '.join(f'{path}:{one}' for one in own)}" if own else nearest(name, known)


def _classes_in_source(module_name: str, base: type) -> list[str]:
    """Returns the direct subclasses of `base` in a module that is not imported.

    A name that is only misspelled must not run a program that happens to be called so.
    """
    try:
        found = importlib.util.find_spec(module_name)
        loader: Any = None if found is None else found.loader
        source = loader.get_source(module_name) or ""
    except (AttributeError, ImportError, ValueError):
        return []  # There is no such module, or it has no source.
    return re.findall(rf"^class (\w+)\([^)]*\b{base.__name__}\b", source, re.MULTILINE)


def _check_definition(cls: type, base: type) -> None:
    """Refuses a class that cannot be created, or whose settings would be ignored.

    Raises:
      TypeError: the class lacks methods, or is not a dataclass although it annotates settings.
    """
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(cls.__abstractmethods__))
        raise TypeError(f"{cls.__name__} lacks {lacking}: every {base.__name__} has to define that")
    own = [
        name
        for name, hint in inspect.get_annotations(cls).items()
        if typing.get_origin(hint) is not ClassVar
        and hint is not ClassVar
        and not (isinstance(hint, str) and re.match(r"(\w+\.)?ClassVar\b", hint))
    ]
    if own and "__dataclass_fields__" not in vars(cls):
        raise TypeError(
            f"class {cls.__name__} is no dataclass, so its {', '.join(own)} would be no settings:"
            " decorate it with @dataclasses.dataclass(frozen=True, kw_only=True)"
        )


def kind_names(base: type) -> tuple[str, ...]:
    """Returns the sorted names of the modules in the room of `base` that have a kind of it."""
    room = room_of(base)
    package = importlib.import_module(room)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return tuple(name for name in sorted(names) if _kinds_in(f"{room}.{name}", base))


def _kinds_in(module_name: str, base: type[T]) -> list[type[T]]:
    """Returns the kinds of `base` that a module defines."""
    return [one for one in _classes_in(module_name, base) or () if not inspect.isabstract(one)]


def _classes_in(module_name: str, base: type[T]) -> list[type[T]] | None:
    """Returns the public subclasses of `base` that a module defines, also those that are abstract.

    If there is no such module, the result is None.
    """
    if not all(part.isidentifier() for part in module_name.split(".")):
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The missing module is this one or a package of it, and not one that it imports.
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            return None
        raise
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
        and value is not base
    ]


def name_of(cls: type) -> str:
    """Returns the name of a kind in a section, which is dotted if it is outside of the room."""
    room = room_of(cls)
    if cls.__module__.startswith(f"{room}."):
        return cls.__module__.removeprefix(f"{room}.")
    base = next(b for b in reversed(cls.__mro__) if room_of(b) == room and b is not cls)
    alone = len(_kinds_in(cls.__module__, base)) == 1 and "." in cls.__module__
    return cls.__module__ if alone else f"{cls.__module__}:{cls.__name__}"


def room_of(cls: type) -> str:
    """Returns the package of the kinds of `cls`, or "" if there are none; see `Settings`."""
    return getattr(cls, "room", "")


def key_of(cls: type) -> str:
    """Returns the key under which a section names its kind."""
    return getattr(cls, "key", "name")


def is_base(cls: type) -> bool:
    """Returns whether a class is the base of the kinds of a room, and not a kind itself."""
    return "room" in vars(cls)


def path_of(where: str, name: str) -> str:
    """Returns the path of a setting in a recipe, given the path of its section."""
    return f"{where}.{name}" if where else name
