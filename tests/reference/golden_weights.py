"""Weights of the reference values, drawn from the names of the parameters in PyTorch.

Networks get them from a checkpoint in the form in which the papers' authors published theirs.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.reference.drawing import draw
from tests.reference.torch_files import state_dict, write_legacy
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.seam import Seam
from wsss_jax.models.base import Backbone
from wsss_jax.training.optimizer import assign_rules, join, split_frozen
from wsss_jax.weights.checkpoint import read_checkpoint
from wsss_jax.weights.import_weights import import_arrays, torch_names


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """HWIO to OIHW, (in, out) to (out, in)."""
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return tuple(reversed(shape))


def drawn_arrays(shapes: dict[str, Any], backbone: Backbone | None, seed: int) -> dict:
    """Arrays by PyTorch name for a tree of variables or their shapes."""
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(shapes, sep="/"))
    names = torch_names(shapes, backbone)
    return {names[path]: draw(names[path], torch_shape(flat[path].shape), seed) for path in flat}


def read_from_checkpoint(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays after they were saved as the papers' authors did, in PyTorch's older form."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        write_legacy(path, state_dict(arrays))
        return read_checkpoint(path).arrays


def drawn_variables(model: nn.Module, backbone: Backbone | None, seed: int) -> dict[str, Any]:
    """Variables of a network by collection."""
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    arrays = read_from_checkpoint(drawn_arrays(shapes, backbone, seed))
    return import_arrays(shapes, arrays, backbone=backbone)


def torch_norm(value: jax.Array | np.ndarray) -> float:
    """The norm of a parameter (our layout) with the rounding of PyTorch's sum on a CPU.

    It adds squares in PyTorch's order in eight float32 lanes: 0.1 % too small for 19 M numbers, and
    the reference norms have that in them.
    """
    array = np.asarray(value, np.float32)
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    squares = np.square(array.ravel())
    squares = np.pad(squares, (0, -squares.size % 8)).reshape(-1, 8)
    return float(np.sqrt(np.cumsum(squares, 0, dtype=np.float32)[-1].sum(dtype=np.float32)))


class Reference(NamedTuple):
    """Reference values, and what this program makes of the same weights and images."""

    golden: dict[str, np.ndarray]
    terms: dict[str, jax.Array]
    maps: dict[str, jax.Array]
    norms: dict[str, float]  # of the gradients, by the parameters' names in PyTorch

    def check_maps(self, theirs: dict[str, str]) -> None:
        """Our maps are those whose name `theirs` tells."""
        for ours, name in theirs.items():
            scale = np.abs(self.golden[name]).max()
            np.testing.assert_allclose(
                self.maps[ours], self.golden[name], rtol=1e-4, atol=1e-5 * scale
            )

    def check_losses(self) -> None:
        """The same terms with the same values."""
        expected = json.loads(str(self.golden["losses"]))
        assert set(self.terms) == set(expected)
        for name, value in expected.items():
            assert float(self.terms[name]) == pytest.approx(value, rel=1e-4), name

    def check_gradient_norms(self) -> None:
        """The same parameters are trained, and their gradients are as long."""
        expected = json.loads(str(self.golden["grad_norms"]))
        assert set(self.norms) == set(expected)
        for name, value in expected.items():
            assert self.norms[name] == pytest.approx(value, rel=5e-4), name


def compute_reference(path: Path, method: Cam | Seam) -> Reference:
    """One step of `method`, which has ResNet38 and no dropout, on the file's images."""
    with np.load(path) as file:
        golden = dict(file)
    variables = drawn_variables(method.model(), method.backbone, int(golden["seed"]))
    rules = assign_rules(variables["params"], method.param_rules())
    trained, frozen = split_frozen(variables["params"], rules)

    def objective(trained, frozen, statistics, image, labels):
        state = {"params": join(trained, frozen), "batch_stats": statistics}
        loss, terms, maps = method.objective(state, image, labels, jax.random.key(0))
        return loss, (terms, maps)

    (_, (terms, maps)), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        trained,
        frozen,
        variables["batch_stats"],
        jnp.asarray(golden["image"]),
        jnp.asarray(golden["labels"]),
    )
    names = torch_names(variables, method.backbone)
    norms = {names[f"params/{path}"]: torch_norm(value) for path, value in gradient.items()}
    return Reference(golden, terms, maps, norms)
