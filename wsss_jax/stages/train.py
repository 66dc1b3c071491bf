"""Trains a method: ``checkpoints/``, ``metrics.jsonl``, ``tensorboard/`` and ``weights.npz``."""

import dataclasses
import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.affinity_labels import AffinityLabels
from wsss_jax.data.augment import Augment
from wsss_jax.data.loader import check_batch_size, training_batches
from wsss_jax.errors import UserError, nearest
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.methods.checks import check_method
from wsss_jax.ops.sharding import check_divisible, data_mesh, shardable
from wsss_jax.settings import name_of
from wsss_jax.settings.limits import check_limits
from wsss_jax.stages.base import Context, Need, Needs, SplitSize, expect
from wsss_jax.stages.crf import expect_alpha
from wsss_jax.stages.initial_weights import expect_same_network, initial_variables
from wsss_jax.stages.network import ASSUMED_CLASSES, NetworkStage
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.compilations import Compilations, compilations
from wsss_jax.training.evaluation import Evaluations
from wsss_jax.training.evaluators.base import Evaluator
from wsss_jax.training.learned import chance_loss, classification_loss, nothing_learned
from wsss_jax.training.loop import Run, Schedule, fit
from wsss_jax.training.metrics import read_metrics
from wsss_jax.training.optimizer import (
    OptimizerSettings,
    assign_rules,
    parameter_count,
    parameter_counts,
    split_frozen,
)
from wsss_jax.training.step import lower_train_step
from wsss_jax.training.step_cost import describe_step
from wsss_jax.training.targets import TargetSettings
from wsss_jax.weights import catalogue
from wsss_jax.weights.import_weights import check_backbone
from wsss_jax.weights.npz import save_weights

_NEEDS = ("init", "backbone", "masks", "labels")
_FEW_STEPS = 100
_LEARNED = 0.5  # of the classification loss of guessing
_POSITIVE = ("batch_size", "log_every", "keep")
_NOT_NEGATIVE = ("epochs", "steps", "image_every", "checkpoint_every", "num_threads", "prefetch")


_FLOAT32 = (
    "float32 products are taken at the rate of bfloat16, as TPUs compute them by default; GPUs"
    " reach half of it; activations in bfloat16 take half the bytes: method.dtype=bfloat16",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(TargetSettings, NetworkStage):
    """Trains a method: ``checkpoints/``, ``metrics.jsonl``, ``tensorboard/`` and ``weights.npz``.

    With a need ``init``, all weights start from those of that training stage; with a need
    ``backbone``, only those of the backbone do. The method states what it learns from besides
    images and their labels. Masks come from the stage of the need ``masks``, where their confidence
    reaches `least_confidence`, or with `ground_truth` from the data set itself. AffinityNet's
    labels come from two results, `affinity_alphas`, of the crf stage of the need ``labels``.

    Evaluators measure the network while it trains. If one keeps the best weights, they are in
    ``weights_best.npz``; ``weights.npz`` always holds those of the last step.

    Attributes:
      split: the split to train on.
      method: the training method.
      augment: random changes of the images.
      optimizer: the optimizer and its schedule.
      batch_size: the images of a step, over all devices and processes.
      epochs: the number of passes over the images, in whole batches.
      steps: if above 0, the length of the run in steps, regardless of `epochs`.
      init_weights: the checkpoint from which the backbone starts, as a file, a folder or a name of
        the catalogue (``efficientnet_lite0``), of several networks in a file with the one to take
        (``dino.pth,part=teacher``); "" for none.
      evaluators: the evaluators that measure during training, by name.
      log_every: the number of steps between two rows of metrics.
      image_every: the number of steps between two images of maps for TensorBoard; 0 for none.
      checkpoint_every: the number of steps between two checkpoints; 0 makes ten in a run.
      keep: the number of checkpoints to keep.
      num_threads: the number of threads that decode and augment images.
      prefetch: the number of batches that are kept ready.
    """

    no_effect: ClassVar[frozenset[str]] = frozenset(
        {"log_every", "image_every", "checkpoint_every", "keep", "num_threads", "prefetch"}
    )

    split: str = "train_aug"
    augment: Augment = dataclasses.field(default_factory=Augment)
    optimizer: OptimizerSettings
    batch_size: int
    epochs: int = 0
    steps: int = 0
    init_weights: str = ""
    evaluators: Mapping[str, Evaluator] = dataclasses.field(default_factory=dict)
    log_every: int = 10
    image_every: int = 200
    checkpoint_every: int = 200
    keep: int = 2
    num_threads: int = 2
    prefetch: int = 4

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: one of them makes no sense.
        """
        super().__post_init__()
        check_limits(self, **dict.fromkeys(_POSITIVE, (1, math.inf)))
        check_limits(self, **dict.fromkeys(_NOT_NEGATIVE, (0, math.inf)))
        keeping = [name for name, one in self.evaluators.items() if one.keep_best]
        if len(keeping) > 1:
            raise UserError(
                f"expected one evaluator with keep_best, found {', '.join(keeping)}: choose one"
            )
        if "loss" in self.evaluators:
            raise UserError("expected names of evaluators other than loss, found it: rename it")

    def splits(self) -> tuple[str, ...]:
        """The split to train on, and those of the evaluators in use; see `Stage`."""
        return tuple(dict.fromkeys((self.split, *(one.split for one in self._evaluated.values()))))

    @property
    def _evaluated(self) -> dict[str, Evaluator]:
        return {name: one for name, one in self.evaluators.items() if one.every}

    def files(self) -> dict[str, str]:
        """The file of weights; see `Stage`."""
        return {"init_weights": self.init_weights}

    def locate(self, setting: str) -> Path:
        """Finds weights that are named by a path or as in the catalogue; see `Stage`."""
        return catalogue.resolve(catalogue.divided(self.files()[setting])[0])

    def steps_for(self, images: int) -> int:
        """Steps of the run: whole batches per epoch times epochs, unless `steps` is set."""
        return self.steps or max(images // self.batch_size, 1) * self.epochs

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        self.method.check_trained()
        if not (self.steps or self.epochs):
            raise UserError("expected epochs or steps above 0, found 0 for both: set one")
        if self.init_weights:
            catalogue.check(self.init_weights, self.method.backbone)
        for name in needs:
            if name not in _NEEDS:
                raise UserError(
                    f"needs.{name} is no need of a training stage{nearest(name, _NEEDS)}"
                    f" (there are {', '.join(_NEEDS)})"
                )
        spec = self.method.batch_spec()
        spec.shapes(1, self.augment.crop, 1)
        self.check_targets(spec, needs)
        for name, one in self._evaluated.items():
            try:
                one.check(self.method)
            except UserError as error:
                raise UserError(f"evaluators.{name}: {error}") from error
        for name in ("init", "backbone"):
            if name in needs:
                expect(needs, name, "weights.npz")
                self._check_weights(name, needs[name])
        if "masks" in needs:
            expect(needs, "masks", "masks/")
        if self.least_confidence:
            expect(needs, "masks", "confidence/")
        if spec.affinity_stride:
            AffinityLabels(Path(), self.affinity_alphas, 1, spec.affinity_stride)
            expect(needs, "labels", "crf/")
            for alpha in self.affinity_alphas:
                expect_alpha(needs, "labels", alpha)

    def _check_weights(self, name: str, need: Need) -> None:
        """Refuses weights of another network; those of a stage of another kind are unknown."""
        if isinstance(need.stage, NetworkStage):
            theirs, mine = (s.method_for(ASSUMED_CLASSES) for s in (need.stage, self))
            expect_same_network(name, need.name, theirs, mine)

    def check_data(self, ctx: Context) -> None:
        """Refuses a batch larger than the split and evaluation without masks; checks the method."""
        source = ctx.source(self.split)
        check_batch_size(self.batch_size, len(source))
        super().check_data(ctx)
        for one in self._evaluated.values():
            one.check_source(ctx.source(one.split))

    def check_files(self, classes: int | None) -> None:
        """Refuses weights of another backbone; see `Stage`."""
        if self.init_weights:
            method = self.method_for(ASSUMED_CLASSES if classes is None else classes)
            _, part = catalogue.divided(self.init_weights)
            check_backbone(self.locate("init_weights"), method, part)

    def describe(self, sizes: Mapping[str, SplitSize], asked: bool) -> list[str]:
        """The length of the run; see `Stage`."""
        check_divisible(self.batch_size, data_mesh())
        size = sizes.get(self.split)
        if size is not None and asked:
            check_batch_size(self.batch_size, size.images)
            for name, one in self._evaluated.items():
                if one.split not in sizes:
                    raise UserError(
                        f"evaluators.{name}.split: expected a split of the data, found"
                        f" {one.split!r}{nearest(one.split, sizes)}: change it"
                    )
        check_method(self.method_for(_count_of_classes(size)))
        return [f"steps        {self._length(size)}"]

    def details(self, sizes: Mapping[str, SplitSize]) -> list[str]:
        """The method, its weights, and the cost of its steps; see `Stage`."""
        size = sizes.get(self.split)
        classes = _count_of_classes(size)
        method = self.method_for(classes)
        crop = self.augment.crop
        batch = method.batch_spec().shapes(self.batch_size, crop, classes)
        weights = [f"weights      {catalogue.whereabouts(self.init_weights)}"]
        return [
            f"method       {name_of(type(method))}, backbone {name_of(type(method.backbone))},"
            f" {classes} classes" + (" (assumed)" if size is None else ""),
            *(weights if self.init_weights else ()),
            f"batch        {self.batch_size} images of {crop} x {crop} on {jax.device_count()}"
            " device(s)",
            *describe_step(method, self.optimizer, batch),
        ]

    def programs(
        self, sizes: Mapping[str, SplitSize], needs: Needs, mesh: Mesh
    ) -> list[DeviceProgram]:
        """The training step; see `Stage`."""
        size = sizes.get(self.split)
        classes = _count_of_classes(size)
        method = self.method_for(classes)
        batch_size = shardable(self.batch_size, mesh)
        steps = self.steps
        if not steps and size is not None:
            steps = dataclasses.replace(self, batch_size=batch_size).steps_for(size.images)

        def lower(images: int) -> jax.stages.Lowered:
            batch = method.batch_spec().shapes(images, self.augment.crop, classes)
            return lower_train_step(method, self.optimizer, batch, mesh)

        return [
            DeviceProgram(
                name=f"training step, crop {self.augment.crop}, {method.dtype}",
                lower=lower,
                images=batch_size,
                asked=self.batch_size,
                executions=steps or None,
                devices=mesh.devices.size,
                growing=True,
                remarks=_FLOAT32 if method.dtype == "float32" else (),
            )
        ]

    def _length(self, size: SplitSize | None) -> str:
        if self.steps:
            return f"{self.steps:,} (set)"
        epochs = f"{self.epochs} epochs of floor("
        if size is None:
            return f"{epochs}images / {self.batch_size}), images not counted"
        steps = self.steps_for(size.images)
        few = f"; few: {self._enough(size.images)}" if steps < _FEW_STEPS else ""
        return f"{steps:,} = {epochs}{size.images:,} images / {self.batch_size}){few}"

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          Steps, seconds and images per second, the seconds until the first step was done, the
          numbers of programs that were compiled and that came from the cache, numbers of
          parameters, ``images`` and ``classes``; ``parameters_of``, the numbers of trained and
          frozen parameters of each part of the network; ``initial_weights``, what matched in each
          file that the weights are from (see `import_backbone`); of evaluators ``evaluations``, and
          ``best_step`` and ``best`` where weights are kept; of methods with a classification loss
          its value at the end, ``classification_loss``, and ``chance_loss``, that of guessing;
          ``warnings`` if there are any.

        Raises:
          UserError: weights or labels are missing, or a loss is not finite.
        """
        with compilations() as compiled:
            return self._train(ctx, inputs, compiled)

    def _train(
        self, ctx: Context, inputs: Mapping[str, Path], compiled: Compilations
    ) -> dict[str, Any]:
        if jax.default_backend() == "cpu":
            keep_freed_memory()
        source = ctx.source(self.split)
        mesh = data_mesh()
        check_divisible(self.batch_size, mesh)
        method = self.method_for(len(source.classes))
        params, variables, starts = initial_variables(method, ctx, self.init_weights, inputs)
        trainable, frozen = split_frozen(params, assign_rules(params, method.param_rules()))
        counts = parameter_counts(trainable, frozen)
        parts = ", ".join(f"{part} {sum(both.values()):,}" for part, both in counts.items())
        ctx.log(
            f"{parameter_count(trainable):,} parameters to train, {parameter_count(frozen):,}"
            f" frozen ({parts}); {len(source)} images, {mesh.devices.size} device(s)"
        )
        steps = self.steps_for(len(source))
        warnings = self._warn_of_few(ctx, steps, len(source))
        if not (self.init_weights or {"init", "backbone"} & inputs.keys()):
            ctx.log("the backbone starts from random numbers, because init_weights is empty")
        spec = method.batch_spec()
        batches = training_batches(
            source,
            batch_size=self.batch_size,
            augment=self.augment,
            seed=ctx.seed,
            steps=steps,
            process_index=ctx.process_index,
            process_count=ctx.process_count,
            spec=spec,
            targets=self.crop_targets(spec, source, inputs),
            num_threads=self.num_threads,
            prefetch=self.prefetch,
        )
        folder = ctx.stage_dir / "checkpoints"
        with closing(Checkpoints(folder, self.keep)) as checkpoints:
            training = Run(
                method=method,
                optimizer=self.optimizer,
                mesh=mesh,
                schedule=Schedule(
                    steps,
                    self.log_every,
                    self.image_every,
                    self.checkpoint_every or max(steps // 10, 1),
                ),
                batch_size=self.batch_size,
                batches=batches,
                compilations=compiled,
                checkpoints=checkpoints,
                evaluations=Evaluations(self.evaluators, method, ctx.source, ctx.stage_dir),
                folder=ctx.stage_dir,
                ids=source.ids,
                log=ctx.log,
                progress=ctx.progress,
            )
            state, figures = fit(training, params, variables, ctx.seed)
        if ctx.process_index == 0:
            final = method.inference_params(state.params, state.extra)
            save_weights(ctx.stage_dir / "weights.npz", final, state.model_state)
        rows = read_metrics(ctx.stage_dir)
        chance, loss = chance_loss(source), classification_loss(rows, steps)
        if loss is not None and loss < _LEARNED * chance:
            warnings = []  # These steps were enough.
        warnings += figures.pop("warnings", [])
        if warning := nothing_learned(loss, chance):
            warnings.append(ctx.warn(warning))
        return {
            **figures,
            **({} if loss is None else {"classification_loss": loss, "chance_loss": chance}),
            **({"warnings": warnings} if warnings else {}),
            "parameters": parameter_count(params),
            "trainable_parameters": parameter_count(trainable),
            "parameters_of": counts,
            "initial_weights": starts,
            "images": len(source),
            "classes": list(source.classes),
        }

    def _warn_of_few(self, ctx: Context, steps: int, images: int) -> list[str]:
        """Warns of a training that is too short to learn from ImageNet weights."""
        if steps >= _FEW_STEPS:
            return []
        enough = self._enough(images, f"--config.{ctx.stage}.")
        return [ctx.warn(f"{steps} steps are few: {enough}")]

    def _enough(self, images: int, prefix: str = "") -> str:
        enough = self.method.enough_steps
        setting = f"steps={enough}" if self.steps else f"epochs={self.enough_epochs(images)}"
        return f"this method needs about {enough}, which {prefix}{setting} makes"

    def enough_epochs(self, images: int) -> int:
        """Returns the epochs that make the steps that the method needs; see `Method`.

        Args:
          images: the number of images, of which there are enough for a batch.
        """
        return -(-self.method.enough_steps // max(images // self.batch_size, 1))


def _count_of_classes(size: SplitSize | None) -> int:
    return ASSUMED_CLASSES if size is None else size.classes
