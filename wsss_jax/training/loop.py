"""The training loop, for every method: one jitted step over all devices, checkpoints, metrics."""

import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wsss_jax.errors import Interrupted, UserError
from wsss_jax.methods.base import Method
from wsss_jax.ops.sharding import divided, global_batch, replicated
from wsss_jax.progress import Progress
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.metrics import MetricWriter
from wsss_jax.training.optimizer import assign_rules, join, make_optimizer, schedule, split_frozen
from wsss_jax.types import Batch, TrainState
from wsss_jax.viz.map_pictures import map_pictures

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def init_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    variables: PyTree,
    seed: int,
    mesh: Mesh,
) -> TrainState:
    """The state before the first step, a copy on every device of `mesh`."""
    rules = assign_rules(params, method.param_rules())

    def build(params: PyTree, variables: PyTree) -> TrainState:
        trainable, _ = split_frozen(params, rules)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            state=variables,
            extra=method.init_extra(params),
            opt_state=optimizer.init(trainable),
            rng=jax.random.key(seed),
        )

    return jax.jit(build, out_shardings=replicated(mesh))(params, variables)


def make_train_step(
    method: Method, optimizer: optax.GradientTransformation, params: PyTree, mesh: Mesh
) -> Step:
    """The jitted step ``(state, global batch) -> (state, metrics)``; the state is donated.

    `params` gives the paths only. Frozen parameters are no variables of the gradient, so nothing is
    computed or kept for them. Every method is a pure function of the global batch: with the batch
    divided over the mesh the compiler inserts the reductions that a pmap would spell out.
    """
    rules = assign_rules(params, method.param_rules())

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        trainable, frozen = split_frozen(state.params, rules)
        rng = jax.random.fold_in(state.rng, state.step)

        def loss_of(trainable: PyTree):
            everything = join(trainable, frozen)
            return method.loss(everything, state.state, batch, rng, state.step, state.extra)

        (loss, aux), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
        params = join(optax.apply_updates(trainable, updates), frozen)  # pyright: ignore
        new = TrainState(
            step=state.step + 1,
            params=params,
            state=aux.state,
            extra=method.after_step(aux.extra, params),
            opt_state=opt_state,
            rng=state.rng,
        )
        terms = {name: value for name, value in aux.terms.items() if name != "loss"}
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(grad)) for grad in grads.values()))
        return new, {"loss": loss, "grad_norm": norm} | {
            f"loss/{name}": value for name, value in terms.items()
        }

    placed = replicated(mesh)
    return jax.jit(
        step, in_shardings=(placed, divided(mesh)), out_shardings=placed, donate_argnums=0
    )


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Length and rhythm of a run, in steps."""

    steps: int
    log_every: int
    image_every: int
    checkpoint_every: int


@dataclasses.dataclass
class Run:
    """Everything the loop needs; see `fit`."""

    method: Method
    optimizer_config: Mapping[str, Any]
    mesh: Mesh
    schedule: Schedule
    batch_size: int
    batches: grain.DatasetIterator
    checkpoints: Checkpoints
    folder: Path
    ids: list[str]
    log: Callable[[str], None]
    progress: Callable[..., Progress]


def fit(run: Run, params: PyTree, variables: PyTree, seed: int) -> tuple[TrainState, dict]:
    """Trains from `params` or from the newest checkpoint; returns the state and figures.

    Raises:
      Interrupted: SIGINT or SIGTERM came; the step was finished and everything saved.
      UserError: the loss is not finite; the step and the images are named.
    """
    rules = assign_rules(params, run.method.param_rules())
    optimizer = make_optimizer(run.optimizer_config, rules, run.schedule.steps)
    state = init_state(run.method, optimizer, params, variables, seed, run.mesh)
    restored = run.checkpoints.restore(state, run.batches, run.log)
    start = 0
    if restored is not None:
        state, start = restored, int(restored.step)
        run.log(f"going on after step {start} of {run.schedule.steps}")
    step_fn = make_train_step(run.method, optimizer, params, run.mesh)
    main = jax.process_index() == 0
    with (
        MetricWriter(run.folder, enabled=main, resume_step=start if start else None) as writer,
        _stop_requests() as stop,
        run.progress(run.schedule.steps, "training", unit="steps", initial=start) as bar,
    ):
        state, seconds = _loop(run, state, start, step_fn, writer, stop, bar)
    run.checkpoints.wait()
    trained = (run.schedule.steps - start) * run.batch_size
    return state, {
        "steps": run.schedule.steps,
        "images_per_second": trained / seconds if trained else None,
        "seconds": seconds,
    }


def _loop(
    run: Run,
    state: TrainState,
    start: int,
    step_fn: Step,
    writer: MetricWriter,
    stop: list[str],
    bar: Progress,
) -> tuple[TrainState, float]:
    plan = run.schedule
    rate = schedule(run.optimizer_config, plan.steps)
    draw_maps = jax.jit(
        lambda state, batch: (
            run.method.loss(state.params, state.state, batch, state.rng, state.step, state.extra)[
                1
            ].maps
        )
    )
    pending: list[dict[str, Array]] = []
    indices: np.ndarray | None = None
    began = window = time.monotonic()
    if start < plan.steps:
        run.log("compiling the first step")
    for step in range(start + 1, plan.steps + 1):
        host_batch = next(run.batches)
        batch = global_batch(host_batch, run.mesh)
        if plan.image_every and step % plan.image_every == 0 and jax.process_count() == 1:
            writer.images(step, map_pictures(host_batch, draw_maps(state, batch)))
        if pending:  # the last step's figures, fetched while the device is busy with this batch
            _check_finite(run, pending[-1], step - 1, indices)
        state, metrics = step_fn(state, batch)
        pending.append(metrics)
        indices = host_batch["index"]
        last = step == plan.steps
        stopping = _agreed(stop, ask=last or step % plan.log_every == 0)
        if step % plan.log_every == 0 or last or stopping:
            _check_finite(run, metrics, step, indices)
            mean = {k: float(np.mean([float(m[k]) for m in pending])) for k in metrics}
            now = time.monotonic()
            speed = len(pending) * run.batch_size / max(now - window, 1e-9)
            window, pending = now, []
            lr = float(np.asarray(rate(step - 1)))
            writer.scalars(step, {**mean, "lr": lr, "images_per_second": speed})
            figures = {"loss": mean["loss"], "images/s": speed, "memory": device_memory()}
            bar.update(0, **figures)
        if step % plan.checkpoint_every == 0 or last or stopping:
            _check_finite(run, metrics, step, indices)
            run.checkpoints.save(state, run.batches)
        bar.update(1)
        if stopping:
            run.checkpoints.wait()
            raise Interrupted(f"stopped by {stopping} after step {step}; everything is saved")
    jax.block_until_ready(state.step)
    return state, time.monotonic() - began


def _check_finite(
    run: Run, metrics: dict[str, Array], step: int, indices: np.ndarray | None
) -> None:
    # A finite loss may have a gradient that is not, and then the next parameters are not either.
    if math.isfinite(float(metrics["loss"])) and math.isfinite(float(metrics["grad_norm"])):
        return
    ids = ", ".join(run.ids[i] for i in indices) if indices is not None else "unknown"
    bad = [name for name, value in metrics.items() if not math.isfinite(float(value))]
    latest = run.checkpoints.latest_step()
    saved = "there is no checkpoint yet" if latest is None else f"step {latest}"
    raise UserError(
        f"expected a finite loss and gradient, found {', '.join(bad)} not finite at step {step}"
        f" with the images {ids}; last good checkpoint: {saved}; try a lower learning rate or"
        " dtype float32"
    )


def _agreed(stop: list[str], ask: bool) -> str:
    """The signal that asks to stop, the same answer on every process.

    Of several processes only where `ask` says so: asking the others costs a round trip.
    """
    if jax.process_count() == 1:
        return stop[0] if stop else ""
    if not ask:
        return ""
    anyone = multihost_utils.process_allgather(np.asarray(bool(stop)))
    return "a signal" if bool(np.any(anyone)) else ""


@contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Collects SIGINT and SIGTERM instead of dying; a second SIGINT dies after all."""
    requests: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(signal.Signals(number).name)

    try:
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: somebody else handles signals
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def device_memory() -> str:
    """Memory in use, on the first local device or, where it does not say, of the process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_in_use" in stats:
        return f"{stats['bytes_in_use'] / 2**30:.1f} GiB"
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return "unknown"
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
