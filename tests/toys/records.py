"""The record of a finished stage."""

from pathlib import Path
from typing import Any

from wsss_jax.files import DONE, write_json

FINISHED = {
    "type": "train",
    "digest": "0123456789abcdef",
    "seconds": 1.5,
    "finished": "2026-01-01T00:00:00+00:00",
    "metrics": {},
}


def finish(folder: Path, **more: Any) -> None:
    """Closes the folder of a stage that a test made."""
    write_json(folder / DONE, FINISHED | more)
