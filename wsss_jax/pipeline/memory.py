"""Peak memory of a run, kept beside its results in ``memory.json``."""

import resource
import sys
from pathlib import Path
from typing import Any

from wsss_jax.files import read_json, write_json

FILE = "memory.json"


def peak() -> dict[str, int | None]:
    """Most bytes this process has held so far: ``process``, and ``device`` (None where unknown).

    ``device`` is the largest of the local devices. Other processes, such as those of the dense
    CRF, are not counted.
    """
    import jax

    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    known = [int(s["peak_bytes_in_use"]) for s in stats if "peak_bytes_in_use" in s]
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {"process": held * unit, "device": max(known, default=None)}


def record(workdir: Path, *, anew: bool = False) -> None:
    """Writes the peak of this process, or that of an earlier one of the run where it was higher.

    `anew` forgets earlier ones: all was done again.
    """
    before = {} if anew else read(workdir)
    now = peak()
    kept = {key: max(before.get(key) or 0, value or 0) or None for key, value in now.items()}
    write_json(workdir / FILE, kept)


def read(workdir: Path) -> dict[str, Any]:
    """What `record` wrote for the run in `workdir`; empty where nothing was recorded."""
    path = workdir / FILE
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
