"""The graph of the stages of a recipe, checked and in the order in which they run."""

import dataclasses
import json
import re
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.errors import UserError, nearest
from wsss_jax.pipeline.recipe import general_settings
from wsss_jax.settings import name_of, to_config
from wsss_jax.stages.base import Need, Stage


@dataclasses.dataclass(frozen=True)
class Node:
    """A stage in the graph of a recipe.

    Attributes:
      name: the stage's name in the recipe, which is also the name of its folder.
      stage: the stage with its settings.
    """

    name: str
    stage: Stage

    @property
    def type(self) -> str:
        """The kind of the stage, as the recipe's section names it."""
        return name_of(type(self.stage))

    @property
    def needs(self) -> dict[str, str]:
        """The names of the stages that it needs, by the names of its inputs."""
        return dict(self.stage.needs)

    @property
    def section(self) -> dict[str, Any]:
        """All of its settings, including defaults, as plain values for JSON."""
        return json.loads(to_config(self.stage).to_json_best_effort())


def stages(config: ConfigDict) -> tuple[Node, ...]:
    """Returns the stages of `config` as listed, but each one after the stages that it needs.

    Raises:
      UserError: nothing reads a key, a stage has no section or type, a setting does not exist or
        is out of its range, a need names no stage, or the stages need each other in a circle.
    """
    names = general_settings(config).stages
    found = {name: _node(config, name) for name in names}
    if len(found) < len(names):
        twice = next(n for n in names if list(names).count(n) > 1)
        raise UserError(f"stage {twice} is listed twice in the config's stages: remove one of them")
    for stage in found.values():
        for need in stage.needs.values():
            if need not in found:
                raise UserError(
                    f"stage {stage.name} needs {need}, which is not in the config's stages"
                    f" ({', '.join(names)}){nearest(need, names)}"
                )
    return _in_order(found)


def check(nodes: tuple[Node, ...]) -> None:
    """Lets every stage check the stages that it needs.

    Raises:
      UserError: a stage refuses them.
    """
    needed = {node.name: Need(node.name, node.stage) for node in nodes}
    for node in nodes:
        needs = {name: needed[other] for name, other in node.needs.items()}
        try:
            node.stage.check(needs)
        except UserError as error:
            raise UserError(f"stage {node.name}: {error}") from error


def downstream(all_stages: tuple[Node, ...], names: set[str]) -> set[str]:
    """Returns `names` and all stages that need one of them, directly or through others."""
    reached = set(names)
    for stage in all_stages:  # One pass suffices, because they are in order.
        if reached & set(stage.needs.values()):
            reached.add(stage.name)
    return reached


def _node(config: ConfigDict, name: str) -> Node:
    if not re.fullmatch(r"[A-Za-z0-9]\w*", name):
        raise UserError(
            f"expected a stage name of letters, digits and _, found {name!r}: rename the stage"
        )
    section = config.get(name)
    if not isinstance(section, ConfigDict):
        sections = [k for k, v in config.items() if isinstance(v, ConfigDict) and "type" in v]
        raise UserError(f"stage {name} has no section in the config{nearest(name, sections)}")
    return Node(name, Stage.from_config(section, name))


def _in_order(found: dict[str, Node]) -> tuple[Node, ...]:
    order: list[Node] = []
    waiting = dict(found)
    while waiting:
        ready = next(
            (s for s in waiting.values() if not set(s.needs.values()) & set(waiting)), None
        )
        if ready is None:
            raise UserError(f"the stages need each other in a circle: {_cycle(waiting)}")
        order.append(waiting.pop(ready.name))
    return tuple(order)


def _cycle(waiting: dict[str, Node]) -> str:
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(next(n for n in waiting[path[-1]].needs.values() if n in waiting))
    return " -> ".join(path[path.index(path[-1]) :])
