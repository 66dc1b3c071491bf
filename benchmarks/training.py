"""The training step of a recipe, built as the training stage builds it, for random images.

The only file of the benchmarks that knows how methods, optimizers and steps are made.
"""

import argparse
import dataclasses
from typing import Any

import numpy as np

from wsss_jax.data.augment import Augment
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables
from wsss_jax.ops.sharding import data_mesh, global_batch
from wsss_jax.pipeline.config import load_config
from wsss_jax.settings import name_of, settings_of
from wsss_jax.training.optimizer import OptimizerSettings, assign_rules
from wsss_jax.training.step import StepFunction, init_state, make_train_step
from wsss_jax.types import Batch, ParamRule, TrainState

NUM_CLASSES = 20
_STEPS = 1000  # length of the schedule; a benchmark sees its beginning


@dataclasses.dataclass(frozen=True)
class Options:
    """What a benchmark changes of a recipe.

    Attributes:
      batch: images of a step; 0 is the recipe's.
      crop: side of the images in pixels; 0 is the recipe's.
      dtype: of the convolutions.
      lr: learning rate. Random weights are trained: a small one keeps them finite and costs the
        same.
      dropout: False turns it off, in the method and in its backbone.
      remat: False keeps all activations, whatever the recipe says.
    """

    batch: int = 0
    crop: int = 0
    dtype: str = "float32"
    lr: float = 1e-6
    dropout: bool = True
    remat: bool = True


@dataclasses.dataclass(frozen=True)
class Training:
    """A recipe's method with its first variables, a step and a batch on the devices."""

    method: Method
    optimizer: OptimizerSettings
    params: Any
    variables: Any
    rules: dict[str, ParamRule]
    state: TrainState
    step: StepFunction
    batch: Batch


def augmentation(recipe: str) -> Augment:
    """What the recipe's training stage does to images."""
    return Augment(**_section(recipe)["augment"])


def method_of(recipe: str, options: Options) -> Any:
    """The method of the recipe's training stage, at `options`."""
    return _changed(
        Method.from_config(_section(recipe)["method"], "train.method", num_classes=NUM_CLASSES),
        options,
    )


def prepare(recipe: str, options: Options, devices: list[Any] | None = None) -> Training:
    """The recipe's training, at `options`, on `devices` (all of them where none are named)."""
    section, method = _section(recipe), method_of(recipe, options)
    crop, size = options.crop or section["augment"]["crop"], options.batch or section["batch_size"]
    optimizer = OptimizerSettings.from_config({**section["optimizer"], "lr": options.lr})
    params, variables = init_variables(method, 0)
    mesh = data_mesh(devices)
    rules = assign_rules(params, method.param_rules())
    transformation = optimizer.transformation(rules, _STEPS)
    return Training(
        method=method,
        optimizer=optimizer,
        params=params,
        variables=variables,
        rules=rules,
        state=init_state(method, transformation, params, variables, 0, mesh),
        step=make_train_step(method, transformation, params, mesh),
        batch=global_batch(made_up_batch(size, crop), mesh),
    )


def made_up_batch(size: int, crop: int) -> dict[str, np.ndarray]:
    """Random images and labels of the form that the loader gives; an image has 1.5 classes."""
    rng = np.random.default_rng(0)
    label = np.eye(NUM_CLASSES, dtype=np.float32)[rng.integers(0, NUM_CLASSES, size)]
    label[::2] = np.maximum(label[::2], label[::-1][: len(label[::2])])
    return {
        "image": rng.integers(0, 256, (size, crop, crop, 3), np.uint8),
        "valid": np.ones((size, crop, crop), bool),
        "label": label,
        "index": np.arange(size, dtype=np.int32),
    }


def described(method: Any) -> dict[str, dict[str, Any]]:
    """``method`` and ``backbone``, each with its name, its settings, and their defaults.

    Values are as JSON has them, so that another environment can compare them.
    """
    return {
        "method": {"name": type(method).__module__.rpartition(".")[2], **_fields(method)},
        "backbone": {"name": name_of(type(method.backbone)), **_fields(method.backbone)},
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that `Options` comes from."""
    add = parser.add_argument
    add("--batch", type=int, default=0, help="images of a step (0: the recipe's)")
    add("--crop", type=int, default=0, help="side of the images (0: the recipe's)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))


def _section(recipe: str) -> dict[str, Any]:
    config: Any = load_config(recipe)
    return config.train.to_dict()


def _fields(configured: Any) -> dict[str, dict[str, Any]]:
    own = settings_of(type(configured)).values()
    with_default = [one for one in own if one.default is not dataclasses.MISSING]
    return {
        "fields": {one.name: _plain(getattr(configured, one.name)) for one in with_default},
        "defaults": {one.name: _plain(one.default) for one in with_default},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _changed(method: Any, options: Options) -> Any:
    backbone = method.backbone
    changes: dict[str, Any] = {"dtype": options.dtype}
    if not options.remat and hasattr(backbone, "remat"):
        backbone = backbone.clone(remat=False)
    if not options.dropout:
        if hasattr(backbone, "dropout"):
            backbone = backbone.clone(dropout=_zeros(backbone.dropout))
        if hasattr(method, "dropout"):
            changes["dropout"] = _zeros(method.dropout)
    return dataclasses.replace(method, backbone=backbone, **changes)


def _zeros(rate: Any) -> Any:
    return tuple(0.0 for _ in rate) if isinstance(rate, tuple | list) else 0.0
