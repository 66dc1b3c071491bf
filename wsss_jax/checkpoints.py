"""Checkpoints of model and data iterator: written in the background, the newest valid restored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.types import TrainState


class Checkpoints:
    """The checkpoints of one training run.

    Args:
      folder: created when missing.
      keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: TrainState, batches: grain.DatasetIterator) -> None:
        """Starts saving; the copy to host memory is done on return."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_plain(state)),  # pyright: ignore[reportCallIssue]
            data=grain.checkpoint.CheckpointSave(batches),  # pyright: ignore
        )
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
        for step in steps:
            arguments = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),  # pyright: ignore[reportCallIssue]
                data=grain.checkpoint.CheckpointRestore(batches),  # pyright: ignore
            )
            try:
                restored = self._manager.restore(step, args=arguments)
            except Exception as error:  # whatever a damaged file makes the libraries raise
                reason = str(error).strip().splitlines()
                log(
                    f"checkpoint of step {step} is damaged"
                    f" ({type(error).__name__}: {reason[0][:120] if reason else ''});"
                    " trying the one before"
                )
                continue
            for damaged in (s for s in steps if s > step):
                self._manager.delete(damaged)
            return _from_plain(state, restored["state"])
        if steps:
            raise UserError(
                f"expected a readable checkpoint in {self._manager.directory}, found"
                f" {len(steps)} damaged: run again with --force to train anew"
            )
        return None

    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint."""
        self.wait()
        return self._manager.latest_step()

    def wait(self) -> None:
        """Returns once everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self._manager.close()


def _plain(state: TrainState) -> dict[str, Any]:
    """The state as nested dicts of arrays; the random key as its integers."""
    return {
        "step": state.step,
        "params": state.params,
        "state": state.state,
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
        state=plain["state"],
        extra=rebuilt(like.extra, plain["extra"]),
        opt_state=rebuilt(like.opt_state, plain["opt_state"]),
        rng=jax.random.wrap_key_data(plain["rng"]),
    )
