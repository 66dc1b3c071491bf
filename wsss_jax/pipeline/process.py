"""Sets up the process of a run: quiet logs, compilation cache, other processes and the lock."""

import contextlib
import dataclasses
import hashlib
import logging
import os
import platform
import re
import secrets
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # This is not Unix.
    resource = None

from filelock import FileLock, Timeout

from wsss_jax import interrupts
from wsss_jax.errors import UserError
from wsss_jax.pipeline.guardian import HEARTBEAT_SECONDS, START_AGAIN

WAIT_MINUTES = 120.0
"""How long processes wait for each other; the first one alone computes scores and thresholds."""

_owned: dict[Path, str] = {}
"""Who this process is in the folders that it has locked."""

_FILES, _LEAST_FILES = 4096, 64  # at once; every shard of prepared records stays open
_LEAST_ADDRESSES = 2 << 30  # A small training hung with 1.4 GiB and ran with 2.4 GiB.


def quiet() -> None:
    """Hides the messages of libraries; call it before JAX is imported.

    Warnings and errors about a run are still shown, and variables that the user has set are kept.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides XLA's log lines below errors
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("absl", "orbax", "grain", "jax._src.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not isinstance(sys.unraisablehook, _WithoutLateCallbacks):
        sys.unraisablehook = _WithoutLateCallbacks(sys.unraisablehook)


def check_limits() -> None:
    """Raises the limit on open files as far as needed and allowed.

    Raises:
      UserError: the limit is so low that libraries fail or hang.
    """
    if resource is None:
        return
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _LEAST_FILES:
        raise UserError(
            f"expected a limit of {_LEAST_FILES} or more open files, found {most}: raise it with"
            " ulimit -n"
        )
    if files < _FILES:
        with contextlib.suppress(ValueError, OSError):
            wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def check_addresses() -> None:
    """Refuses a limit on addresses (ulimit -v) with which JAX hangs while it compiles.

    Raises:
      UserError: there is such a limit.
    """
    if resource is None:
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and most < _LEAST_ADDRESSES:
        raise UserError(
            f"expected a limit of {_LEAST_ADDRESSES >> 30} GiB of addresses or more, found"
            f" {most / 2**30:.2g} GiB: raise it with ulimit -v; a control group limits memory"
        )


class _WithoutLateCallbacks:
    """A hook for exceptions that nobody handles, which leaves out those of a failed checkpoint.

    TensorStore goes on to report arrays to a loop that was closed at the first failure, which the
    run reports itself.
    """

    def __init__(self, others: Callable[[Any], object]):
        self._others = others

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if isinstance(error, KeyboardInterrupt) and interrupts.watching():
            return  # It came in a callback of a library, and the process is ended soon.
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._others(unraisable)


def compilation_cache() -> None:
    """Keeps compiled programs on the disk, so that the second run of a recipe starts immediately.

    They are in ``$XDG_CACHE_HOME/wsss_jax/xla``, in one folder per kind of machine, because a
    program for another processor may not run on this one. JAX's own ``JAX_COMPILATION_CACHE_DIR``
    and ``JAX_ENABLE_COMPILATION_CACHE=false`` are respected.
    """
    import jax

    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return
    folder = cache_folder() / "xla" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # The home is read-only, so there is no cache.
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def cache_folder() -> Path:
    """Returns the folder for what can be computed again, ``$XDG_CACHE_HOME/wsss_jax``."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsss_jax"
    except RuntimeError:  # This user has no home.
        return Path(tempfile.gettempdir()) / "wsss_jax"


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    named = sorted({li for li in lines if li.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(named or lines[:1]).encode()).hexdigest()[:12]


def join_processes(
    distributed: bool, coordinator: str, num_processes: int, process_id: int
) -> None:
    """Starts `jax.distributed` if the flags ask for it or SLURM or a TPU pod started several tasks.

    Raises:
      UserError: the flags are incomplete, or the other processes cannot be reached.
    """
    import jax

    arguments: dict[str, Any] = {}
    if coordinator:
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise UserError(
                "--coordinator needs --num_processes and --process_id below it,"
                f" found {num_processes} and {process_id}: change them"
            )
        arguments = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
    elif num_processes > 1 or process_id > 0:
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT")
    elif not joins_others(distributed, coordinator):
        return
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **arguments)
    except (RuntimeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise UserError(f"cannot join the other processes: {what}") from error


class Missing(UserError):
    """Some of the processes of a run did not come to where the others wait for them."""


@dataclasses.dataclass(frozen=True)
class Barrier:
    """Waits until all processes of a run have come to the same place.

    Attributes:
      minutes: how long.
    """

    minutes: float

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
          UserError: it is no time to wait.
        """
        if not 0 < self.minutes < 1e6:
            raise UserError(
                f"expected wait_minutes above 0 and below a million, found {self.minutes:g}: change"
                " --wait_minutes"
            )

    def __call__(self, place: str) -> None:
        """Waits at a place, which has a name that all processes use once.

        Raises:
          Missing: the time is over; the message says which processes did not come.
        """
        import jax
        from orbax.checkpoint import multihost

        try:
            multihost.get_barrier_sync_fn()(key=place, timeout_ms=round(60_000 * self.minutes))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            late = str(error).partition("timed out task names")[2]
            numbers = sorted({int(number) for number in re.findall(r"^(\d+)$", late, re.MULTILINE)})
            raise Missing(
                f"expected all {jax.process_count()} processes at the {place} within"
                f" {self.minutes:g} minutes of the first one, found that"
                f" {'process ' + ', '.join(map(str, numbers)) if numbers else 'some'} did not come:"
                f" {START_AGAIN}; --wait_minutes changes the time"
            ) from error


def joins_others(distributed: bool, coordinator: str) -> bool:
    """Returns whether `join_processes` starts `jax.distributed`, or refuses to."""
    return bool(coordinator) or distributed or _started_together()


def _started_together() -> bool:
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return (tasks.isdigit() and int(tasks) > 1) or "," in hosts


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Locks `workdir`, so that no second run works in it.

    The lock belongs to this process alone, not to children that it leaves behind, and ends with it.

    Raises:
      UserError: another run has the lock, or the folder cannot be written.
    """
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(f"cannot use --workdir {workdir}: {error.strerror}") from error
    # A soft lock, which is a file that exists, would outlive a run that was killed.
    held = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout as error:
        owner = path.read_text().strip() or "unknown"
        raise UserError(
            f"another run ({owner}) is working in {workdir}: wait for it to end, stop it, or"
            " choose another --workdir"
        ) from error
    except OSError:
        pass  # The file system has no locks.
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    path.write_text(f"{owner}\n")
    _owned[workdir] = owner
    try:
        _check_renaming(workdir)
        yield
    finally:
        del _owned[workdir]
        held.release()


def check_alone(workdir: Path) -> None:
    """Refuses to go on in a folder that this process has locked if another run began there since.

    That happens where locks do not reach other machines.

    Raises:
      UserError: there is another run.
    """
    path, owner = workdir / ".lock", _owned.get(workdir)
    if owner is None or not path.exists():
        return
    if (found := path.read_text().strip()) != owner:
        raise UserError(
            f"another run ({found}) has begun in {workdir} while this one worked there, on a disk"
            " whose locks do not reach other machines: this one has stopped"
        )


def _check_renaming(workdir: Path) -> None:
    """Refuses a disk where files and folders cannot appear whole, as some mounted buckets are."""
    from wsss_jax.files import atomic_write

    probe, target = (workdir / f".{name}-{secrets.token_hex(4)}" for name in ("probe", "renamed"))
    try:
        for _ in range(2):  # The second file replaces the first one.
            with atomic_write(probe / "file") as file:
                file.write(b"x")
        probe.rename(target)
    except OSError as error:
        raise UserError(
            f"expected a disk that renames files and folders at --workdir {workdir}, found one that"
            f" does not ({error.strerror}): choose another disk, or see docs/launch.md#buckets"
        ) from error
    finally:
        for folder in (probe, target):
            shutil.rmtree(folder, ignore_errors=True)
