"""Data parallelism over all devices, with sharded batches and replicated parameters."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

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


Function = TypeVar("Function", bound=Callable[..., Any])


def traced_for(mesh: Mesh, function: Function) -> Function:
    """Returns `function`, which knows while it is traced for which devices; see `target`."""

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return cast(Function, traced)


def target() -> tuple[str, int]:
    """Returns the platform and the number of the devices over which batches are sharded.

    Methods and layers see the global batch and need not know. Only a layer whose fastest form
    depends on the images per device asks. It is ("", 1) outside `traced_for`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device if DATA_AXIS in mesh.shape else None
    return ("", 1) if device is None else (device.platform, mesh.shape[DATA_AXIS])
