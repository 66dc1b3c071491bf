"""Loads the network of a training stage onto all local devices."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from wsss_jax import digests
from wsss_jax.errors import UserError
from wsss_jax.files import make_again, with_tuples
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.methods.base import Method
from wsss_jax.methods.prediction import FEATURES, prediction, prediction_stride
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.ops.sharding import data_mesh, replicated
from wsss_jax.records import read_record
from wsss_jax.weights.npz import load_weights


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network on all local devices.

    Attributes:
      predict: the function ``predict(images uint8, valid) -> maps``, which does not wait for the
        maps.
      stride: the image pixels per pixel of the maps.
      backbone: the backbone, which states to which shapes images may be padded.
      mesh: the devices that share a batch.
    """

    predict: Callable[[np.ndarray, np.ndarray], jax.Array]
    stride: int
    backbone: Backbone
    mesh: Mesh

    @property
    def devices(self) -> int:
        """The number of devices."""
        return self.mesh.devices.size


def read_network(checkpoint: Path, num_classes: int, output: str) -> tuple[Method, dict[str, Any]]:
    """Reads the method and the weights, by collection, of a training stage's folder.

    Raises:
      UserError: the folder has no weights, or others than the stage wrote, or the method does not
        predict `output`.
    """
    digests.check(checkpoint, lambda name: name in ("config.json", "weights.npz"))
    path = checkpoint / "config.json"
    description = with_tuples(read_record(path, {"method": dict}, make_again(path))["method"])
    method = Method.from_config(description, "method", num_classes=num_classes)
    if output not in (*method.outputs, FEATURES):
        raise UserError(
            f"expected output to be one of {', '.join(method.outputs)}, which the network of"
            f" {checkpoint} predicts, found {output!r}: change it or the checkpoint"
        )
    shapes = variable_shapes(method)
    params, variables = load_weights(checkpoint / "weights.npz", *shapes)
    return method, {"params": params, **variables}


def load_network(checkpoint: Path, num_classes: int, output: str) -> Network:
    """Loads the network of a training stage's folder for a prediction, `output`.

    It is one of the method's `outputs`, or `wsss_jax.methods.prediction.FEATURES`.

    Raises:
      UserError: for the same reasons as `read_network`.
    """
    method, loaded = read_network(checkpoint, num_classes, output)
    return network_of(method, loaded, output)


def network_of(method: Method, loaded: dict[str, Any], output: str) -> Network:
    """Puts a network with the weights `loaded`, by collection, onto all local devices."""
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    mesh = data_mesh(jax.local_devices())
    weights = jax.device_put(loaded, replicated(mesh))
    jitted = prediction(method, output, mesh)

    def predict(images: np.ndarray, valid: np.ndarray) -> jax.Array:
        short = -len(images) % mesh.devices.size
        if not short:
            return jitted(weights, images, valid)
        # Every device gets the same number of images.
        images = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)])
        valid = np.concatenate([valid, np.zeros((short, *valid.shape[1:]), bool)])
        return jitted(weights, images, valid)[: len(images) - short]

    return Network(predict, prediction_stride(method, output), method.backbone, mesh)
