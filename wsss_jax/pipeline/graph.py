"""The stages a config names, checked and in the order they run."""

import dataclasses
import importlib
import importlib.util
import json
import pkgutil
import re
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import wsss_jax.stages
from wsss_jax.errors import UserError, nearest
from wsss_jax.stages.base import Need


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: `section` is its part of the config, `needs` maps input names to stage names."""

    name: str
    type: str
    section: dict[str, Any]
    needs: dict[str, str]

    def module(self) -> ModuleType:
        """The module with the stage's `run` function."""
        return importlib.import_module(_module_name(self.type))

    def splits(self) -> tuple[str, ...]:
        """Names of the data splits the stage reads (its keys ``split`` and ``*_split``)."""
        found = {
            v
            for k, v in self.section.items()
            if (k == "split" or k.endswith("_split")) and isinstance(v, str) and v
        }
        return tuple(sorted(found))


def stages(config: ConfigDict) -> tuple[Stage, ...]:
    """The stages of `config`, every one after the stages it needs, otherwise as listed.

    Raises:
      UserError: a stage without section or type, a need that names no stage, or a cycle.
    """
    names = config.get("stages", ())
    if not isinstance(names, tuple | list) or not names:
        raise UserError("expected the config to name its stages: stages = ('train', ...)")
    found = {name: _stage(config, name) for name in names}
    if len(found) < len(names):
        twice = next(n for n in names if list(names).count(n) > 1)
        raise UserError(f"stage {twice} is listed twice in the config's stages")
    for stage in found.values():
        for need in stage.needs.values():
            if need not in found:
                raise UserError(
                    f"stage {stage.name} needs {need}, which is not in the config's stages"
                    f" ({', '.join(names)}){nearest(need, names)}"
                )
    return _in_order(found)


def check(config: ConfigDict, all_stages: tuple[Stage, ...]) -> None:
    """Asks every stage whether its settings, and the stages it needs, make sense.

    Raises:
      UserError: one says no.
    """
    by_name = {stage.name: stage for stage in all_stages}
    sections: Any = config
    for stage in all_stages:
        module = stage.module()
        if not hasattr(module, "check"):
            continue
        needs = {
            name: Need(
                other,
                by_name[other].type,
                sections[other].to_dict(),
                getattr(by_name[other].module(), "MAKES", None),
            )
            for name, other in stage.needs.items()
        }
        try:
            module.check(sections[stage.name], needs)
        except UserError as error:
            raise UserError(f"stage {stage.name}: {error}") from error


def downstream(all_stages: tuple[Stage, ...], names: set[str]) -> set[str]:
    """`names` and every stage that needs one of them, directly or through others."""
    reached = set(names)
    for stage in all_stages:  # in order, so one pass suffices
        if reached & set(stage.needs.values()):
            reached.add(stage.name)
    return reached


def _stage(config: ConfigDict, name: Any) -> Stage:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9]\w*", name):
        raise UserError(f"a stage name consists of letters, digits and _, found {name!r}")
    sections = [k for k, v in config.items() if isinstance(v, ConfigDict) and "type" in v]
    section = config.get(name)
    if not isinstance(section, ConfigDict):
        raise UserError(f"stage {name} has no section in the config{nearest(name, sections)}")
    kind = section.get("type")
    if not isinstance(kind, str):
        raise UserError(f"the config's section {name} lacks its stage type: {name}.type = 'train'")
    shared = wsss_jax.stages.SHARED
    if kind in shared or importlib.util.find_spec(_module_name(kind)) is None:
        every = pkgutil.iter_modules(wsss_jax.stages.__path__)
        known = [m.name for m in every if m.name not in shared]
        raise UserError(
            f"{name}.type is {kind!r}, expected one of {', '.join(known)}{nearest(kind, known)}"
        )
    plain = json.loads(section.to_json_best_effort())  # what JSON can hold is what is recorded
    return Stage(name, kind, plain, dict(plain.get("needs", {})))


def _module_name(kind: str) -> str:
    # A dotted type is a module of one's own: stages are extended without touching the package.
    return kind if "." in kind else f"wsss_jax.stages.{kind}"


def _in_order(found: dict[str, Stage]) -> tuple[Stage, ...]:
    order: list[Stage] = []
    waiting = dict(found)
    while waiting:
        ready = next(
            (s for s in waiting.values() if not set(s.needs.values()) & set(waiting)), None
        )
        if ready is None:
            raise UserError(f"the stages need each other in a circle: {_cycle(waiting)}")
        order.append(waiting.pop(ready.name))
    return tuple(order)


def _cycle(waiting: dict[str, Stage]) -> str:
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(next(n for n in waiting[path[-1]].needs.values() if n in waiting))
    return " -> ".join(path[path.index(path[-1]) :])
