"""Weights of the reference values of IRNet's program: its ResNet-50 and its heads."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from tests.reference.golden_weights import draw, read_from_checkpoint, torch_shape
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.irnet import IrNet
from wsss_jax.weights.import_weights import import_arrays, torch_names

NONE: Mapping[str, str] = MappingProxyType({})


def drawn_as_published(
    method: Cam | IrNet, seed: int, names: Mapping[str, str] = NONE
) -> dict[str, Any]:
    """Variables with the reference weights; the backbone's names begin with ``resnet50.`` there.

    `names` are the reference's names of layers that have another one here.
    """
    x = jnp.zeros((1, 64, 64, 3))
    found: Any = jax.eval_shape(method.model().init, jax.random.key(0), x)
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(found, sep="/"))
    arrays = {}
    for path, name in torch_names(found, method.backbone).items():
        head = re.sub(r"^(edge|displacement)\.", "", name)
        published = f"resnet50.{name}" if "/backbone/" in path else names.get(name, head)
        arrays[name] = draw(published, torch_shape(flat[path].shape), seed)
    return import_arrays(found, read_from_checkpoint(arrays), backbone=method.backbone)
