"""The dry run: what a command would do, the resolved recipe, and what a training step costs."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.extend.core import Var
from jaxtyping import PyTree
from ml_collections import ConfigDict

from wsss_jax.data.loader import check_batch_size
from wsss_jax.data.prepared import PreparedSource
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError
from wsss_jax.files import flatten
from wsss_jax.methods.base import Method, Step
from wsss_jax.ops.sharding import check_divisible, data_mesh
from wsss_jax.pipeline import graph, record, run
from wsss_jax.stages.train import Train
from wsss_jax.training.optimizer import (
    assign_rules,
    join,
    make_optimizer,
    parameter_count,
    split_frozen,
)

_VOC_CLASSES = 20  # assumed where the data is not at hand


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Size of a training step; memory in bytes, all devices together.

    Attributes:
      trainable: number of parameters that learn.
      frozen: number of those that do not.
      flops: floating-point operations of loss and gradient, counted by XLA before optimisation.
      parameters: memory of all parameters and other variables.
      gradients: memory of the gradients.
      optimizer: memory of the optimizer's state.
      activations: memory of what the backward pass needs from the forward pass, every array once.
    """

    trainable: int
    frozen: int
    flops: float
    parameters: int
    gradients: int
    optimizer: int
    activations: int


def describe(config: ConfigDict, workdir: Path, only: tuple[str, ...], force: bool) -> str:
    """The plan as text; nothing is written and no array is allocated.

    Raises:
      UserError: the config is wrong, or the devices cannot share its batch.
    """
    nodes = run.checked(config, only)
    sizes, digests, remarks = _data(config, nodes)
    plain = json.loads(config.to_json_best_effort())
    decisions = record.decide(nodes, plain, digests, workdir, only, force)
    lines = [f"workdir {workdir}" + ("" if workdir.exists() else " (new)"), "", "stages"]
    name_width = max(len(node.name) for node in nodes)
    for decision in decisions:
        node = decision.node
        needs = f" <- {', '.join(dict.fromkeys(node.needs.values()))}" if node.needs else ""
        lines.append(
            f"  {node.name:<{name_width}}  {decision.action:<6}  {node.type}{needs}:"
            f" {decision.reason}"
        )
    lines += ["", "data"]
    for split in sorted(digests):
        lines.append(f"  {split}: {remarks[split]}")
    for node in nodes:
        if isinstance(node.stage, Train):
            asked = not only or node.name in only
            size = sizes.get(node.stage.split)
            try:
                lines += ["", node.name, *_training(node.stage, size, asked)]
            except UserError as error:
                raise UserError(f"stage {node.name}: {error}") from error
    lines += ["", "values (replace one with --config.KEY=VALUE)"]
    lines += [f"  {key} = {value!r}" for key, value in flatten(config)]
    return "\n".join(lines)


def _data(
    config: ConfigDict, nodes: tuple[graph.Node, ...]
) -> tuple[dict[str, tuple[int, int]], dict[str, str | None], dict[str, str]]:
    """(images, classes) of each split that is at hand, its digest, and what is to say of others."""
    sizes: dict[str, tuple[int, int]] = {}
    digests: dict[str, str | None] = {}
    remarks: dict[str, str] = {}
    data = DataSettings.from_config(cast(Any, config.data), "data")
    for split in sorted({s for node in nodes for s in node.stage.splits()}):
        digests[split] = None
        try:
            builder = data.builder(split)
        except UserError as error:
            remarks[split] = f"data not found ({error})"
            continue
        sizes[split] = len(builder.ids), len(builder.classes)
        remarks[split] = f"{len(builder.ids):,} images"
        if Path(builder.data_dir).exists():
            digests[split] = PreparedSource(Path(builder.data_dir)).digest
        else:
            remarks[split] += ", to be prepared on the first run"
    return sizes, digests, remarks


def _training(stage: Train, size: tuple[int, int] | None, asked: bool) -> list[str]:
    images, classes = size or (None, _VOC_CLASSES)
    check_divisible(stage.batch_size, data_mesh())
    if images is not None and asked:
        check_batch_size(stage.batch_size, images)
    method = stage.method_for(classes)
    cost = step_cost(method, stage)
    optimizer, crop = stage.optimizer, stage.augment.crop
    backbone = dict(stage.method.get("backbone", {})).get("name", "none")
    lines = [
        f"  method       {stage.method['name']}, backbone {backbone},"
        f" {classes} classes" + ("" if size else " (assumed)"),
        f"  steps        {_steps(stage, images)}",
        f"  batch        {stage.batch_size} images of"
        f" {crop} x {crop} on {jax.device_count()} device(s)",
        f"  optimizer    {optimizer.get('name', 'sgd')}, lr {optimizer['lr']:g}, schedule"
        f" {optimizer.get('schedule', 'poly')}, momentum {optimizer.get('momentum', 0.0):g},"
        f" weight decay {optimizer.get('weight_decay', 0.0):g}",
        *_groups(method, crop, float(optimizer["lr"])),
        f"  parameters   {cost.trainable:,} trained, {cost.frozen:,} frozen",
        f"  FLOPs        {cost.flops / 1e9:,.1f} G per step (loss and gradient, counted by XLA)",
    ]
    memory = {
        "parameters": cost.parameters,
        "gradients": cost.gradients,
        "optimizer": cost.optimizer,
        "activations": cost.activations,
    }
    parts = " + ".join(f"{name} {_gib(value)}" for name, value in memory.items())
    total = sum(memory.values())
    devices = jax.device_count()
    if devices > 1:
        total = total - cost.activations + cost.activations // devices
    lines.append(
        f"  memory       up to {_gib(total)} per device in a step: {parts} (every array that the"
        " backward pass needs, once; compiled programs keep fewer)"
    )
    return lines


def _steps(stage: Train, images: int | None) -> str:
    if stage.steps:
        return f"{stage.steps:,} (set)"
    epochs, size = stage.epochs, stage.batch_size
    if images is None:
        return f"{epochs} epochs of floor(images / {size}), images not counted"
    steps = stage.steps_for(images)
    return f"{steps:,} = {epochs} epochs of floor({images:,} images / {size})"


def _groups(method: Method, crop: int, lr: float) -> list[str]:
    params, _ = _shapes(method, crop)
    rules = assign_rules(params, method.param_rules())
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    groups: dict[str, int] = {}
    for path, rule in rules.items():
        decay = "" if rule.decay else ", no weight decay"
        name = "frozen" if rule.frozen else f"lr {lr * rule.lr:g} (x{rule.lr:g}){decay}"
        groups[name] = groups.get(name, 0) + int(flat[path].size)
    return [f"    {name}: {count:,} parameters" for name, count in groups.items()]


def step_cost(method: Method, stage: Train) -> StepCost:
    """What one step of a training stage costs, from shapes alone."""
    params, variables = _shapes(method, stage.augment.crop)
    rules = assign_rules(params, method.param_rules())
    trainable, frozen = jax.eval_shape(lambda p: split_frozen(p, rules), params)
    extra = jax.eval_shape(method.init_extra, params)
    optimizer = make_optimizer(stage.optimizer, rules, 1)
    opt_state = jax.eval_shape(optimizer.init, trainable)
    spec = stage.batch_spec(method)
    batch = spec.shapes(stage.batch_size, stage.augment.crop, method.num_classes)
    rng = jax.eval_shape(jax.random.key, 0)
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def gradient(trainable, frozen, variables, extra, batch, rng, step):
        def loss(trainable):
            return method.loss(
                Step(
                    params=join(trainable, frozen),
                    model_state=variables,
                    extra=extra,
                    batch=batch,
                    rng=rng,
                    step=step,
                )
            )[0]

        value, backward = jax.vjp(loss, trainable)
        # A derivative is a tree of the arrays it needs: those kept from the forward pass.
        return jax.tree.leaves(backward), backward(jnp.ones_like(value))

    arguments = (trainable, frozen, variables, extra, batch, rng, step)
    traced = jax.jit(gradient).trace(*arguments)
    # As for a GPU, whatever runs it: XLA counts a loop's body once, and the layers written for CPUs
    # have loops.
    analysis = traced.lower(lowering_platforms=("cuda",)).cost_analysis() or {}
    program, count = traced.jaxpr.jaxpr, len(traced.out_info[0])
    given = {*program.invars, *program.constvars}
    kept = {v for v in program.outvars[:count] if isinstance(v, Var) and v not in given}
    return StepCost(
        trainable=parameter_count(trainable),
        frozen=parameter_count(frozen),
        flops=float(analysis.get("flops", 0.0)),
        parameters=_bytes((params, variables, extra)),
        gradients=_bytes(trainable),
        optimizer=_bytes(opt_state),
        activations=_bytes([v.aval for v in kept]),
    )


def _shapes(method: Method, crop: int) -> tuple[PyTree, PyTree]:
    image = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)
    variables = dict(jax.eval_shape(method.model().init, key, image))
    return variables.pop("params"), variables


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"
