"""Records the peak memory of a run in ``memory.json`` beside its results."""

import resource
import sys
from pathlib import Path
from typing import Any

from wsss_jax.files import write_json
from wsss_jax.records import read_record

FILE = "memory.json"


def peak() -> dict[str, int | None]:
    """Returns the peak memory of this process so far in bytes.

    Other processes, such as those of the dense CRF, are not counted.

    Returns:
      ``process``, and ``device``, which is the largest peak of the local devices or None if it is
      unknown.
    """
    import jax

    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    known = [int(s["peak_bytes_in_use"]) for s in stats if "peak_bytes_in_use" in s]
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {"process": held * unit, "device": max(known, default=None)}


def record(workdir: Path, *, anew: bool = False) -> None:
    """Writes the peak of this process, or that of an earlier process of the run if it was higher.

    `anew` ignores earlier processes, for a run that did everything again.
    """
    before = {} if anew else read(workdir)
    now = peak()
    kept = {key: max(before.get(key) or 0, value or 0) or None for key, value in now.items()}
    write_json(workdir / FILE, kept)


def read(workdir: Path) -> dict[str, Any]:
    """Returns what `record` wrote for the run in `workdir`, or an empty dict.

    Raises:
      UserError: the file cannot be read.
    """
    path = workdir / FILE
    kinds = {"process": int | None, "device": int | None}
    return read_record(path, {}, "delete it", kinds) if path.exists() else {}
