"""The phases of work on images: groups, overlap, memory, resuming, errors, interruption."""

import functools
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.toys.waiting import LONG, until
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.ops.buckets import Batch
from wsss_jax.progress import Progress
from wsss_jax.stages import per_image
from wsss_jax.stages.per_image import Done, ImageWork, run_on_images

REPOSITORY = Path(__file__).resolve().parents[2]
QUIET = functools.partial(Progress, label="toys", enabled=False)
FILES = ("notes/{id}.txt", "sums/{id}.txt")
SIZE = (1000, 2000)


def ids_of(count: int) -> list[str]:
    return [f"toy{i}" for i in range(count)]


class Job:
    """An image on its way; how many there are at once is counted."""

    alive = most = 0
    lock = threading.Lock()

    def __init__(self, position: int):
        self.position = position
        kind = type(self)
        with Job.lock:
            kind.alive += 1
            kind.most = max(kind.most, kind.alive)
        weakref.finalize(self, kind.end)

    @classmethod
    def end(cls) -> None:
        with cls.lock:
            cls.alive -= 1


class Task(Job):
    """A job after the device; counted for itself."""

    def __init__(self, position: int, group: Sequence[int]):
        super().__init__(position)
        self.group = tuple(group)


@pytest.fixture(autouse=True)
def _count_from_zero() -> None:
    for kind in (Job, Task):
        kind.alive = kind.most = 0


def fours(positions: Iterable[int]) -> list[Batch]:
    """Batches of four neighbors."""
    mine = tuple(positions)
    return [Batch((SIZE,), 4, mine[start : start + 4]) for start in range(0, len(mine), 4)]


def on_device(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
    """What an image shares a batch with; the last one is ready first."""
    assert tuple(job.position for job in jobs) == batch.positions
    for job in reversed(jobs):
        yield job.position, Task(job.position, [one.position for one in jobs])


def write(task: Task, paths: tuple[Path, ...]) -> int:
    for path, text in zip(paths, (str(task.group), str(sum(task.group))), strict=True):
        with atomic_write(path) as file:
            file.write(text.encode())
    return task.position


def work(count: int, **changes: Any) -> ImageWork[int]:
    given: dict[str, Any] = dict(files=FILES, prepare=Job, finish=write)
    given |= dict(plan=fours, on_device=on_device, sizes=[SIZE] * count)
    return ImageWork(**given | changes)


class Ran(NamedTuple):
    done: Done
    results: dict[int, int]


def run(folder: Path, count: int, positions: range | None = None, **changes: Any) -> Ran:
    every, found = range(count) if positions is None else positions, {}
    task = work(count, **changes)
    done = run_on_images(ids_of(count), folder, every, task, QUIET, found.__setitem__)
    assert done.made == len(found)
    return Ran(done, found)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_batches_are_those_of_the_plan_and_results_go_by_position(tmp_path: Path):
    done, results = run(tmp_path, 10)
    groups = [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    for group in groups:
        for position in group:
            assert (tmp_path / f"notes/toy{position}.txt").read_text() == str(group)
            assert (tmp_path / f"sums/toy{position}.txt").read_text() == str(sum(group))
    assert not len(done.kept) and results == {i: i for i in range(10)}
    assert done.images_per_second is not None and done.images_per_second > 0
    again, results = run(tmp_path, 10)
    assert again.kept.tolist() == list(range(10)) and results == {}
    assert again.images_per_second is None
    assert run(tmp_path / "nothing", 0).results == {}


def test_resuming_gives_the_same_bytes_and_keeps_what_is_there(tmp_path: Path):
    run(tmp_path / "whole", 10)
    whole = content(tmp_path / "whole")
    resumed = tmp_path / "resumed"
    for name in ("notes/toy1.txt", "sums/toy1.txt", "notes/toy6.txt", "sums/toy2.txt"):
        (resumed / name).parent.mkdir(parents=True, exist_ok=True)
        (resumed / name).write_bytes(whole[name])
    stamp = (resumed / "notes/toy1.txt").stat().st_mtime_ns
    done = run(resumed, 10).done
    assert done.kept.tolist() == [1]  # the others lack one of their files
    assert content(resumed) == whole
    assert (resumed / "notes/toy1.txt").stat().st_mtime_ns == stamp


def test_batches_without_a_missing_image_are_skipped(tmp_path: Path):
    run(tmp_path, 12, range(4, 8))
    groups: list[tuple[int, ...]] = []

    def noted(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
        groups.append(tuple(job.position for job in jobs))
        return on_device(batch, jobs)

    run(tmp_path, 12, on_device=noted)
    assert groups == [(0, 1, 2, 3), (8, 9, 10, 11)]


def test_processes_of_a_run_share_the_images(tmp_path: Path):
    shares = [run(tmp_path, 11, range(index, 11, 3)).results for index in range(3)]
    assert [sorted(share) for share in shares] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]
    assert len(content(tmp_path)) == 22
    assert run(tmp_path, 11).results == {}


def test_the_next_group_is_prepared_while_the_device_computes(tmp_path: Path):
    prepared = [threading.Event() for _ in range(12)]

    def prepare(position: int) -> Job:
        prepared[position].set()
        return Job(position)

    def device(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
        following = range(jobs[-1].position + 1, min(jobs[-1].position + 5, 12))
        assert all(prepared[position].wait(LONG) for position in following)
        return on_device(batch, jobs)

    assert len(run(tmp_path, 12, prepare=prepare, on_device=device).results) == 12


def test_a_batch_starts_before_the_one_before_has_ended(tmp_path: Path):
    """At most two batches are on the device, and their results are waited for in order."""
    log: list[tuple[str, int]] = []

    def device(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
        number = batch.positions[0] // 4
        log.append(("begun", number))

        def results() -> Iterator[tuple[int, Task]]:
            log.append(("awaited", number))
            yield from on_device(batch, jobs)

        return results()

    assert len(run(tmp_path, 12, on_device=device).results) == 12
    assert log == [
        *(("begun", 0), ("begun", 1), ("awaited", 0)),
        *(("begun", 2), ("awaited", 1), ("awaited", 2)),
    ]


def test_images_are_finished_while_the_device_computes(tmp_path: Path):
    begun = [threading.Event() for _ in range(3)]

    def device(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
        begun[jobs[0].position // 4].set()
        return on_device(batch, jobs)

    def finish(task: Task, paths: tuple[Path, ...]) -> int:
        following = min(task.position // 4 + 1, 2)
        # The last of a group to be finished wait for the group that follows.
        if task.position % 4 == 0:
            assert begun[following].wait(LONG)
        return write(task, paths)

    assert len(run(tmp_path, 12, on_device=device, finish=finish).results) == 12


@pytest.mark.parametrize("slow", ["prepare", "device", "finish"])
def test_few_images_are_in_memory_whatever_is_slow(
    tmp_path: Path, slow: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(per_image, "thread_count", lambda: 8)

    def wait(phase: str) -> None:
        time.sleep(0.01 if phase == slow else 0)

    def prepare(position: int) -> Job:
        wait("prepare")
        return Job(position)

    def device(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
        for position, task in on_device(batch, jobs):
            wait("device")
            yield position, task

    def finish(task: Task, paths: tuple[Path, ...]) -> int:
        wait("finish")
        return write(task, paths)

    run(tmp_path, 40, prepare=prepare, on_device=device, finish=finish)
    assert 4 < Job.most <= 4 * 4  # two batches on the device, one ahead, one on its way
    assert 1 < Task.most <= 4 + 2  # 8 million pixels; one waits for room, one has just been done


def test_large_images_are_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(per_image, "thread_count", lambda: 8)
    finishing = 0

    def finish(task: Task, paths: tuple[Path, ...]) -> int:
        nonlocal finishing
        finishing += 1
        time.sleep(0.01)
        assert finishing == 1
        finishing -= 1
        return write(task, paths)

    sizes = [(3000, 4000)] * 6
    assert len(run(tmp_path, 6, finish=finish, sizes=sizes).results) == 6


def alone(position: int) -> Task:
    return Task(position, [position])


def test_few_tasks_are_in_memory_without_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(per_image, "thread_count", lambda: 2)

    def finish(task: Task, paths: tuple[Path, ...]) -> int:
        until(lambda: Task.most >= 3)  # others are prepared meanwhile
        time.sleep(0.005)
        return write(task, paths)

    done = run(tmp_path, 40, prepare=alone, finish=finish, on_device=None, sizes=())
    assert len(done.results) == 40
    assert 3 <= Task.most <= 2 * 2 + 2 + 2  # finishing, prepared, and on their way between


class Shut(Exception):
    """A mistake of the program."""


@pytest.mark.parametrize("phase", ["prepare", "finish"])
@pytest.mark.parametrize("device", [True, False])
def test_a_mistake_names_its_image(tmp_path: Path, phase: str, device: bool):
    first = Job if device else alone

    def fail(position: int, kind: type[Exception]) -> None:
        if position == 6:
            raise kind("there is something wrong")

    def attempt(kind: type[Exception]) -> None:
        def prepare(position: int) -> Any:
            if phase == "prepare":
                fail(position, kind)
            return first(position)

        def finish(task: Task, paths: tuple[Path, ...]) -> int:
            if phase == "finish":
                fail(task.position, kind)
            return write(task, paths)

        changes: dict[str, Any] = {} if device else dict(on_device=None, sizes=())
        run(tmp_path, 10, prepare=prepare, finish=finish, **changes)

    with pytest.raises(Shut, match="something wrong") as error:
        attempt(Shut)
    assert error.value.__notes__ == ["image toy6"]
    with pytest.raises(UserError, match="something wrong") as error:
        attempt(UserError)
    assert not hasattr(error.value, "__notes__")  # its message names the image
    assert "notes/toy6.txt" not in content(tmp_path)
    assert all(not path.name.startswith(".") for path in tmp_path.rglob("*"))
    assert set(run(tmp_path, 10).results) >= {6}
    assert len(content(tmp_path)) == 20


def test_a_forgotten_image_is_no_success(tmp_path: Path):
    with pytest.raises(RuntimeError, match="tasks of 6 images, found 4"):
        run(tmp_path, 6, on_device=lambda batch, jobs: list(on_device(batch, jobs))[:2])


def test_an_interruption_keeps_what_is_finished(tmp_path: Path):
    def device(batch: Batch, jobs: Sequence[Job]) -> Iterator[tuple[int, Task]]:
        if jobs[0].position == 12:  # the first two batches have been waited for
            raise KeyboardInterrupt
        return on_device(batch, jobs)

    run(tmp_path / "whole", 40)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", 40, on_device=device)
    assert set(threading.enumerate()) <= before
    kept, whole = content(tmp_path / "resumed"), content(tmp_path / "whole")
    assert len(kept) >= 8 and kept.items() <= whole.items()
    assert len(run(tmp_path / "resumed", 40).results) == 40 - len(kept) // 2
    assert content(tmp_path / "resumed") == whole


def test_files_that_are_not_as_noted_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture):
    task, every = work(10), range(10)

    def begin() -> list[int]:
        found: dict[int, int] = {}
        run_on_images(ids_of(10), tmp_path, every, task, QUIET, found.__setitem__, process=0)
        return sorted(found)

    assert begin() == [*every]
    whole = {name: data for name, data in content(tmp_path).items() if "_FILES" not in name}
    assert begin() == [] and capsys.readouterr().err == ""
    (tmp_path / "notes/toy3.txt").write_bytes(whole["notes/toy4.txt"])  # that of another image
    (tmp_path / "sums/toy7.txt").unlink()
    lines = (tmp_path / "_FILES-0.txt").read_text().splitlines(True)
    noted = [line for line in lines if "notes/toy5" not in line]  # killed before it was noted
    (tmp_path / "_FILES-0.txt").write_text("".join(noted))
    assert begin() == [3, 5, 7]
    said = capsys.readouterr().err
    assert said.startswith("note: 2 of 9 finished images have files that are not as the list in")
    assert said.endswith("says, such as toy3, and are made again\n")
    assert {n: data for n, data in content(tmp_path).items() if "_FILES" not in n} == whole
    assert begin() == []
    # Those of an earlier version, which noted nothing, are noted as they are.
    (tmp_path / "_FILES-0.txt").unlink()
    assert begin() == []
    (tmp_path / "notes/toy3.txt").write_bytes(b"others")
    assert begin() == [3]
