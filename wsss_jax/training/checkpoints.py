"""Saves checkpoints of model and data iterator in the background, and restores the newest valid.

Besides Orbax's files, every checkpoint has their checksums, ``checksums.json``. Orbax alone notices
most damage, but not a changed bit in an array, and it reports damage in hundreds of lines. A
checkpoint without checksums is damaged too, since they are written before it gets its name. It also
has ``log.json``, which tells what the log of the run was when it was saved.

A checkpoint fits any number of devices and processes. Every process has all parameters, and the
position in the data is a number of batches, which is the same for all of them.
"""

import logging
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from wsss_jax.errors import UserError, told_if_no_space
from wsss_jax.files import write_json
from wsss_jax.records import check_fields, read_record
from wsss_jax.types import TrainState

# Orbax logs every failure with its traceback before it raises it, and asyncio logs failures that
# follow from it.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda r: "exception was never retrieved" not in str(r.msg))

_SUMS, _LOG = "checksums.json", "log.json"
_ITEMS = ("state", "data")


class Checkpoints:
    """The checkpoints of one training run.

    Args:
      folder: the folder, which is created if it does not exist.
      keep: the number of checkpoints to keep, the newest ones.

    Raises:
      UserError: the folder has a checkpoint that cannot even be listed.
    """

    def __init__(self, folder: Path, keep: int = 2):
        folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # from a run that was killed while saving
            # Orbax calls this when the files of a checkpoint are complete, before it is renamed.
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=lambda: _complete(folder, self._log)
            ),
        )
        self._log: Mapping[str, Any] = {}
        try:
            self._manager = ocp.CheckpointManager(folder, options=options)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # It reads what checkpoints say about themselves.
            raise UserError(
                f"expected readable checkpoints in {folder}, found a damaged one"
                f" ({type(error).__name__}): delete that folder to start again"
            ) from error

    def save(
        self, state: TrainState, batches: grain.DatasetIterator, log: Mapping[str, Any]
    ) -> None:
        """Starts to save a checkpoint; the copy to host memory is complete on return.

        Args:
          state: the state.
          batches: the iterator, whose position is saved.
          log: what `log_of` returns for this checkpoint.

        Raises:
          UserError: the disk is full. The background thread notices, so `wait` can raise it too.
        """
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_plain(state)),  # pyright: ignore[reportCallIssue]
            data=grain.checkpoint.CheckpointSave(batches),  # pyright: ignore
        )
        with told_if_no_space(self._manager.directory):
            self._manager.wait_until_finished()  # of the checkpoint before, which has its own log
            self._log = log
            self._manager.save(int(state.step), args=arguments)

    def restore(
        self, state: TrainState, batches: grain.DatasetIterator, log: Callable[[str], None]
    ) -> TrainState | None:
        """Returns the newest state that can be read, or None if there are no checkpoints.

        A damaged checkpoint is named and removed, and the one before it is used.

        Args:
          state: a state with the same structure, shapes and placement.
          batches: the iterator, which is moved to the position of the checkpoint.
          log: a function that is told what was found.

        Raises:
          UserError: there are checkpoints, but none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(state))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract),  # pyright: ignore[reportCallIssue]
        )
        for step in steps:
            folder = Path(self._manager.directory) / str(step)
            damage = _damage(folder)
            if not damage:
                try:
                    restored = self._manager.restore(step, args=arguments)
                    batches.set_state(_position(folder / "data"))
                    batches.start_prefetch()
                except UserError as error:
                    damage = str(error)
                except Exception as error:  # Damaged files make the libraries raise anything.
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
                f" {len(steps)} damaged: delete that folder to start again"
            )
        return None

    def log_of(self, step: int) -> dict[str, Any]:
        """Returns what was recorded about the log with a checkpoint, or an empty dict."""
        path = Path(self._manager.directory) / str(step) / _LOG
        if not path.exists():
            return {}
        return read_record(
            path, {}, "delete it", optional={"lost": list[str], "since_row": list[dict[str, float]]}
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest finished checkpoint, or None if there is none."""
        self.wait()
        return self._manager.latest_step()

    def wait(self) -> None:
        """Waits until everything is on the disk."""
        with told_if_no_space(self._manager.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on the disk and releases the folder."""
        with told_if_no_space(self._manager.directory):
            self._manager.close()


def _position(folder: Path) -> dict[str, Any]:
    """Returns the state of the iterator, which Grain saves once for each process that there was."""
    saved = sorted(folder.glob("process_*-of-*.json"))
    if not saved:
        raise UserError("the position in the data is missing")
    return read_record(saved[0], {}, "delete the checkpoint")


def _plain(state: TrainState) -> dict[str, Any]:
    """Returns the state as nested dicts of arrays, with the random key as integers."""
    return {
        "step": state.step,
        "params": state.params,
        "model_state": state.model_state,
        "extra": _indexed(state.extra),
        "opt_state": _indexed(state.opt_state),
        "rng": jax.random.key_data(state.rng),
    }


def _indexed(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves by number, because plain trees do not restore optax's named tuples."""
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


def _complete(folder: Path, log: Mapping[str, Any]) -> None:
    if jax.process_index() != 0:
        return
    for checkpoint in folder.iterdir():
        if checkpoint.is_dir() and not (checkpoint / _SUMS).exists():
            write_json(checkpoint / _LOG, log)
            write_json(checkpoint / _SUMS, _checksums(checkpoint))


def _checksums(checkpoint: Path) -> dict[str, list[int]]:
    """Returns the size and the checksum of every file that a restore needs."""
    sums: dict[str, list[int]] = {}
    arrays = (path for item in _ITEMS for path in (checkpoint / item).rglob("*"))
    for path in (checkpoint / _LOG, *arrays):
        if path.is_file():
            checksum = 0
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    checksum = zlib.crc32(part, checksum)
            sums[path.relative_to(checkpoint).as_posix()] = [path.stat().st_size, checksum]
    return sums


def _damage(checkpoint: Path) -> str:
    """Returns what is wrong with the files of a checkpoint, or an empty string."""
    if not (checkpoint / _SUMS).exists():
        return f"{_SUMS} is missing"
    found = _checksums(checkpoint)
    try:
        expected = read_record(checkpoint / _SUMS, {}, "")
        check_fields(checkpoint, {"sums": [*expected.values()]}, {"sums": list[list[int]]}, "")
        sizes = {name: size for name, (size, _) in expected.items()}
    except (UserError, ValueError):  # It is no record, or has other numbers.
        return f"{_SUMS} is unreadable"
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} has no checksum"
        if found[name] != expected[name]:
            return f"{name} {'is truncated' if found[name][0] < sizes[name] else 'changed'}"
    return ""
