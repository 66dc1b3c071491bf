"""The training loop, for every method: steps, checkpoints, metrics."""

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
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wsss_jax.errors import Interrupted, UserError
from wsss_jax.methods.base import Method
from wsss_jax.ops.sharding import global_batch
from wsss_jax.progress import Progress
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.metrics import MetricWriter
from wsss_jax.training.optimizer import assign_rules, make_optimizer, schedule
from wsss_jax.training.step import StepFunction, init_state, make_train_step, step_of
from wsss_jax.types import TrainState
from wsss_jax.viz.map_pictures import map_pictures


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
    step_fn: StepFunction,
    writer: MetricWriter,
    stop: list[str],
    bar: Progress,
) -> tuple[TrainState, float]:
    plan = run.schedule
    rate = schedule(run.optimizer_config, plan.steps)
    draw_maps = jax.jit(lambda state, batch: run.method.loss(step_of(state, batch))[1].maps)
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
