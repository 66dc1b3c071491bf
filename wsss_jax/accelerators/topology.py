"""The devices of a TPU slice or GPUs that are only named, for which XLA compiles without them.

Compiling needs no device. So that other programs may use those of this machine, if it has any,
nothing here touches them.
"""

import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from wsss_jax.accelerators.chips import V4, V5E, V5P, V6E, Chip
from wsss_jax.accelerators.gpu import COMPILER_OPTIONS, GPUS, MOST, gpu_chip, gpu_devices
from wsss_jax.errors import UserError, nearest

EXAMPLES = "v5e:2x4, v6e:4x4, v4:2x2x1 (a v4-8), v5p:2x2x2, h100:8"

_AXES = {V4.name: 3, V5E.name: 2, V5P.name: 3, V6E.name: 2}
_CHIPS = {chip.name: chip for chip in (V4, V5E, V5P, V6E)}
_ENVIRONMENT = {
    # Without these, libtpu asks a metadata server what machine this is, and complains if there is
    # none.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Only a program that uses TPUs needs them for itself.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}


def chip_of_topology(name: str) -> Chip:
    """Returns the kind of chip of the topology `name`.

    Raises:
      UserError: the name is not of the form ``v5e:2x4``, or the kind is unknown.
    """
    chip, _ = _parsed(name)
    return gpu_chip(chip) if chip in GPUS else _CHIPS[chip]


def compiler_options(name: str) -> dict[str, Any]:
    """Returns what a compiler has to be told for the topology `name`."""
    return COMPILER_OPTIONS if _parsed(name)[0] in GPUS else {}


def without_devices() -> None:
    """Prepares JAX for topologies alone; call it before JAX uses any device of this machine.

    Variables that the user has set are kept, except for the platform.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    jax.config.update("jax_platforms", "cpu")
    # JAX's cache keeps what is compiled for a topology but cannot read it.
    jax.config.update("jax_enable_compilation_cache", False)


def topology_devices(name: str) -> list[Any]:
    """Returns the devices of the topology `name`, ``v5e:2x4`` or ``h100:8``, to compile for.

    Raises:
      UserError: the name is malformed, there is no such chip or no slice of this size, or its
        compiler is not installed.
    """
    chip, axes = _parsed(name)
    if chip in GPUS:
        return gpu_devices(chip, *axes)
    options: dict[str, Any] = {}
    if chip == V4.name:
        options["chip_config_name"] = "megacore"  # Its two cores are one device, as on a TPU VM.
    if set(axes) == {1}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    sides = f"{chip}:{'x'.join(map(str, axes))}"
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=sides, **options)
    except jax.errors.JaxRuntimeError as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"expected a topology that libtpu knows, such as {EXAMPLES}, found {name!r} ({why}):"
            " change --topology"
        ) from error
    except RuntimeError as error:
        if "not installed" not in str(error):
            raise
        raise UserError(
            "expected libtpu, the compiler for TPUs, for --topology, found none: run"
            " pip install 'jax[tpu]'"
        ) from error
    return list(found.devices)


def _parsed(name: str) -> tuple[str, tuple[int, ...]]:
    form = re.fullmatch(r"([a-z]\w*):(\d+(?:x\d+)*)", name.strip().lower())
    if not form and (chip := name.strip().lower().split(":")[0]) in GPUS:
        raise _no_gpu_count(chip, name)
    if not form:
        raise UserError(
            f"expected a topology as CHIP:SIDES, such as {EXAMPLES}, found {name!r}: change"
            " --topology"
        )
    chip, sides = form[1], tuple(map(int, form[2].split("x")))
    if chip not in (known := [*_CHIPS, *GPUS]):
        raise UserError(
            f"expected a topology of {', '.join(known)}, such as {EXAMPLES}, found the chip"
            f" {chip!r}{nearest(chip, known)}: change --topology"
        )
    if chip in GPUS:
        if len(sides) != 1 or not 0 < sides[0] <= MOST:
            raise _no_gpu_count(chip, name)
        return chip, sides
    if len(sides) != _AXES[chip] or not all(sides):
        raise UserError(
            f"expected {_AXES[chip]} sides above 0 for {chip}, such as {EXAMPLES}, found {name!r}:"
            " change --topology"
        )
    return chip, sides


def _no_gpu_count(chip: str, name: str) -> UserError:
    return UserError(
        f"expected the number of GPUs of one machine, {chip}:1 to {chip}:{MOST}, found {name!r}:"
        " change --topology"
    )
