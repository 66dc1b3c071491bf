"""Checkpoints of model and data iterator: written in the background, the newest valid restored.

Beside Orbax's files every checkpoint holds the checksums of them. Orbax alone notices most damage,
but not a changed bit in an array, and says what it noticed in hundreds of lines.
"""

import errno
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.files import read_json, write_json
from wsss_jax.types import TrainState

# Orbax logs every failure, with its traceback, before it raises it; asyncio those that follow.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda r: "exception was never retrieved" not in str(r.msg))

_SUMS = "checksums.json"
_ITEMS = ("state", "data")


class Checkpoints:
    """The checkpoints of one training run.

    Args:
      folder: created when missing.
      keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 2):
        folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # of a run that was killed while saving
            # Called when a checkpoint's files are complete, before it gets its name.
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=lambda: _write_checksums(folder)
            ),
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def save(self, state: TrainState, batches: grain.DatasetIterator) -> None:
        """Starts saving; the copy to host memory is done on return.

        Raises:
          UserError: the disk is full (here or in `wait`, for it is found in the background).
        """
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_plain(state)),  # pyright: ignore[reportCallIssue]
            data=grain.checkpoint.CheckpointSave(batches),  # pyright: ignore
        )
        with _full_disk_is_the_users(self._manager.directory):
            self._manager.save(int(state.step), args=arguments)

    def restore(
        self, state: TrainState, batches: grain.DatasetIterator, log: Callable[[str], None]
    ) -> TrainState | None:
        """The newest state that can be read, and `batches` moved to its position; None without one.

        A damaged checkpoint is named, removed and the one before is taken.

        Args:
          state: gives structure, shapes and placement.
          batches: the iterator to move.
          log: is told what was found.

        Raises:
          UserError: there are checkpoints and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(state))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract),  # pyright: ignore[reportCallIssue]
            data=grain.checkpoint.CheckpointRestore(batches),  # pyright: ignore
        )
        for step in steps:
            damage = _damage(Path(self._manager.directory) / str(step))
            if not damage:
                try:
                    restored = self._manager.restore(step, args=arguments)
                except Exception as error:  # whatever a damaged file makes the libraries raise
                    reason = str(error).strip().splitlines()
                    damage = f"{type(error).__name__}: {reason[0][:120] if reason else ''}"
                else:
                    for damaged in (s for s in steps if s > step):
                        self._manager.delete(damaged)
                    return _from_plain(state, restored["state"])
            log(f"the checkpoint of step {step} is damaged ({damage}); trying the one before")
        if steps:
            raise UserError(
                f"expected a readable checkpoint in {self._manager.directory}, found"
                f" {len(steps)} damaged: delete that folder to train anew"
            )
        return None

    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint."""
        self.wait()
        return self._manager.latest_step()

    def wait(self) -> None:
        """Returns once everything is on disk."""
        with _full_disk_is_the_users(self._manager.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        with _full_disk_is_the_users(self._manager.directory):
            self._manager.close()


def _plain(state: TrainState) -> dict[str, Any]:
    """The state as nested dicts of arrays; the random key as its integers."""
    return {
        "step": state.step,
        "params": state.params,
        "model_state": state.model_state,
        "extra": _indexed(state.extra),
        "opt_state": _indexed(state.opt_state),
        "rng": jax.random.key_data(state.rng),
    }


def _indexed(tree: PyTree) -> dict[str, Any]:
    """The leaves by number: optax's named tuples do not survive a restore as plain trees."""
    return {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(tree))}


def _from_plain(like: TrainState, plain: dict[str, Any]) -> TrainState:
    def rebuilt(tree: PyTree, leaves: dict[str, Any]) -> PyTree:
        structure = jax.tree.structure(tree)
        return jax.tree.unflatten(structure, [leaves[str(i)] for i in range(len(leaves))])

    return like.replace(  # pyright: ignore[reportAttributeAccessIssue]
        step=plain["step"],
        params=plain["params"],
        model_state=plain["model_state"],
        extra=rebuilt(like.extra, plain["extra"]),
        opt_state=rebuilt(like.opt_state, plain["opt_state"]),
        rng=jax.random.wrap_key_data(plain["rng"]),
    )


@contextmanager
def _full_disk_is_the_users(folder: os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # TensorStore's are ValueErrors with the system's words in them
        words = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)]
        if isinstance(error, UserError) or not any(word in str(error) for word in words):
            raise
        raise UserError(
            f"no space left on the device while writing {os.fspath(folder)}: free some space and"
            " run the same command again, it goes on from the last checkpoint"
        ) from error


def _write_checksums(folder: Path) -> None:
    if jax.process_index() != 0:
        return
    for checkpoint in folder.iterdir():
        if checkpoint.is_dir() and not (checkpoint / _SUMS).exists():
            write_json(checkpoint / _SUMS, _checksums(checkpoint))


def _checksums(checkpoint: Path) -> dict[str, list[int]]:
    """Size and checksum of every file that a restore needs."""
    sums: dict[str, list[int]] = {}
    for item in _ITEMS:
        for path in sorted((checkpoint / item).rglob("*")):
            if path.is_file():
                checksum = 0
                with path.open("rb") as file:
                    while part := file.read(1 << 20):
                        checksum = zlib.crc32(part, checksum)
                sums[path.relative_to(checkpoint).as_posix()] = [path.stat().st_size, checksum]
    return sums


def _damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint's files; empty when nothing is, or nothing is known."""
    if not (checkpoint / _SUMS).is_file():
        return ""
    try:
        expected = read_json(checkpoint / _SUMS)
    except UserError:
        return f"{_SUMS} is unreadable"
    found = _checksums(checkpoint)
    for name, sums in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != sums:
            return f"{name} {'is truncated' if found[name][0] < sums[0] else 'changed'}"
    return ""
