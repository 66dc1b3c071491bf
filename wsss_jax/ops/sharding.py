"""Data parallelism over all devices, with sharded batches and replicated parameters."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wsss_jax.errors import UserError
from wsss_jax.types import Batch

DATA_AXIS = "data"


def data_mesh(
    devices: list[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Mesh:
    """Returns a mesh with the axis ``data`` over `devices`, by default all of all processes."""
    devices = jax.devices() if devices is None else devices
    # The default axis type (Explicit) does not allow gathers and scatters of sharded arrays.
    return Mesh(np.asarray(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the placement of parameters: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Returns the placement of batches: their first axis is sharded over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that cannot be sharded equally.

    Raises:
      UserError: `batch_size` is not a multiple of the number of devices.
    """
    count = mesh.devices.size
    if batch_size % count:
        nearest = max(count, batch_size // count * count)
        raise UserError(
            f"expected a batch size divisible by the number of devices, {count}, found"
            f" {batch_size}: set batch_size to {nearest}, for example"
        )


def shardable(batch_size: int, mesh: Mesh) -> int:
    """Returns the smallest batch of at least `batch_size` images that can be sharded equally."""
    return -(-batch_size // mesh.devices.size) * mesh.devices.size


def global_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """Returns global, sharded arrays from this process's part of a batch."""
    placement = sharded(mesh)
    return {
        name: jax.make_array_from_process_local_data(placement, np.asarray(value))
        for name, value in batch.items()
    }
