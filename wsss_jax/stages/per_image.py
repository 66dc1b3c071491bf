"""One mechanism for work that makes files of one image after the other.

An image goes through three phases, which overlap: host threads prepare it (read, decode), the main
thread runs it on the device in batches with others, and host threads or processes finish it
(upsample, post-process, encode, write). While the device computes one group of images, the next
group is being prepared and the images before are being finished.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from wsss_jax.data.source import Source
from wsss_jax.data.threads import ahead, thread_count, thread_pool
from wsss_jax.errors import UserError
from wsss_jax.host.workers import process_pool, worker_count
from wsss_jax.progress import Progress
from wsss_jax.stages.base import Context, Stage

Size = tuple[int, int]
Result = TypeVar("Result")

_GROUP_IMAGES, _GROUP_PIXELS = 32, 8_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageWork(Generic[Result]):
    """What is done with each image of a source. Images go by their positions in it.

    Attributes:
      files: what a finished image has in the folder, such as ``masks/{id}.png``.
      prepare: makes an image's job; runs in threads.
      finish: takes an image's task and makes the files at the given paths, which are those of
        `files`, each of them whole or not at all. With `processes` it is a function of a module
        that imports no JAX, and its arguments are pickled.
      on_device: takes the jobs of a group and yields the position and the task of each, as soon as
        it has them; runs in the main thread. None: jobs are tasks.
      sizes: (height, width) of every image of the source, for `on_device`.
      processes: None: `finish` runs in threads; otherwise the number of processes that it runs in,
        0 for one for each core.
    """

    files: tuple[str, ...]
    prepare: Callable[[int], Any]
    finish: Callable[[Any, tuple[Path, ...]], Result]
    on_device: Callable[[Sequence[Any]], Iterable[tuple[int, Any]]] | None = None
    sizes: Sequence[Size] = ()
    processes: int | None = None


@dataclasses.dataclass(frozen=True)
class Done(Generic[Result]):
    """What `run_on_images` did.

    Attributes:
      kept: positions of the images that were finished before.
      results: what `ImageWork.finish` returned for the others, by position.
      workers: how many threads or processes finished images.
      seconds: how long it took.
    """

    kept: tuple[int, ...]
    results: Mapping[int, Result]
    workers: int
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        """None when nothing was left to do."""
        return len(self.results) / self.seconds if self.results else None


def run_on_images(
    ids: Sequence[str],
    folder: Path,
    positions: range,
    work: ImageWork[Result],
    progress: Callable[..., Progress],
) -> Done[Result]:
    """Makes the files of `positions` that `folder` lacks.

    Which images share a batch on the device never depends on what was there before: neither do the
    last bits of a result. After an exception, Ctrl-C too, images that are being finished still are,
    and the others are dropped.

    The groups of `groups_of` bound the memory: there are jobs of one group on the device and of the
    next one, and two tasks for each thread or process that finishes images. Threads do not finish
    more pixels at once than a group may have. Without a device, there is one more job for each
    thread or process.

    Args:
      ids: of all images of the source.
      folder: of the files.
      positions: which images this process does.
      work: see `ImageWork`.
      progress: opens a bar, given its ``total`` images and how many are done, ``initial``.

    Raises:
      UserError: `work` raised it, or a process was ended from outside. Other exceptions of `work`
        have a note with the image's id.
    """
    start = time.monotonic()
    paths = {p: tuple(folder / name.format(id=ids[p]) for name in work.files) for p in positions}
    kept = tuple(p for p in positions if all(path.is_file() for path in paths[p]))
    missing = sorted(set(positions).difference(kept))
    for name in work.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if work.processes is None:
        workers, finishers = thread_count(), thread_pool()
    else:
        workers = worker_count(work.processes, len(missing))
        finishers = process_pool(workers)
    results: dict[int, Result] = {}
    pending: dict[Future[Result], int] = {}

    def collect(block: bool) -> None:
        done = wait(pending, None if block else 0, FIRST_COMPLETED).done
        for future in [one for one in pending if one in done]:  # in the order they were begun
            position = pending.pop(future)
            with _named(ids[position]):
                results[position] = future.result()
            bar.update()

    def full(position: int) -> bool:
        if len(pending) >= 2 * workers or work.processes is not None or not work.sizes:
            return len(pending) >= 2 * workers
        pixels = sum(math.prod(work.sizes[p]) for p in (position, *pending.values()))
        return pixels > _GROUP_PIXELS

    with (
        progress(total=len(positions), initial=len(kept)) as bar,
        thread_pool() as readers,
        finishers as pool,
    ):
        with contextlib.closing(_tasks(ids, positions, missing, work, readers, workers)) as tasks:
            for position, task in tasks:
                collect(block=False)
                while pending and full(position):
                    collect(block=True)
                pending[pool.submit(work.finish, task, paths[position])] = position
        while pending:
            collect(block=True)
    if len(results) != len(missing):
        raise RuntimeError(f"expected the tasks of {len(missing)} images, found {len(results)}")
    return Done(kept, results, workers, time.monotonic() - start)


def groups_of(positions: range, sizes: Sequence[Size]) -> list[range]:
    """`positions` in runs of images that are on the device together.

    A run ends at 32 images, or at 8 million pixels, unless it is one image.

    Args:
      positions: images of this process.
      sizes: (height, width) of every image of the source.
    """
    found: list[range] = []
    start = pixels = 0
    for end, position in enumerate(positions):
        pixels += math.prod(sizes[position])
        if end > start and (end - start == _GROUP_IMAGES or pixels > _GROUP_PIXELS):
            found.append(positions[start:end])
            start, pixels = end, math.prod(sizes[position])
    return [*found, positions[start:]] if positions else []


def _tasks(
    ids: Sequence[str],
    positions: range,
    missing: Sequence[int],
    work: ImageWork[Any],
    readers: Executor,
    workers: int,
) -> Generator[tuple[int, Any]]:
    """Positions and tasks of the missing images, in the order in which they are ready."""

    def prepare(position: int) -> Any:
        with _named(ids[position]):
            return work.prepare(position)

    if work.on_device is None:
        for position, (job,) in zip(
            missing, ahead(readers, prepare, [[p] for p in missing], workers), strict=True
        ):
            yield position, job
        return
    wanted = set(missing)
    groups = [group for group in groups_of(positions, work.sizes) if wanted.intersection(group)]
    for jobs in ahead(readers, prepare, groups, 1):
        for position, task in work.on_device(jobs):
            if position in wanted:
                yield position, task


@contextlib.contextmanager
def _named(image_id: str) -> Iterator[None]:
    """Says of which image an exception is; a `UserError` says so itself."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"image {image_id}")
        raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerImageStage(Stage):
    """A stage that makes files of every image of a split, each independent of the others.

    Its `run` hands what is to be done to `on_images`. Finished images are kept. Processes share the
    images.

    Attributes:
      split: the images.
    """

    split: str

    def on_images(
        self, ctx: Context, source: Source, work: ImageWork[Result], label: str
    ) -> Done[Result]:
        """Does the share of this process, see `run_on_images`; `label` says what is going on."""
        mine = range(ctx.process_index, len(source), ctx.process_count)
        progress = functools.partial(ctx.progress, label=f"{label} of {self.split}")
        return run_on_images(source.ids, ctx.stage_dir, mine, work, progress)
