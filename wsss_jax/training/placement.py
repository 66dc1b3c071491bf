"""Places batches on the devices before the steps that use them are dispatched."""

from typing import Any, NamedTuple

import grain
import numpy as np
from jax.sharding import Mesh

from wsss_jax.ops.sharding import global_batch
from wsss_jax.types import Batch

BATCHES_AHEAD = 2
"""The number of batches on the devices that wait for their steps."""


class PlacedBatch(NamedTuple):
    """This process's part of a batch, on the host, and the global batch on the devices."""

    host: dict[str, np.ndarray]
    devices: Batch


class _Placing:
    """Places each batch of an iterator, with the checkpoints of that iterator."""

    def __init__(self, batches: grain.DatasetIterator, mesh: Mesh):
        self._batches, self._mesh = batches, mesh

    def __iter__(self) -> "_Placing":
        return self

    def __next__(self) -> PlacedBatch:
        host = next(self._batches)
        return PlacedBatch(host, global_batch(host, self._mesh))

    def get_state(self) -> dict[str, Any]:
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._batches.set_state(state)


def placed_ahead(
    batches: grain.DatasetIterator, mesh: Mesh
) -> "grain.DatasetIterator[PlacedBatch]":
    """Returns an iterator of `PlacedBatch`, which a thread places `BATCHES_AHEAD` of their steps.

    Its state is that of `batches` after the batch that it returned last, so a run that resumes
    from it continues with the first batch that was not trained on, whether it was placed or not.
    Close it to end the thread.
    """
    # The thread has one more batch in its hands while the buffer is full.
    return grain.experimental.ThreadPrefetchDatasetIterator(
        _Placing(batches, mesh), prefetch_buffer_size=BATCHES_AHEAD - 1
    )
