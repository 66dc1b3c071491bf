"""Settings of XLA's compiler with which programs that run once or twice are ready sooner."""

import json
from importlib.metadata import version
from typing import Any

HAS_EMITTER_SWITCH = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
"""Later versions always use the fusion emitters, and end the process at a flag they do not know."""

QUICK: Any = {"xla_backend_optimization_level": 0}
if HAS_EMITTER_SWITCH:
    QUICK["xla_cpu_use_fusion_emitters"] = False

FLAGS = " ".join(f"--{name}={json.dumps(value)}" for name, value in QUICK.items())
"""The same for the variable XLA_FLAGS."""


def devices(count: int) -> str:
    """Flags for so many CPU devices, which wait for each other however busy the machine is.

    XLA otherwise ends a process in which one of them is 40 seconds behind the others.
    """
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds=3600"
    return f"--xla_force_host_platform_device_count={count} {patience}"
