"""One program over all devices: batches divided, parameters on every device."""

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
    """A mesh of one axis, ``data``, over `devices` (default: all devices of all processes)."""
    devices = jax.devices() if devices is None else devices
    # The default axis type (Explicit) does not allow gathers and scatters of sharded arrays.
    return Mesh(np.asarray(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The placement of parameters: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """The placement of batches: the first axis is divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share equally.

    Raises:
      UserError: `batch_size` is no multiple of the devices.
    """
    count = mesh.devices.size
    if batch_size % count:
        nearest = max(count, batch_size // count * count)
        raise UserError(
            f"expected a batch size divisible by the {count} devices, found {batch_size}: set"
            f" batch_size to {nearest}, say"
        )


def global_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """Global arrays from this process's part of a batch."""
    placement = divided(mesh)
    return {
        name: jax.make_array_from_process_local_data(placement, np.asarray(value))
        for name, value in batch.items()
    }
