"""Finds the kinds of a base class, one per module, in its room or anywhere else."""

import importlib
import inspect
import pkgutil
from typing import TypeVar

from wsss_jax.errors import UserError, nearest

T = TypeVar("T")


def kind_of(base: type[T], name: str, where: str = "") -> type[T]:
    """Returns the subclass of `base` called `name`; see `Settings`.

    A mistake inside the module raises its own exception.

    Raises:
      UserError: there is no such module.
      TypeError: the module does not have exactly one such class.
    """
    room = room_of(base)
    path, _, class_name = name.partition(":")
    module_name = path if "." in path or class_name else f"{room}.{path}"
    kinds = _kinds_in(module_name, base)
    if kinds is None or (not kinds and module_name.startswith(f"{room}.")):
        known = kind_names(base)
        raise UserError(
            f"expected {path_of(where, key_of(base))} to be one of {', '.join(known)}, or the"
            f" dotted name of a module, found {name!r}{nearest(name, known)}"
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
    """Returns the sorted names of the modules in the room of `base` that have a kind of it."""
    room = room_of(base)
    package = importlib.import_module(room)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return tuple(name for name in sorted(names) if _kinds_in(f"{room}.{name}", base))


def _kinds_in(module_name: str, base: type[T]) -> list[type[T]] | None:
    """Returns the kinds of `base` that a module defines, or None if there is no such module."""
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
        and not inspect.isabstract(value)
        and not value.__name__.startswith("_")
        and value is not base
    ]


def name_of(cls: type) -> str:
    """Returns the name of a kind in a section, which is dotted if it is outside of the room."""
    room = room_of(cls)
    if cls.__module__.startswith(f"{room}."):
        return cls.__module__.removeprefix(f"{room}.")
    base = next(b for b in reversed(cls.__mro__) if room_of(b) == room and b is not cls)
    alone = len(_kinds_in(cls.__module__, base) or ()) == 1 and "." in cls.__module__
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
