"""Recipes: loading a config file and the values given on the command line.

A recipe is a Python file with ``get_config() -> ConfigDict``. Every value it holds can be replaced
by ``--config.<path>=<value>``; a path it does not hold is an error that names the nearest one.
"""

import difflib
import importlib.util
import re
import sys
import traceback
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from wsss_jax.errors import UserError, nearest
from wsss_jax.files import flatten

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = next(
    # A wheel carries the recipes inside the package; a checkout has them beside it.
    (folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()),
    _PACKAGE.parent / "configs",
)
# What recipes share.
_SHARED = ("chains", "common", "published")
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the program."""
    return tuple(sorted(p.stem for p in _SHIPPED.glob("*.py") if p.stem not in _SHARED))


def find_recipe(name: str) -> Path:
    """The file of a recipe given as a path or as the bare name of a shipped one.

    Raises:
      UserError: there is no such file or recipe.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    if path.suffix != ".py" and len(path.parts) == 1 and name in shipped_recipes():
        return _SHIPPED / f"{name}.py"
    recipes = shipped_recipes()
    raise UserError(
        f"no config file {name}{nearest(path.stem, recipes)}"
        f" (shipped recipes: {', '.join(recipes) or 'none'})"
    )


def load_config(name: str) -> ConfigDict:
    """Runs `get_config()` of a recipe (a path or a shipped recipe's name); the result is locked.

    Inside a recipe ``from configs import common`` finds the file's own folder first, then the
    shipped recipes, wherever the program is installed and whatever the working directory.

    Raises:
      UserError: no such file, or the file fails to run or returns something else.
    """
    path = find_recipe(name)
    package = types.ModuleType("configs")
    package.__path__ = [str(path.parent), str(_SHIPPED)]
    for loaded in [m for m in sys.modules if m == "configs" or m.startswith("configs.")]:
        del sys.modules[loaded]
    sys.modules["configs"] = package
    spec = importlib.util.spec_from_file_location(f"configs.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"expected a Python file as config, found {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f", line {frames[-1].lineno}" if frames else ""
        what = " ".join(str(error).split())
        raise UserError(f"config {path}{line}: {type(error).__name__}: {what}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"expected get_config() in {path} to return a ConfigDict, found {type(config).__name__}"
        )
    return config.lock()


def parse_flags(
    values: flags.FlagValues, argv: Sequence[str]
) -> tuple[flags.FlagValues, ConfigDict | None]:
    """Parses a command line; ``--config`` and its overrides become the returned config.

    `values` has the program's other flags defined; `argv` starts with the program's name. The
    config is None where ``--config`` is not given.

    Raises:
      UserError: an unknown flag or config key (the nearest is named), or a value of wrong type.
    """
    name, rest = _take_config(argv)
    config = None if name is None else load_config(name)
    overrides = [m[1] for m in map(_OVERRIDE.match, rest) if m]
    if config is None and overrides:
        raise UserError(f"--config.{overrides[0]} is given without --config=RECIPE")
    if config is not None:
        _check_keys(config, overrides)
        rest = _last_of_each(rest)
        config_flags.DEFINE_config_dict(
            "config", config, "recipe", flag_values=values, sys_argv=list(rest)
        )
    try:
        extra = values(list(rest))[1:]
    except flags.UnrecognizedFlagError as error:
        known = [f"--{flag}" for flag in (*values, "config")]
        name = f"--{error.flagname}"
        raise UserError(f"unknown flag {name}{nearest(name, known)}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_wrong_type(config, error)) from error
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}: values are given as --flag=value")
    if config is not None:
        changed: Any = values["config"].value
        _check_tuples(load_config(name or ""), changed)
        return values, changed
    return values, None


def _last_of_each(arguments: Sequence[str]) -> list[str]:
    """Without overrides that a later one repeats: those of tuples would add up."""
    keys = [match[1] if (match := _OVERRIDE.match(a)) and "=" in a else None for a in arguments]
    last = {key: place for place, key in enumerate(keys)}
    return [
        a for place, a in enumerate(arguments) if keys[place] is None or last[keys[place]] == place
    ]


def _take_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of --config and the command line without it."""
    name, rest, arguments = None, [], iter(argv)
    for argument in arguments:
        if argument in ("--config", "-config"):
            name = next(arguments, "")
            if not name or name.startswith("--"):
                raise UserError("--config needs a recipe: --config=configs/seam_voc.py")
        elif re.match(r"--?config=", argument):
            name = argument.split("=", 1)[1]
        else:
            rest.append(argument)
    return name, rest


def _check_keys(config: ConfigDict, overrides: Iterable[str]) -> None:
    keys = [key for key, _ in flatten(config)]
    for override in overrides:
        at: Any = config
        for part in override.split("."):
            if not isinstance(at, ConfigDict) or part not in at:
                raise UserError(
                    f"the config has no value {override}{_nearest_key(override, keys)}"
                    " (--dry_run lists all values)"
                )
            at = at[part]


def _nearest_key(key: str, keys: Iterable[str]) -> str:
    """As `nearest`; of a section that exists, only a value whose own name resembles the key's."""
    section, _, name = key.rpartition(".")
    siblings = [k for k in keys if k.rpartition(".")[0] == section]
    if not siblings:
        return nearest(key, keys)
    own = {k.rpartition(".")[2]: k for k in siblings}
    found = difflib.get_close_matches(name, list(own), n=1, cutoff=0.6)
    return f"; did you mean {own[found[0]]}?" if found else ""


def _wrong_type(config: ConfigDict | None, error: Exception) -> str:
    text = " ".join(str(error).split())
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", text)
    if not found or config is None:
        return text
    at: Any = config
    for part in found[1].split("."):
        at = at[part]
    return f"--config.{found[1]} expects {type(at).__name__}, found {found[2]!r}"


def _check_tuples(before: ConfigDict, after: ConfigDict) -> None:
    """Elements of a replaced tuple have the type of the recipe's (an int may stand for a float)."""
    old = dict(flatten(before))
    for key, value in flatten(after):
        kinds = {type(v) for v in old.get(key, ())} if isinstance(old.get(key), tuple) else set()
        if len(kinds) != 1 or not isinstance(value, tuple):
            continue
        kind = kinds.pop()
        for element in value:
            if not isinstance(element, (int, float) if kind is float else kind):
                raise UserError(
                    f"--config.{key} expects a tuple of {kind.__name__}, found {element!r} in it"
                )
