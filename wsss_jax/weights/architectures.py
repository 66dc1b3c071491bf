"""Backbones by name, and the one that a file's arrays belong to."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.settings import kind_names, name_of, read, settings_of
from wsss_jax.weights.import_weights import Comparison, compare_arrays
from wsss_jax.weights.names import Variables, foreign_arrays, to_torch, torch_names

_LEAST = 0.3
"""The share of a backbone's names that a file must have for the backbone to be considered."""


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


@functools.lru_cache(maxsize=64)
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
    def score(self) -> tuple[int, int]:
        """How well the arrays fit; the larger, the better."""
        found = self.compared
        wrong = len(found.missing) + len(found.unfit) + len(found.unexpected)
        return len(found.values) - wrong, -len(found.resized)

    @property
    def certain(self) -> bool:
        """Whether every variable has an array of its name and shape."""
        return len(self.compared.values) == self.variables


def fitted(backbone: Backbone, arrays: Mapping[str, np.ndarray]) -> Guess:
    """Compares arrays with a backbone; those of other layers count as unexpected."""
    return Guess(backbone, compare_arrays(backbone_shapes(backbone), arrays, backbone))


def guess(
    arrays: Mapping[str, np.ndarray], further: Iterable[Mapping[str, Any]] = ()
) -> Guess | None:
    """Returns the backbone that fits arrays best, or None if none fits at all.

    Names decide which kinds are considered. Names and shapes decide on the values of settings, one
    setting after the other: on the few that it can have, or on the numbers that the file has.

    Args:
      arrays: the arrays by name. Only their names and shapes count.
      further: settings of backbones to consider besides the defaults of every kind.
    """
    # Arrays without memory stand for those of the file, so that many comparisons are cheap.
    light = {n: np.broadcast_to(np.zeros((), np.float32), a.shape) for n, a in arrays.items()}
    sections = [{"name": name} for name in kind_names(Backbone)] + [dict(one) for one in further]
    backbones = [read(Backbone, section) for section in sections]
    near = [one for one in _distinct(backbones) if _share(one, light) >= _LEAST]
    if not near:
        return None
    best = max((fitted(one, light) for one in near), key=lambda one: one.score)
    for name, setting in settings_of(type(best.backbone)).items():
        for value in _choices(setting.type, getattr(best.backbone, name), best, light):
            settings = _settings(best.backbone) | {name: value}
            score = _fits(type(best.backbone), settings, light)
            if score is not None and score > best.score:
                best = fitted(best.backbone.clone(**{name: value}), light)
    same = sorted(_same(best, near, light), key=lambda one: architecture_name(one).count(","))
    return dataclasses.replace(fitted(same[0], arrays), also=tuple(same[1:]))


def _same(
    best: Guess, near: Iterable[Backbone], arrays: Mapping[str, np.ndarray]
) -> list[Backbone]:
    """Returns the backbone of `best` and those of other kinds with its settings that fit as well.

    Kinds of vision transformers have the same arrays, but normalize images in different ways.
    """
    settings = _settings(best.backbone)
    found = [best.backbone]
    for kind in {type(one): one for one in near}:
        other: Any = kind
        if kind is type(best.backbone) or set(settings_of(kind)) != set(settings):
            continue
        if fitted(other(**settings), arrays).score != best.score:
            continue
        kept = dict(settings)
        for name, setting in settings_of(kind).items():  # Most do not matter for the arrays.
            fewer = {key: value for key, value in kept.items() if key != name}
            if kept[name] != setting.default:
                score = _fits(other, fewer, arrays)
                kept = fewer if score is not None and score >= best.score else kept
        found.append(other(**kept))
    return found


def _settings(backbone: Backbone) -> dict[str, Any]:
    return {name: getattr(backbone, name) for name in settings_of(type(backbone))}


def _fits(kind: Any, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    try:
        return fitted(kind(**settings), arrays).score
    except Exception:  # The backbone has no such settings, whether it says so or fails.
        return None


def _choices(kind: Any, present: Any, best: Guess, arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """Returns the values of a setting that may fit better than the `present` one."""
    if kind is bool:
        found: set[Any] = {not present}
    elif get_origin(kind) is Literal:
        found = set(get_args(kind))
    elif kind is float and present == 0:
        found = {1.0}  # The factors are there as soon as they have an initial value.
    elif kind is int:
        found = _numbers(present, best, arrays)
    else:
        found = set()
    return sorted(found - {present})


def _numbers(present: int, best: Guess, arrays: Mapping[str, np.ndarray]) -> set[int]:
    """Returns whole numbers that the names or shapes of a file have where `present` is expected.

    If it is a length in the network, the file has another one in the same place. If it is the
    number of layers of one kind, the file has another number. If it is 0, the file has arrays that
    the network lacks.
    """
    backbone, found = best.backbone, set[int]()
    given = foreign_arrays(arrays, backbone_shapes(backbone), backbone)
    shapes = {
        name: array.shape for name, array in given.items() if name in best.compared.unexpected
    }
    if present == 0:
        return {length for shape in shapes.values() for length in shape}
    flat: dict[str, Any] = flatten_dict(backbone_shapes(backbone), sep="/")
    light = {path: np.broadcast_to(np.float32(0), like.shape) for path, like in flat.items()}
    mine = to_torch(light, backbone)
    for name, array in mine.items():
        if name in given and array.ndim == given[name].ndim:
            pairs = zip(array.shape, given[name].shape, strict=True)
            found |= {there for here, there in pairs if here == present}
    counts = _counts(mine), _counts(given)
    found |= {counts[1].get(layer, 0) for layer, n in counts[0].items() if n == present}
    return found - {0} | ({0} if best.compared.missing else set())


def _counts(names: Iterable[str]) -> dict[str, int]:
    """Returns how many numbers follow each beginning of a name, such as ``blocks.``."""
    numbers: dict[str, set[str]] = {}
    for name in names:
        for match in re.finditer(r"(?<=\.)\d+(?=\.)", name):
            numbers.setdefault(name[: match.start()], set()).add(match.group())
    return {layer: len(values) for layer, values in numbers.items()}


def _distinct(backbones: Iterable[Any]) -> list[Backbone]:
    return list(dict.fromkeys(backbones))


def _share(backbone: Backbone, arrays: Mapping[str, np.ndarray]) -> float:
    shapes = backbone_shapes(backbone)
    names = set(torch_names(shapes, backbone).values())
    return len(names & set(foreign_arrays(arrays, shapes, backbone))) / len(names)
