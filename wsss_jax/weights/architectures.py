"""Backbones by name, and the one that a file's arrays belong to."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.settings import kind_names, kind_of, name_of, read, settings_of
from wsss_jax.weights.checkpoint import HEADS
from wsss_jax.weights.import_weights import Comparison, compare_arrays, plain_names
from wsss_jax.weights.names import Variables, foreign_arrays, to_torch

_MOST = 0.7
"""The share of a backbone's names that a file may lack for the backbone to be considered."""


def read_architecture(text: str, known: Mapping[str, Mapping[str, Any]] = {}) -> Backbone:
    """Returns the backbone that a text names.

    Args:
      text: the name of a backbone, as in a recipe, with its settings: ``resnet,depth=101``.
      known: settings of backbones, by further names that stand for them. A name that recipes give a
        backbone means this backbone.

    Raises:
      UserError: there is no such backbone or setting.
    """
    name, *parts = text.split(",")
    ours = name in kind_names(Backbone)
    section: dict[str, Any] = dict({"name": name} if ours else known.get(name, {"name": name}))
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(
                f"expected an architecture such as resnet,depth=101, found {text!r}: give settings"
                " as NAME=VALUE"
            )
        try:
            section[key.strip()] = json.loads(
                value.lower() if value in ("True", "False") else value
            )
        except ValueError:
            section[key.strip()] = value
    return read(Backbone, section, "--arch")


def architecture_name(backbone: Backbone) -> str:
    """Returns the text for `read_architecture`: the name, and settings that are not defaults."""
    parts = [name_of(type(backbone))]
    for name, setting in settings_of(type(backbone)).items():
        value = getattr(backbone, name)
        if value != setting.default:
            parts.append(f"{name}={value}")
    return ",".join(parts)


def backbone_shapes(backbone: Backbone) -> Variables:
    """Returns the shapes of a backbone's variables, as in a network, without computing anything."""
    key: Any = backbone  # Modules of Flax can be hashed, though their type denies it.
    return _shapes(key)


@functools.lru_cache(maxsize=256)
def _shapes(backbone: Any) -> Variables:
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    found: Any = jax.eval_shape(backbone.init, jax.random.key(0), image)
    return {collection: {"backbone": tree} for collection, tree in found.items()}


@dataclasses.dataclass(frozen=True)
class Guess:
    """A backbone that the arrays of a file may belong to.

    Attributes:
      backbone: the backbone.
      compared: what the arrays are to it.
      also: backbones of other kinds that the arrays fit equally well.
    """

    backbone: Backbone
    compared: Comparison
    also: tuple[Backbone, ...] = ()

    @property
    def variables(self) -> int:
        """The number of the backbone's variables."""
        return len(jax.tree.leaves(backbone_shapes(self.backbone)))

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of arrays of layers after a backbone, which are left out."""
        return tuple(name for name in self.compared.unexpected if re.fullmatch(HEADS, name))

    @property
    def foreign(self) -> tuple[str, ...]:
        """The names of arrays that belong neither to the backbone nor to layers after one."""
        return tuple(name for name in self.compared.unexpected if name not in self.heads)

    @property
    def score(self) -> tuple[int, int]:
        """How well the arrays fit; the larger, the better."""
        found = self.compared
        wrong = len(found.missing) + len(found.unfit) + len(found.unexpected)
        return len(found.values) - wrong, -len(found.resized)

    @property
    def share(self) -> float:
        """How many of the names of both, without those of heads, have arrays that fit."""
        return len(self.compared.values) / (self.variables + len(self.foreign))

    @property
    def certain(self) -> bool:
        """Whether every variable has an array of its name and shape, and heads alone are left."""
        return self.share == 1


def fitted(backbone: Backbone, arrays: Mapping[str, np.ndarray]) -> Guess:
    """Compares arrays with a backbone; those of other layers count as unexpected."""
    return Guess(backbone, compare_arrays(backbone_shapes(backbone), arrays, backbone))


def guess(arrays: Mapping[str, np.ndarray], likely: Backbone | None = None) -> Guess | None:
    """Returns the backbone that fits arrays best, or None if none fits at all.

    If the settings of kinds can be read from arrays, these kinds are considered alone. Otherwise
    names decide which kinds are considered, and names and shapes decide on the values of settings:
    on the few that a setting can have, or on the numbers that the file has in their place.

    Args:
      arrays: the arrays by name.
      likely: a backbone to take if it fits for certain.

    Raises:
      UserError: two arrays have the same name.
    """
    # Arrays without memory stand for those of the file, so that many comparisons are cheap.
    zero = np.zeros((), np.float32)
    light = {n: np.broadcast_to(zero, a.shape) for n, a in plain_names(arrays).items()}
    if likely and (found := _tried(type(likely), light, _settings(likely))) and found.certain:
        return fitted(likely, arrays)
    kinds: list[Any] = [kind_of(Backbone, name) for name in kind_names(Backbone)]
    shown = {kind: kind.shown_settings(light) for kind in kinds}
    if any(shown.values()):
        near = [_tried(kind, light, settings) for kind, settings in shown.items() if settings]
    else:
        near = [_start(kind, light) for kind in kinds]
    near = [one for one in near if one and len(one.compared.missing) <= _MOST * one.variables]
    if not near:
        return None
    highest = max(one.score for one in near)
    best = [_climbed(one, light) for one in near if one.score == highest]
    highest = max(one.score for one in best)
    same = [one.backbone for one in best if one.score == highest]
    # The one with the fewest settings, and of several kinds the one that the others are based on.
    same.sort(key=lambda one: (architecture_name(one).count(","), len(type(one).__mro__)))
    return dataclasses.replace(fitted(same[0], arrays), also=tuple(same[1:]))


def _settings(backbone: Backbone) -> dict[str, Any]:
    return {name: getattr(backbone, name) for name in settings_of(type(backbone))}


def _tried(kind: Any, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Any:
    try:
        return fitted(kind(**settings), arrays)
    except Exception:  # The backbone has no such settings, whether it says so or fails.
        return None


def _start(kind: Any, arrays: Mapping[str, np.ndarray]) -> Guess | None:
    """Compares arrays with the defaults of a kind.

    If it refuses their names, these belong to another choice of a setting.
    """
    try:
        return fitted(kind(), arrays)
    except UserError:
        choices = [
            _tried(kind, arrays, {name: value})
            for name, setting in settings_of(kind).items()
            if get_origin(setting.type) is Literal
            for value in get_args(setting.type)
        ]
        return max((one for one in choices if one), key=lambda one: one.score, default=None)


def _climbed(best: Guess, arrays: Mapping[str, np.ndarray]) -> Guess:
    """Changes one setting after the other, until no change makes the arrays fit better."""
    kind: Any = type(best.backbone)
    improved = not kind.shown_settings(arrays)
    while improved and not best.certain:
        improved = False
        for name, setting in settings_of(kind).items():
            for value in _choices(setting.type, getattr(best.backbone, name), best, arrays):
                other = _tried(kind, arrays, _settings(best.backbone) | {name: value})
                if other and other.score > best.score:
                    best, improved = other, True
    return best


def _choices(kind: Any, present: Any, best: Guess, arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """Returns the values of a setting that may fit better than the `present` one."""
    if kind is bool:
        found: set[Any] = {not present}
    elif get_origin(kind) is Literal:
        found = set(get_args(kind))
    elif kind is int:
        found = _numbers(present, best, arrays)
    else:
        found = set()
    return sorted(found - {present})


def _numbers(present: int, best: Guess, arrays: Mapping[str, np.ndarray]) -> set[int]:
    """Returns the lengths that a file has where the backbone has arrays of the length `present`.

    If arrays are missing, 0 is among them, which leaves out layers.
    """
    backbone, shapes = best.backbone, backbone_shapes(best.backbone)
    given = foreign_arrays(arrays, shapes, backbone)
    flat: dict[str, Any] = flatten_dict(shapes, sep="/")
    light = {path: np.broadcast_to(np.float32(0), like.shape) for path, like in flat.items()}
    found = {0} if best.compared.missing else set[int]()
    for name, array in to_torch(light, backbone).items():
        if name in given and array.ndim == given[name].ndim:
            pairs = zip(array.shape, given[name].shape, strict=True)
            found |= {there for here, there in pairs if here == present}
    return found
