"""Checks of what a method and its backbone promise, from shapes alone."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.models.taps import map_size

_SIZE = (75, 101)  # no multiple of a common stride, so that maps have to be rounded up


def check_method(method: Method) -> None:
    """Checks the outputs of `predict` and the backbone's feature maps and rules, computing nothing.

    Args:
      method: the method, whose `num_classes` is that of the data.

    Raises:
      TypeError: a result is not a dict of arrays.
      ValueError: a result is missing or does not have the size of its stride or its channels, or
        no rule of the backbone matches one of its parameters.
    """
    _check_backbone(method.backbone)
    params, variables = variable_shapes(method)
    images = jax.ShapeDtypeStruct((1, *_SIZE, 3), jnp.uint8)
    valid = jax.ShapeDtypeStruct((1, *_SIZE), bool)
    found: Any = jax.eval_shape(method.predict, {"params": params, **variables}, images, valid)
    channels = {"cam": method.num_classes, "logits": method.num_classes + 1}
    strides = {name: method.stride(name) for name in method.outputs}
    _check_maps(f"{type(method).__name__}.predict", found, strides, channels)


def _check_backbone(backbone: Backbone) -> None:
    image = jax.ShapeDtypeStruct((1, *_SIZE, 3), jnp.float32)
    valid = jax.ShapeDtypeStruct((1, *_SIZE), bool)
    taps: Any
    variables: Any
    taps, variables = jax.eval_shape(backbone.init_with_output, jax.random.key(0), image, valid)
    owner = type(backbone).__name__
    _check_maps(f"{owner}.__call__", taps, backbone.tap_strides, {})
    patterns = [rule.pattern for rule in backbone.param_rules()]
    for path in traverse_util.flatten_dict(variables.get("params", {}), sep="/"):
        if not any(re.search(pattern, f"backbone/{path}") for pattern in patterns):
            raise ValueError(
                f"{owner}.param_rules: expected a rule for every parameter, found none for"
                f" backbone/{path}"
            )


def _check_maps(
    owner: str, found: Any, strides: Mapping[str, int], channels: Mapping[str, int]
) -> None:
    """Checks that `found` has a map of every stride, with `channels` where they are known."""
    if not isinstance(found, Mapping):
        raise TypeError(
            f"{owner}: expected a dict with {', '.join(strides)}, found {type(found).__name__}"
        )
    for name, stride in strides.items():
        if name not in found:
            raise ValueError(
                f"{owner}: expected {name}, found only {', '.join(found) or 'nothing'}"
            )
        shape = getattr(found[name], "shape", None)
        if shape is None:
            kind = type(found[name]).__name__
            raise TypeError(f"{owner}: expected {name} to be an array, found {kind}")
        height, width = map_size(_SIZE, stride)
        count = channels.get(name)
        if shape[:3] != (1, height, width) or len(shape) != 4 or count not in (None, shape[3]):
            raise ValueError(
                f"{owner}: expected {name} of shape [1, {height}, {width},"
                f" {'k' if count is None else count}] for an image of {_SIZE[0]} x {_SIZE[1]}"
                f" pixels at stride {stride}, found {list(shape)}"
            )
