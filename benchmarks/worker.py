"""What both sides of `train_step` share: a process that does training steps when told to.

Imports nothing beyond the standard library, so that it runs in either environment.
"""

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Step = Callable[[], float]
"""Does one training step, waits for its end and returns the loss."""


def keep_memory() -> None:
    """Applies the trainer's allocator setting, `wsss_jax.host.host_memory`, to this process."""
    path = Path(__file__).parents[1] / "wsss_jax" / "host" / "host_memory.py"
    found = importlib.util.spec_from_file_location("host_memory", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.keep_freed_memory()


def serve(
    folder: Path, prepare: Callable[[Path, dict[str, Any]], Step], versions: dict[str, str]
) -> None:
    """Does as many steps as each line of standard input says and answers with a line of JSON.

    An answer holds ``seconds`` and ``losses`` of the steps, ``peak_gib`` (memory of the process so
    far) and ``versions``. `folder` holds ``spec.json`` and what `prepare` reads.
    """
    step = prepare(folder, json.loads((folder / "spec.json").read_text()))
    for line in sys.stdin:
        seconds, losses = [], []
        for _ in range(int(line)):
            start = time.perf_counter()
            losses.append(step())
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        answer = {"seconds": seconds, "losses": losses, "peak_gib": peak, "versions": versions}
        print(json.dumps(answer), flush=True)
