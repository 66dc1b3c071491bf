"""Loads recipes and applies the values that the command line gives.

A recipe is a Python file with ``get_config() -> ConfigDict``. The command line can replace its
values; see `wsss_jax.pipeline.overrides`.
"""

import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.errors import UserError, nearest, refuse_addresses
from wsss_jax.files import flatten
from wsss_jax.pipeline.batch_rates import batch_sizes, follow_batches
from wsss_jax.pipeline.overrides import replace
from wsss_jax.pipeline.recipe import Recipe
from wsss_jax.settings import complete, settings_of
from wsss_jax.stages.base import Stage

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = next(
    # A wheel has the recipes inside the package, and a checkout has them beside it.
    (folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()),
    _PACKAGE.parent / "configs",
)
# Modules that recipes share; they are not recipes.
_SHARED = ("chains", "common", "published")


def shipped_recipes() -> tuple[str, ...]:
    """Returns the names of the recipes that come with the program."""
    return tuple(sorted(p.stem for p in _SHIPPED.glob("*.py") if p.stem not in _SHARED))


def find_recipe(name: str) -> Path:
    """Returns the file of a recipe, which is named by its path or, if it is shipped, by its name.

    Raises:
      UserError: there is no such file or shipped recipe.
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
    """Runs `get_config()` of a recipe (a path or a shipped recipe's name) and locks the result.

    Every section is completed with the defaults of the class that reads it.

    Inside a recipe, ``from configs import common`` first looks in the folder of the file and then
    among the shipped recipes, regardless of where the program is installed and of the working
    directory. Methods, backbones, stages and data sets that the recipe names can be in the folder
    of the file or in the working directory. Both are searched last, in this process and in those
    that it starts.

    Raises:
      UserError: the file does not exist, cannot be run or returns something else, or a section has
        a setting that its class does not have, or a value of the wrong type.
    """
    path = find_recipe(name)
    _search_in(os.getcwd(), *([] if path.parent == _SHIPPED else [str(path.parent)]))
    package = types.ModuleType("configs")
    package.__path__ = [str(path.parent), str(_SHIPPED)]
    for loaded in [m for m in sys.modules if m == "configs" or m.startswith("configs.")]:
        del sys.modules[loaded]
    sys.modules["configs"] = package
    spec = importlib.util.spec_from_file_location(f"configs.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"expected a Python file as config, found {path}: name another file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not isinstance(error, UserError) and any(map(_of_program, frames[1:])):
            raise  # This is a defect of the program or of a module that the recipe names.
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        what = " ".join(str(error).split()) + _hidden(path, error)
        raise UserError(f"config {path}{line}: {kind}{what}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"expected get_config() in {path} to return a ConfigDict, found"
            f" {type(config).__name__}: change what it returns"
        )
    sections: Any = config
    for name, reader in readers(config).items():
        if isinstance(sections.get(name), ConfigDict):
            sections[name] = complete(reader, sections[name], name)
    return config.lock()


def readers(config: ConfigDict) -> dict[str, Any]:
    """Returns the types of a recipe's general settings and the classes of its sections, by name."""
    stages: Any = config.get("stages", ())
    named = [name for name in stages if isinstance(config.get(name), ConfigDict)]
    general = {name: setting.type for name, setting in settings_of(Recipe).items()}
    return {**general, **dict.fromkeys(named, Stage)}


def _hidden(path: Path, error: Exception) -> str:
    """Returns a hint if files beside a recipe hide shipped ones that the error may be about."""
    shipped = {file.name for file in _SHIPPED.glob("*.py")} - {path.name}
    hiding = sorted(file.name for file in path.parent.glob("*.py") if file.name in shipped)
    if path.parent == _SHIPPED or not hiding or not isinstance(error, AttributeError | ImportError):
        return ""
    return f"; {path.parent / hiding[0]} hides the shipped file of that name: rename it"


def _of_program(frame: traceback.FrameSummary) -> bool:
    """Returns whether a line of a traceback is in the package, but not in a shipped recipe."""
    path = Path(frame.filename)
    return path.is_relative_to(_PACKAGE) and not path.is_relative_to(_SHIPPED)


def _search_in(*folders: str) -> None:
    """Makes Python look for modules in these folders too, after all others."""
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def read_recipe(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a recipe and replaces values in it; see `load_config`, `replace`, `follow_batches`.

    Raises:
      UserError: as in these functions.
    """
    config = load_config(name)
    before = batch_sizes(config)
    replace(config, overrides, readers(config))
    follow_batches(config, before, overrides)
    for key, value in flatten(config):
        refuse_addresses(str(value), key)
    return config
