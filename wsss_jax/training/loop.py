"""The training loop for every method, with checkpoints, metrics and evaluations."""

import dataclasses
import functools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wsss_jax.errors import Interrupted, UserError
from wsss_jax.methods.base import Method
from wsss_jax.ops.sharding import traced_for
from wsss_jax.progress import Progress, come_further
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.compilations import Compilations
from wsss_jax.training.evaluation import Evaluations
from wsss_jax.training.metrics import MetricWriter, log_digest, lost_rows
from wsss_jax.training.optimizer import OptimizerSettings, assign_rules
from wsss_jax.training.placement import PlacedBatch, placed_ahead
from wsss_jax.training.signals import StopRequests, stop_requests
from wsss_jax.training.step import StepFunction, init_state, make_train_step, step_of
from wsss_jax.types import Batch, TrainState
from wsss_jax.viz.map_pictures import PICTURES, map_pictures

STEPS_AHEAD = 2
"""The number of dispatched steps beyond the one whose figures the host waits for."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The length of a run, and how often it logs and saves, in steps."""

    steps: int
    log_every: int
    image_every: int
    checkpoint_every: int


@dataclasses.dataclass
class Run:
    """Everything that the loop needs; see `fit`."""

    method: Method
    optimizer: OptimizerSettings
    mesh: Mesh
    schedule: Schedule
    batch_size: int
    batches: grain.DatasetIterator
    compilations: Compilations
    checkpoints: Checkpoints
    evaluations: Evaluations
    folder: Path
    ids: Sequence[str]
    log: Callable[[str], None]
    progress: Callable[..., Progress]


def fit(run: Run, params: PyTree, variables: PyTree, seed: int) -> tuple[TrainState, dict]:
    """Trains from `params` or from the newest checkpoint, and returns the state and figures.

    The memory of `params` and `variables` on the devices is released.

    Raises:
      Interrupted: SIGINT or SIGTERM came, and the step was finished and everything saved.
      UserError: the loss or its gradient is not finite; the message names the step and the images.
    """
    rules = assign_rules(params, run.method.param_rules())
    optimizer = run.optimizer.transformation(rules, run.schedule.steps)
    state = init_state(run.method, optimizer, params, variables, seed, run.mesh)
    for array in jax.tree.leaves((params, variables)):
        if isinstance(array, jax.Array):
            array.delete()  # The state has copies, and callers keep these until the end.
    main = jax.process_index() == 0
    with closing(placed_ahead(run.batches, run.mesh)) as batches:
        restored = run.checkpoints.restore(state, batches, run.log)
        start, noted, lost = 0, dict[str, Any](), list[str]()
        if restored is not None:
            state, start = restored, int(restored.step)
            run.log(f"resuming after step {start} of {run.schedule.steps}")
            noted = run.checkpoints.log_of(start)
            lost = lost_rows(run.folder, start, noted) if main else []
            for sentence in lost:
                run.log(f"WARNING: {sentence}")
        run.evaluations.resume(start)
        step_fn = make_train_step(run.method, optimizer, params, run.mesh, run.schedule.steps)
        with (
            MetricWriter(run.folder, enabled=main, resume_step=start if start else None) as writer,
            stop_requests(run.mesh) as stop,
            run.progress(run.schedule.steps, "training", unit="steps", initial=start) as bar,
        ):
            under_way = _UnderWay(run, writer, stop, bar, lost, noted.get("since_row", ()))
            state, seconds = _loop(run, state, start, step_fn, batches, under_way)
            run.checkpoints.wait()
    # A signal may have come after the last step had asked. Later ones are handled by the caller.
    if (answer := stop.ask()) is not None:
        stop.hear(answer)
    if stopping := stop.agreed:
        raise _stopped(stopping, run.schedule.steps)
    trained = (run.schedule.steps - start) * run.batch_size
    return state, {
        "steps": run.schedule.steps,
        "images_per_second": trained / seconds if trained else None,
        "seconds": seconds,
        "seconds_to_first_step": under_way.seconds_to_first_step,
        "compilations": run.compilations.compiled,
        "compilations_from_cache": run.compilations.from_cache,
        **run.evaluations.figures(),
        **({"warnings": lost} if lost else {}),
    }


def _loop(
    run: Run,
    state: TrainState,
    start: int,
    step_fn: StepFunction,
    batches: "grain.DatasetIterator[PlacedBatch]",
    under_way: "_UnderWay",
) -> tuple[TrainState, float]:
    plan, stop = run.schedule, under_way.stop
    maps_of = functools.partial(first_maps, run.method, plan.steps)
    draw_maps = jax.jit(traced_for(run.mesh, maps_of))
    began = time.monotonic()
    if start < plan.steps:
        run.log("compiling the first step")
    for step in range(start + 1, plan.steps + 1):
        host, batch = next(batches)
        last = step == plan.steps
        maps = {}
        if plan.image_every and step % plan.image_every == 0 and jax.process_count() == 1:
            maps = draw_maps(state, batch)  # before the step, which donates the state
        state, metrics = step_fn(state, batch)
        answer = stop.ask() if last or step % plan.log_every == 0 else None
        under_way.add(_Dispatched(step, host, metrics, maps, answer))
        saving = last or step % plan.checkpoint_every == 0
        evaluators = run.evaluations.due(step, last)
        # Before a state is saved or evaluated, all figures up to its step must be finite.
        under_way.fetch(0 if saving or evaluators else STEPS_AHEAD)
        if stopping := stop.agreed:
            under_way.fetch(0)
        if last:
            under_way.write(step)
        if evaluators:
            run.evaluations.run(evaluators, step, state, under_way.writer)
        if saving or stopping:
            run.checkpoints.save(state, batches, under_way.about_the_log(step))
        under_way.bar.update(1)
        if stopping:
            run.checkpoints.wait()
            raise _stopped(stopping, step)
    jax.block_until_ready(state.step)
    return state, time.monotonic() - began


def _stopped(stopping: str, step: int) -> Interrupted:
    return Interrupted(f"stopped by {stopping} after step {step}; everything is saved")


def first_maps(
    method: Method, total_steps: int, state: TrainState, batch: Batch
) -> dict[str, Array]:
    """Returns the maps of a step's first images, for which nothing but the forward pass is run."""
    maps = method.loss(step_of(state, batch, total_steps))[1].maps
    return {name: value[:PICTURES] for name, value in maps.items()}


@dataclasses.dataclass(frozen=True)
class _Dispatched:
    """A dispatched step: its batch on the host, and what it will have found on the devices."""

    step: int
    batch: Mapping[str, np.ndarray]
    metrics: Mapping[str, Array]
    maps: Mapping[str, Array]
    stop: Array | None


class _UnderWay:
    """The dispatched steps whose figures the host has not fetched, and their log.

    Fetching the figures of a step waits for the step. They are therefore fetched after later steps
    have been dispatched, so that the devices always have work.

    A row of the log has the means since the row before. A checkpoint keeps the figures since then
    (`since_row`), so the rows of a run that was interrupted are those of one that was not.
    """

    def __init__(
        self,
        run: Run,
        writer: MetricWriter,
        stop: StopRequests,
        bar: Progress,
        lost: list[str],
        since_row: Sequence[dict[str, float]],
    ):
        self._run, self.writer, self.stop, self.bar, self._lost = run, writer, stop, bar, lost
        # All rates at once and beforehand: a program for one of them would wait for the steps.
        steps = jnp.arange(run.schedule.steps)
        self._rates = np.asarray(jax.jit(jax.vmap(run.optimizer.rate(run.schedule.steps)))(steps))
        self._steps: deque[_Dispatched] = deque()
        self._window = list(since_row)
        self._since, self._timed = time.monotonic(), 0
        self.seconds_to_first_step: float | None = None

    def about_the_log(self, step: int) -> dict[str, Any]:
        """Returns what a checkpoint notes about the log; what was lost stays known."""
        found = {**log_digest(self._run.folder, step), "since_row": list(self._window)}
        return {**found, "lost": self._lost} if self._lost else found

    def add(self, dispatched: _Dispatched) -> None:
        """Adds a step that was dispatched."""
        come_further()  # Processes that wait for the step of another one have dispatched theirs.
        self._steps.append(dispatched)

    def fetch(self, leave: int) -> None:
        """Fetches what all steps except for the last `leave` found.

        Raises:
          UserError: a loss or a gradient is not finite.
        """
        while len(self._steps) > leave:
            one = self._steps.popleft()
            figures = {name: float(value) for name, value in jax.device_get(one.metrics).items()}
            if self.seconds_to_first_step is None:
                self._tell_first_step()
            _check_finite(self._run, figures, one.step, one.batch["index"])
            self._window.append(figures)
            self._timed += 1
            if one.maps:
                self.writer.images(one.step, map_pictures(one.batch, one.maps))
            if one.stop is not None:
                self.stop.hear(one.stop)
            if one.step % self._run.schedule.log_every == 0:
                self.write(one.step)

    def _tell_first_step(self) -> None:
        self.stop.finish_steps()
        found = self._run.compilations
        self.seconds_to_first_step = time.monotonic() - found.began
        self._run.log(
            f"first step after {self.seconds_to_first_step:.1f} s (compiling {found.seconds:.1f} s:"
            f" {found.compiled} programs compiled, {found.from_cache} from the cache)"
        )

    def write(self, step: int) -> None:
        """Writes the means since the last row, as the row of `step`."""
        if not self._window:
            return
        mean = {  # Another version of the program may have known fewer figures.
            name: float(np.mean([one[name] for one in self._window if name in one]))
            for name in self._window[-1]
        }
        now = time.monotonic()
        speed = self._timed * self._run.batch_size / max(now - self._since, 1e-9)
        self._since, self._timed, self._window = now, 0, []
        lr = float(self._rates[step - 1])
        self.writer.scalars(step, {**mean, "lr": lr, "images_per_second": speed})
        figures = {"loss": mean["loss"], "images/s": speed, "memory": device_memory()}
        self.bar.update(0, **figures)


def _check_finite(run: Run, figures: dict[str, float], step: int, indices: np.ndarray) -> None:
    # A finite loss can have a gradient that is not finite, which spoils the next parameters.
    if math.isfinite(figures["loss"]) and math.isfinite(figures["grad_norm"]):
        return
    ids = ", ".join(run.ids[int(i)] for i in indices)
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    latest = run.checkpoints.latest_step()
    saved = "there is no checkpoint yet" if latest is None else f"step {latest}"
    raise UserError(
        f"expected a finite loss and gradient, found {', '.join(bad)} not finite at step {step}"
        f" with the images {ids}; last good checkpoint: {saved}; try a lower learning rate or"
        " dtype float32"
    )


def device_memory() -> str:
    """Returns the memory in use on the first local device or, if unknown, by the process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_in_use" in stats:
        return f"{stats['bytes_in_use'] / 2**30:.1f} GiB"
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # This is not Linux.
        return "unknown"
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
