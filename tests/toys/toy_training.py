"""A method whose gradient is known, images that are made up, and a run on them."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from wsss_jax.data.augment import Augment
from wsss_jax.data.loader import training_batches
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.source import Record
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.variables import init_variables
from wsss_jax.models.base import Backbone
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.sharding import data_mesh, global_batch
from wsss_jax.progress import Progress
from wsss_jax.settings import supplied
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.compilations import compilations
from wsss_jax.training.evaluation import Evaluations
from wsss_jax.training.evaluators.base import Evaluator
from wsss_jax.training.loop import Run, Schedule, fit
from wsss_jax.training.optimizer import OptimizerSettings, assign_rules
from wsss_jax.training.step import init_state, make_train_step
from wsss_jax.types import ParamRule, TrainState

CLASSES, CROP, BATCH = 3, 32, 4


SGD = OptimizerSettings(lr=0.5, momentum=0.9, schedule="constant")
PLAIN = Augment(crop=CROP, long_side=(), flip=0.0, jitter_p=0.0, random_position=False)


class Points(nn.Module):
    """Two vectors: one to train, one that stays."""

    @nn.compact
    def __call__(self, x, valid=None, *, train: bool = False):
        self.param("stem", nn.initializers.normal(), (CLASSES,))
        return x[:, 0, 0] + self.param("head", nn.initializers.normal(), (CLASSES,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """Half the squared distance of `head` to the batch's mean label: its gradient is known.

    The loss of a batch with the image `bad` is not a number; `worse` spoils the gradient only.
    """

    num_classes: int = supplied(default=CLASSES)
    backbone: Backbone = dataclasses.field(default_factory=Tiny)
    bad: int = -1
    worse: int = -1

    def model(self) -> nn.Module:
        return Points()

    def param_rules(self) -> tuple[ParamRule, ...]:
        return ParamRule("stem", frozen=True), ParamRule(".*")

    def loss(self, step: Step):
        params, batch = step.params, step.batch
        loss = 0.5 * jnp.sum((params["head"] - batch["label"].mean(0)) ** 2)
        loss += jnp.where((batch["index"] == self.bad).any(), jnp.nan, 0.0)
        # The square root of zero is finite, its slope is not.
        spoilt = (batch["index"] == self.worse).any()
        loss += jnp.sqrt(jnp.where(spoilt, 0.0, 1.0) + 0.0 * params["head"].sum()) - 1.0
        loss += jnp.where(spoilt, 1.0, 0.0)
        maps = {"cam": jnp.broadcast_to(params["head"], (BATCH, 2, 2, CLASSES))}
        return loss, Aux(terms={"distance": loss}, maps=maps)

    def predict(self, variables, images, valid):
        return {}


@dataclasses.dataclass(frozen=True)
class Patches:
    """Noise with a patch in the color of the image's only class."""

    count: int = 12
    classes: tuple[str, ...] = ("red", "green", "blue")
    digest: str = "patches"

    @property
    def ids(self) -> list[str]:
        return [f"patch_{i}" for i in range(self.count)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(CROP, CROP)] * self.count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        rng = np.random.default_rng(index)
        image = rng.integers(60, 120, (CROP, CROP, 3)).astype(np.uint8)
        top, left = rng.integers(0, CROP // 2, 2)
        image[top : top + 16, left : left + 16, 2 - index % 3] = 250
        label = (np.arange(CLASSES) == index % 3).astype(np.float32)
        data = cv2.imencode(".png", image)[1].tobytes()
        return Record(
            id=self.ids[index], image=data, size=(CROP, CROP), label=label, segmentation=None
        )


class Masked(Patches):
    """With masks: the class of the image on its patch."""

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        image: Any = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR)
        mask = np.where(image.max(-1) == 250, index % 3 + 1, 0).astype(np.uint8)
        return {**record, "segmentation": encode_mask(mask, palette=False)}


class Bar(Progress):
    """Calls `at[step]` when that step is done."""

    def __init__(self, total: int, label: str, unit: str, initial: int, at: dict[int, Callable]):
        super().__init__(total, label, unit, False, initial)
        self._at, self._step = at, initial

    def update(self, count: int = 1, **figures: float | str) -> None:
        self._step += count
        if count and self._step in self._at:
            self._at[self._step]()


def batches(steps: int):
    source: Any = Patches()
    return training_batches(
        source,
        batch_size=BATCH,
        augment=PLAIN,
        seed=1,
        steps=steps,
        num_threads=1,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def train(
    folder: Path,
    steps: int,
    method: Any = None,
    optimizer: OptimizerSettings = SGD,
    evaluators: Mapping[str, Evaluator] = MappingProxyType({}),
    at: dict[int, Callable] | None = None,
    log: Callable[[str], None] = lambda _: None,
    image_every: int = 0,
    checkpoint_every: int = 2,
    log_every: int = 1,
) -> tuple[TrainState, dict]:
    """A run as the stage has it; of the checkpoints two are kept."""
    method = method or Toy()
    masked: Any = lambda split: Masked()  # noqa: E731
    checkpoints = Checkpoints(folder / "checkpoints")
    with compilations() as compiled, closing(checkpoints):
        params, variables = init_variables(method, 0)
        run = Run(
            method=method,
            optimizer=optimizer,
            mesh=data_mesh(),
            schedule=Schedule(steps, log_every, image_every, checkpoint_every),
            batch_size=BATCH,
            batches=batches(steps),
            compilations=compiled,
            checkpoints=checkpoints,
            evaluations=Evaluations(evaluators, method, masked, folder),
            folder=folder,
            ids=Patches().ids,
            log=log,
            progress=lambda total, label, unit, initial: Bar(total, label, unit, initial, at or {}),
        )
        return fit(run, params, variables, seed=0)


def same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def one_step(
    method: Any, optimizer: OptimizerSettings
) -> tuple[TrainState, TrainState, dict, dict]:
    """(state before, state after, metrics, batch) of a single step."""
    params, variables = init_variables(method, 0)
    transform = optimizer.transformation(assign_rules(params, method.param_rules()), 10)
    mesh = data_mesh()
    state = init_state(method, transform, params, variables, 0, mesh)
    before = jax.tree.map(jnp.copy, state)  # the step consumes its argument
    batch = next(batches(1))
    step = make_train_step(method, transform, params, mesh)
    after, metrics = step(state, global_batch(batch, mesh))
    return before, after, metrics, batch


def tiny_cam() -> Any:
    """The baseline with a tiny backbone."""
    return Cam(num_classes=CLASSES, dropout=0.0, backbone=Tiny(width=8))
