"""The mechanism of all stages that make files for one image after the other.

An image goes through three phases, which overlap. Host threads prepare it (read, decode, resize),
the main thread runs it on the device in a batch with others, and host threads or processes finish
it (post-process, encode, write). While the device computes one batch, the next one waits for it,
the following ones are being prepared, and the images before are being finished.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Int

from wsss_jax import console, digests
from wsss_jax.data.columns import Positions
from wsss_jax.data.source import Source
from wsss_jax.data.threads import ahead, thread_count, thread_pool
from wsss_jax.errors import UserError
from wsss_jax.host.workers import fitting_note, fitting_workers, process_pool, worker_count
from wsss_jax.ops.buckets import Batch
from wsss_jax.progress import Progress
from wsss_jax.stages.base import Context, Stage

Size = tuple[int, int]
Result = TypeVar("Result")

_PIXELS = 8_000_000
"""The most pixels of the images that are being prepared, or finished, at once."""
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageWork(Generic[Result]):
    """The work on each image of a source; images are named by their positions in it.

    Attributes:
      files: the files of a finished image in the folder, such as ``masks/{id}.png``.
      prepare: a function that makes the job of an image; it runs in threads.
      finish: a function that takes the task of an image and writes the given paths, which are those
        of `files`, each of them whole or not at all. With `processes`, it must belong to a module
        that does not import JAX, and its arguments are pickled.
      plan: a function that groups positions into batches for `on_device`.
      on_device: a function that takes a batch and its jobs, starts to compute, and returns an
        iterator, which waits for the positions and tasks of the images. The main thread calls both,
        and starts a batch before it waits for the one before. If it is None, jobs are tasks.
      sizes: (height, width) of every image of the source, for `on_device`.
      processes: the number of processes in which `finish` runs, or 0 for one per core. If it is
        None, `finish` runs in threads.
      process_bytes: the memory that each of these processes takes at most. There are fewer
        processes than `processes` if not all of them fit into free memory, which a note says.
    """

    files: tuple[str, ...]
    prepare: Callable[[int], Any]
    finish: Callable[[Any, tuple[Path, ...]], Result]
    plan: Callable[[Iterable[int]], Iterable[Batch]] | None = None
    on_device: Callable[[Batch, Sequence[Any]], Iterable[tuple[int, Any]]] | None = None
    sizes: Sequence[Size] = ()
    processes: int | None = None
    process_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Done:
    """The outcome of `run_on_images`.

    Attributes:
      kept: the positions of the images that were finished before.
      made: the number of the other images.
      workers: the number of threads or processes that finished images.
      seconds: the time that the work took.
    """

    kept: Int[np.ndarray, " n"]
    made: int
    workers: int
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        """The speed, or None if nothing was left to do."""
        return self.made / self.seconds if self.made else None


def run_on_images(
    ids: Sequence[str],
    folder: Path,
    positions: range,
    work: ImageWork[Result],
    progress: Callable[..., Progress],
    gather: Callable[[int, Result], object] = lambda position, result: None,
    at_most: int | None = None,
    process: int | None = None,
) -> Done:
    """Makes the files of `positions` that are missing from `folder`.

    The images that share a batch on the device never depend on which files exist already, and so
    neither do the last bits of a result. After an exception, including Ctrl-C, the images that are
    being finished are completed, and the others are dropped.

    At any time, there are the jobs of two batches on the device, those of the following batches,
    and two tasks for each thread or process that finishes images. The following batches have at
    most one image per thread and 8 million pixels, or are a single batch. Threads finish at most 8
    million pixels at once, or one image. Without a device, there is one more job for each thread or
    process.

    Args:
      ids: the ids of all images of the source.
      folder: the folder of the files.
      positions: the images of this process.
      work: the work on each image.
      progress: a function that opens a progress bar for ``total`` images of which ``initial`` are
        done.
      gather: a function that gets the position of each image and what `ImageWork.finish` returned
        for it, in the caller's thread.
      at_most: if given, the number of images after which the others are left for later.
      process: if given, the number of this process. Files are then noted in a list (see
        `wsss_jax.digests`), and made again if they are not as the list says.

    Raises:
      UserError: `work` raised it, or a process was killed. Other exceptions of `work` get a note
        with the id of the image.
    """
    start = time.monotonic()

    def paths(position: int) -> tuple[Path, ...]:
        return tuple(folder / name.format(id=ids[position]) for name in work.files)

    wanted = np.zeros(len(ids), bool)
    for position in positions:
        wanted[position] = not all(path.is_file() for path in paths(position))
    own = np.arange(len(ids))[positions.start : positions.stop : positions.step]
    if process is not None:
        there = np.zeros(len(ids), bool)
        there[own] = ~wanted[own]
        if there.any() and not digests.has_list(folder):  # An earlier version noted nothing.
            _note(folder, process, (paths(int(position)) for position in np.flatnonzero(there)))
        elif again := [
            int(p) for p in np.flatnonzero(there & ~_noted(ids, folder, work.files, there))
        ]:
            wanted[again] = True
            console.note(
                f"{len(again)} of {there.sum()} finished images have files that are not as the list"
                f" in {folder} says, such as {ids[again[0]]}, and are made again"
            )
    kept = own[~wanted[own]]
    if at_most is not None:
        wanted[np.flatnonzero(wanted)[at_most:]] = False
    count = int(wanted.sum())
    for name in work.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if work.processes is None:
        workers, finishers = thread_count(), thread_pool()
    else:
        workers = worker_count(work.processes, count)
        if count and (fitting := fitting_workers(workers, work.process_bytes)) < workers:
            console.note(fitting_note(fitting, workers, work.process_bytes))
            workers = fitting
        finishers = process_pool(workers)
    made = 0
    pending: dict[Future[Any], int] = {}
    finish: Callable[[Any, tuple[Path, ...]], Any] = work.finish
    if process is not None:
        finish = functools.partial(digests.write_and_note, work.finish, folder)

    def collect(block: bool) -> None:
        nonlocal made
        done = wait(pending, None if block else 0, FIRST_COMPLETED).done
        for future in [one for one in pending if one in done]:  # in the order of submission
            position = pending.pop(future)
            with _named(ids[position]):
                result = future.result()
            if file_list is not None:
                result, written = result
                file_list.add(written)
            gather(position, result)
            made += 1
            bar.update()

    def full(position: int) -> bool:
        if len(pending) >= 2 * workers or work.processes is not None or not work.sizes:
            return len(pending) >= 2 * workers
        pixels = sum(math.prod(work.sizes[p]) for p in (position, *pending.values()))
        return pixels > _PIXELS

    with (
        progress(total=len(positions), initial=len(kept)) as bar,
        thread_pool() as readers,
        finishers as pool,
        contextlib.nullcontext()
        if process is None
        else digests.FileList(folder, process) as file_list,
    ):
        with contextlib.closing(_tasks(ids, positions, wanted, work, readers, workers)) as tasks:
            for position, task in tasks:
                collect(block=False)
                while pending and full(position):
                    collect(block=True)
                pending[pool.submit(finish, task, paths(position))] = position
        while pending:
            collect(block=True)
    if made != count:
        raise RuntimeError(f"expected the tasks of {count} images, found {made}")
    return Done(kept, made, workers, time.monotonic() - start)


def _note(folder: Path, process: int, files: Iterable[tuple[Path, ...]]) -> None:
    with digests.FileList(folder, process) as noted:
        for paths in files:
            names = (path.relative_to(folder).as_posix() for path in paths)
            noted.add(digests.found(folder, name) for name in names)


def _noted(
    ids: Sequence[str], folder: Path, files: Sequence[str], there: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Returns which of the images that are `there` have only files as a list of the folder says."""
    noted = np.zeros((len(files), len(ids)), bool)
    if not there.any():
        return np.asarray(noted.all(0))
    positions = Positions(ids)
    affixes = [name.split("{id}") for name in files]

    def place(name: str) -> tuple[int, int]:
        for row, (start, end) in enumerate(affixes):
            if name.startswith(start) and name.endswith(end):
                found = positions.find([name[len(start) : len(name) - len(end)].encode()])
                return (row, int(found[0])) if len(found) else (0, -1)
        return 0, -1

    def asked(name: str) -> bool:
        position = place(name)[1]
        return position >= 0 and bool(there[position])

    for name in digests.intact(folder, asked):
        noted[place(name)] = True
    return np.asarray(noted.all(0))


def _tasks(
    ids: Sequence[str],
    positions: range,
    wanted: Bool[np.ndarray, " n"],
    work: ImageWork[Any],
    readers: Executor,
    workers: int,
) -> Generator[tuple[int, Any]]:
    """Yields the positions and tasks of the missing images, in the order they are ready."""

    def prepare(position: int) -> Any:
        with _named(ids[position]):
            return work.prepare(position)

    if work.on_device is None or work.plan is None:
        missing = np.flatnonzero(wanted)
        jobs = ahead(readers, prepare, ([int(p)] for p in missing), workers)
        for position, (job,) in zip(missing, jobs, strict=True):
            yield int(position), job
        return
    batches = [one for one in work.plan(positions) if wanted[[*one.positions]].any()]
    images = max((len(one.positions) for one in batches), default=1)
    pixels = max((math.prod(work.sizes[int(p)]) for p in np.flatnonzero(wanted)), default=1)
    depth = max(min(_PIXELS // pixels, thread_count()) // images, 1)
    begun: deque[Iterator[tuple[int, Any]]] = deque()

    def ended() -> Iterator[tuple[int, Any]]:
        return ((position, task) for position, task in begun.popleft() if wanted[position])

    groups = ahead(readers, prepare, [one.positions for one in batches], depth)
    for batch, jobs in zip(batches, groups, strict=True):
        begun.append(iter(work.on_device(batch, jobs)))
        if len(begun) == _IN_FLIGHT:
            yield from ended()
    while begun:
        yield from ended()


@contextlib.contextmanager
def _named(image_id: str) -> Iterator[None]:
    """Adds the id of the image to exceptions, except to a `UserError`, which names it itself."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"image {image_id}")
        raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerImageStage(Stage):
    """A stage that makes files for every image of a split, independently of the other images.

    Its `run` passes the work to `on_images`. Finished images are kept, and processes share the
    images.

    Attributes:
      split: the split whose images are processed.
    """

    split: str

    def on_images(
        self,
        ctx: Context,
        source: Source,
        work: ImageWork[Result],
        label: str,
        gather: Callable[[int, Result], object] = lambda position, result: None,
        at_most: int | None = None,
    ) -> Done:
        """Does this process's share with `run_on_images`; the progress bar shows `label`."""
        mine = range(ctx.process_index, len(source), ctx.process_count)
        progress = functools.partial(ctx.progress, label=f"{label} of {self.split}")
        return run_on_images(
            source.ids, ctx.stage_dir, mine, work, progress, gather, at_most, ctx.process_index
        )
