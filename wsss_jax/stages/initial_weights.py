"""The weights with which a training starts: those of another network are refused beforehand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.settings import key_of, name_of, settings_of
from wsss_jax.stages.base import Context
from wsss_jax.weights import catalogue, checkpoint
from wsss_jax.weights.import_weights import import_backbone
from wsss_jax.weights.npz import load_weights, matched, without_lacked


def expect_same_network(need: str, found: str, theirs: Method, mine: Method) -> None:
    """Checks that the weights of one training stage fit the network of another one.

    Only the names and shapes of variables have to agree. So all settings that do not change these
    may differ, a backbone can resize position embeddings of another grid, and the other network may
    lack what a method adds. No weights are computed.

    Args:
      need: ``init`` for the weights of the whole network, ``backbone`` for those of the backbone.
      found: the name of the stage that the need names.
      theirs: the method of this stage.
      mine: the method that starts from its weights.

    Raises:
      UserError: the networks have other variables.
    """
    changed = _changed(theirs.backbone, mine.backbone, "method.backbone")
    if need == "init":
        changed = _changed(theirs, mine, "method") | changed
    if not changed:
        return
    part = "" if need == "init" else "backbone"
    have = {name: _array(like) for name, like in _trained(theirs, part).items()}
    want = without_lacked(_variables(mine, part), have, mine.added_layers)
    _, wrong = matched(have, want, mine.backbone)
    if not wrong:
        return
    here = ", ".join(f"{key}={ours!r}" for key, (_, ours) in changed.items())
    there = ", ".join(f"{key}={other!r}" for key, (other, _) in changed.items())
    raise UserError(
        f"expected needs.{need} to name a stage whose {part or 'network'} is that of this one, with"
        f" {here}, found {found}, with {there}: change {' or '.join(changed)} in one of the two, or"
        " name another stage"
    )


def initial_variables(
    method: Method, ctx: Context, init_weights: str, inputs: Mapping[str, Path]
) -> tuple[PyTree, PyTree, list[dict[str, Any]]]:
    """Returns parameters, other variables, and what is recorded about the files they are from.

    What is not in these files is drawn by chance.

    Args:
      method: the method that is trained.
      ctx: the context of the run.
      init_weights: the file of the backbone's weights as a path or a name of the catalogue, also
        with a part (see `catalogue.divided`), or "".
      inputs: the folders of the needed stages, of which ``init`` and ``backbone`` have weights.

    Raises:
      UserError: a file is missing, damaged or of another network.
    """
    params, variables = init_variables(method, ctx.seed)
    starts: list[dict[str, Any]] = []
    if init_weights:
        name, part = catalogue.divided(init_weights)
        path = catalogue.resolve(name)
        params, variables = import_backbone(
            path, method.backbone, params, variables, ctx.log, starts.append, part
        )
        published = catalogue.find(name)
        starts[0]["catalogue"] = published.name if published else ""
    for need, part in (("init", ""), ("backbone", "backbone")):
        if need in inputs:
            path = inputs[need] / "weights.npz"
            before = params
            params, variables = load_weights(
                path, params, variables, part, method.backbone, method.added_layers
            )
            added = () if part else method.added_layers
            drawn = [name for name in added if _kept(before[name], params[name])]
            weights = f"{part or 'all'} weights" + (f" but {', '.join(drawn)}" if drawn else "")
            sha256, stage = checkpoint.digest(path), inputs[need].name
            ctx.log(f"{weights} from stage {stage}, sha256 {sha256[:16]}")
            starts.append({"stage": stage, "part": part, "sha256": sha256, "drawn": drawn})
    return params, variables, starts


def _kept(before: PyTree, after: PyTree) -> bool:
    """Returns whether all arrays are still the same objects, as a file had none for them."""
    return all(a is b for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def _changed(theirs: Any, mine: Any, where: str) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, or only the kind if that differs, with both values."""
    if type(theirs) is not type(mine):
        return {f"{where}.{key_of(type(mine))}": (name_of(type(theirs)), name_of(type(mine)))}
    both = {n: (getattr(theirs, n), getattr(mine, n)) for n in settings_of(type(mine))}
    return {
        f"{where}.{name}": values
        for name, values in both.items()
        if values[0] != values[1] and name != "backbone"
    }


def _variables(method: Method, part: str) -> dict[str, Any]:
    params, variables = variable_shapes(method)
    return _flat({"params": params, **variables}, part)


def _trained(method: Method, part: str) -> dict[str, Any]:
    """Returns the shapes of the variables that a training stage saves."""
    params, variables = variable_shapes(method)
    saved = jax.eval_shape(lambda p: method.inference_params(p, method.init_extra(p)), params)
    return _flat({"params": saved, **variables}, part)


def _flat(tree: Any, part: str) -> dict[str, Any]:
    flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    return {name: v for name, v in flat.items() if not part or name.split("/")[1] == part}


def _array(like: Any) -> np.ndarray:
    return np.broadcast_to(np.zeros((), like.dtype), like.shape)  # It takes no memory.
