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
