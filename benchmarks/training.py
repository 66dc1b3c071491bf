"""The training step of a recipe, built as its training stage builds it, for random images.

The only file of the benchmarks that knows how methods, optimizers and steps are made.
"""

import argparse
import dataclasses
from typing import Any

import numpy as np

from wsss_jax.data.augment import Augment
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.ops.sharding import data_mesh, global_batch
from wsss_jax.pipeline.config import load_config
from wsss_jax.settings import name_of, settings_of
from wsss_jax.training.optimizer import OptimizerSettings, assign_rules
from wsss_jax.training.step import StepFunction, init_state, make_train_step
from wsss_jax.training.step_cost import step_cost
from wsss_jax.types import Batch, ParamRule, TrainState
from wsss_jax.weights.import_weights import torch_names

NUM_CLASSES = 20
_STEPS = 1000  # length of the schedule; a benchmark sees its beginning


@dataclasses.dataclass(frozen=True)
class Options:
    """What a benchmark changes of a recipe.

    Attributes:
      batch: images of a step; 0 is the recipe's.
      crop: side of the images in pixels; 0 is the recipe's.
      dtype: of the convolutions.
      stage: the recipe's training stage.
      lr: learning rate. Random weights are trained: a small one keeps them finite and costs the
        same.
      dropout: False turns it off, in the method and in its backbone.
      remat: False keeps all activations, whatever the recipe says.
    """

    batch: int = 0
    crop: int = 0
    dtype: str = "float32"
    stage: str = "train"
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
    section = _section(recipe, options.stage)["method"]
    return _changed(Method.from_config(section, "method", num_classes=NUM_CLASSES), options)


def flops(recipe: str, options: Options) -> float:
    """The floating-point work of a step's loss and gradient, without what `remat` repeats."""
    section = _section(recipe, options.stage)
    method = method_of(recipe, dataclasses.replace(options, remat=False))
    batch = method.batch_spec().shapes(*_sizes(section, options), NUM_CLASSES)
    return step_cost(method, optimizer_of(recipe, options), batch).flops


def twin_of(recipe: str, options: Options) -> dict[str, Any]:
    """`twin` of a recipe's training, from shapes alone, with its ``batch`` and ``crop``."""
    method = method_of(recipe, options)
    found = twin(method, optimizer_of(recipe, options), *variable_shapes(method))
    batch, crop = _sizes(_section(recipe, options.stage), options)
    return {**found, "batch": batch, "crop": crop}


def optimizer_of(recipe: str, options: Options) -> OptimizerSettings:
    """The recipe's optimizer with the learning rate of `options`."""
    section = _section(recipe, options.stage)["optimizer"]
    return OptimizerSettings.from_config({**section, "lr": options.lr})


def prepare(recipe: str, options: Options, devices: list[Any] | None = None) -> Training:
    """The recipe's training, at `options`, on `devices` (all of them where none are named)."""
    section, method = _section(recipe, options.stage), method_of(recipe, options)
    size, crop = _sizes(section, options)
    optimizer = optimizer_of(recipe, options)
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
        batch=global_batch(made_up_batch(method, size, crop), mesh),
    )


def made_up_batch(method: Method, size: int, crop: int) -> dict[str, np.ndarray]:
    """Random arrays of the form that the loader gives; an image has 1.5 classes.

    Masks have rectangles of the image's classes on background.
    """
    rng = np.random.default_rng(0)
    label = np.eye(NUM_CLASSES, dtype=np.float32)[rng.integers(0, NUM_CLASSES, size)]
    label[::2] = np.maximum(label[::2], label[::-1][: len(label[::2])])
    made: dict[str, np.ndarray] = {"label": label, "index": np.arange(size, dtype=np.int32)}
    for name, array in method.batch_spec().shapes(size, crop, NUM_CLASSES).items():
        if name in ("segmentation", "affinity_label"):
            masks = np.zeros(array.shape, np.uint8)
            side = array.shape[1]
            for image, classes in enumerate(label):
                for number, one in enumerate(np.flatnonzero(classes)):
                    top = number * side // 2
                    masks[image, top : top + side // 3, side // 4 : 3 * side // 4] = one + 1
            made[name] = masks
        elif array.dtype == bool:
            made[name] = np.ones(array.shape, bool)
        elif array.dtype == np.uint8:
            made[name] = rng.integers(0, 256, array.shape, np.uint8)
        elif name == "local_box":
            made[name] = np.full(array.shape, (0, 0, crop / 2, crop / 2), np.float32)
    return made


def described(method: Any) -> dict[str, dict[str, Any]]:
    """``method`` and ``backbone``, each with its name, its settings, and their defaults.

    Values are as JSON has them, so that another environment can compare them.
    """
    return {
        "method": {"name": type(method).__module__.rpartition(".")[2], **_fields(method)},
        "backbone": {"name": name_of(type(method.backbone)), **_fields(method.backbone)},
    }


def twin(method: Any, optimizer: OptimizerSettings, params: Any, variables: Any) -> dict[str, Any]:
    """What a program in PyTorch has to know about a training, as JSON.

    It has the method's and the backbone's fields (`described`), the rules of the parameters under
    PyTorch's names, and the optimizer. Of `params` and `variables` only the paths are used.
    """
    names = torch_names({"params": params, **variables}, method.backbone)
    rules = {
        names[f"params/{path}"]: {"lr": rule.lr, "decay": rule.decay, "frozen": rule.frozen}
        for path, rule in assign_rules(params, method.param_rules()).items()
    }
    return {
        **described(method),
        "rules": rules,
        "optimizer": dataclasses.asdict(optimizer),
        "num_classes": NUM_CLASSES,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that `Options` comes from."""
    add = parser.add_argument
    add("--batch", type=int, default=0, help="images of a step (0: the recipe's)")
    add("--crop", type=int, default=0, help="side of the images (0: the recipe's)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))


def _section(recipe: str, stage: str = "train") -> dict[str, Any]:
    config: Any = load_config(recipe)
    return config[stage].to_dict()


def _sizes(section: dict[str, Any], options: Options) -> tuple[int, int]:
    """Batch and crop."""
    return options.batch or section["batch_size"], options.crop or section["augment"]["crop"]


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
