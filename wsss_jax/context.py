"""What a stage is given besides its own settings."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.data.source import Source, open_source
from wsss_jax.progress import Progress


@dataclasses.dataclass(frozen=True)
class Context:
    """One run of one stage.

    `config` is the whole configuration, `stage_dir` (existing) the folder the stage writes to.
    Per-image stages work on ``ids[process_index::process_count]``.
    """

    config: ConfigDict
    workdir: Path
    stage: str
    stage_dir: Path
    process_index: int = 0
    process_count: int = 1

    def source(self, split: str) -> Source:
        """The records of `split` (prepared on first use)."""
        data: Any = self.config.data
        return _open(data.to_json(sort_keys=True), split)

    def log(self, message: str) -> None:
        """Prints a line, on the first process only."""
        if self.process_index == 0:
            print(f"[{self.stage}] {message}", flush=True)

    def progress(self, total: int, label: str, unit: str = "images", initial: int = 0) -> Progress:
        """A progress bar (plain lines when the output is not a terminal), `initial` units done."""
        return Progress(total, label, unit, self.process_index == 0, initial)


@functools.lru_cache(maxsize=8)
def _open(data: str, split: str) -> Source:
    return open_source(ConfigDict(json.loads(data)), split)
