"""GPUs that are only named, for which XLA compiles without any of them.

The compiler comes with JAX's plugin for CUDA. It needs neither a driver nor a GPU, nor the
libraries of NVIDIA that the plugin would call. What it cannot do without a GPU is to try
algorithms, so each convolution and product gets its default one. A run tries them, and may start a
few programs more or less, with other scratch memory.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from wsss_jax.accelerators.chips import A100, H100, H200, L4, Chip
from wsss_jax.errors import UserError

COMPILER_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
"""What compiles without a GPU to try algorithms on; Triton has none that it would take untried."""

SHARE = 0.75
"""The share of a GPU's memory that JAX takes unless it is told otherwise."""
SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")

MOST = 8
"""GPUs of one machine."""

_INSTALL = (
    f"pip install jax-cuda13-plugin=={jax.__version__} jax-cuda13-pjrt=={jax.__version__}"
    " (or 'jax[cuda13]' on a machine with a GPU)"
)


@dataclasses.dataclass(frozen=True)
class _Device:
    """What XLA has to know of a GPU: its compute capability and the sizes of its parts.

    Sources: the tables of compute capabilities in NVIDIA's CUDA programming guide, and its
    architecture papers.
    """

    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    units: int  # float32 units of a core
    threads: int  # of a core
    shared: int  # bytes of shared memory of a core
    block_shared: int  # of a block at most
    cache: int  # bytes of the L2 cache
    ghz: float


_DEVICES = {
    A100.name: _Device((8, 0), 108, 64, 2048, 167_936, 166_912, 40 << 20, 1.41),
    L4.name: _Device((8, 9), 58, 128, 1536, 102_400, 101_376, 48 << 20, 2.04),
    H100.name: _Device((9, 0), 132, 128, 2048, 233_472, 232_448, 50 << 20, 1.98),
    H200.name: _Device((9, 0), 132, 128, 2048, 233_472, 232_448, 60 << 20, 1.98),
}
GPUS: Mapping[str, Chip] = {chip.name.lower(): chip for chip in (L4, A100, H100, H200)}


def gpu_chip(name: str) -> Chip:
    """Returns the GPU `name`, with the memory that JAX takes of it here.

    Raises:
      UserError: a variable of `SHARES` is no share, or both are set, which JAX refuses.
    """
    chip, share = GPUS[name], SHARE
    told = {variable: text for variable in SHARES if (text := os.environ.get(variable))}
    if len(told) > 1:
        raise UserError(f"expected one of {' and '.join(told)}, found both: unset one of them")
    for variable, text in told.items():
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise UserError(
                f"expected a share above 0 and at most 1 in {variable}, found {text!r}: change it"
            )
    return dataclasses.replace(chip, usable_gib=round(chip.usable_gib * share, 2))


def gpu_devices(name: str, count: int) -> list[Any]:
    """Returns `count` GPUs of one machine, to compile for.

    Raises:
      UserError: JAX's plugin for CUDA is not installed, or it does not know such a GPU.
    """
    chip = GPUS[name]
    try:
        found = topologies.get_topology_desc(
            platform="cuda",
            topology_name=f"{name}:{count}",
            topology=f"1x1x{count}",
            target_config=_described(chip, _DEVICES[chip.name]),
        )
    except jax.errors.JaxRuntimeError as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"expected that JAX's plugin for CUDA describes {name}, found {why}: install the plugin"
            f" of this JAX, {_INSTALL}"
        ) from error
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"expected JAX's plugin for CUDA, for --topology, found none: run {_INSTALL}"
        ) from error
    return list(found.devices)


def _described(chip: Chip, device: _Device) -> str:
    """Describes a GPU in the form that XLA reads (``GpuTargetConfigProto``)."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {device.shared}
  shared_memory_per_block_optin: {device.block_shared}
  threads_per_core_limit: {device.threads}
  core_count: {device.cores}
  fpus_per_core: {device.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {chip.hbm_gbps * 10**9}
  l2_cache_size: {device.cache}
  clock_rate_ghz: {device.ghz}
  device_memory_size: {round(chip.usable_gib * 2**30)}
  cuda_compute_capability {{ major: {device.capability[0]} minor: {device.capability[1]} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{chip.device_kind}"
"""
