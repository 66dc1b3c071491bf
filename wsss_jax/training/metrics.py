"""Writes the metrics of a training run as JSON lines and TensorBoard events."""

import contextlib
import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wsss_jax.errors import UserError, told_if_no_space
from wsss_jax.files import atomic_write
from wsss_jax.training.events import Events

# It warns about every figure that is not finite, which the training loop reports itself.
logging.getLogger("tensorboardX").setLevel(logging.ERROR)


class MetricWriter:
    """Writes figures and images of a run to `folder`.

    Each call appends a line ``{"step": …, name: value, …}`` to ``folder/metrics.jsonl`` and flushes
    it. A value that is not finite becomes ``null``, because JSON has no NaN. ``folder/tensorboard``
    gets the same figures, and the images, as event files.

    Args:
      folder: the folder, which is created if it does not exist.
      enabled: whether to write; False in all processes except for the first.
      resume_step: the last step that is kept. Later lines, and a last line that is incomplete
        because the run was killed, are removed, so that a resumed run has each step once. None
        starts over.
    """

    def __init__(self, folder: Path | str, enabled: bool = True, *, resume_step: int | None = None):
        self._enabled = enabled
        if not enabled:
            return
        folder = Path(folder)
        kept = [] if resume_step is None else read_metrics(folder, last_step=resume_step)
        with told_if_no_space(folder):
            with atomic_write(folder / "metrics.jsonl") as file:
                file.writelines(_json_line(row) for row in kept)
            self._folder = folder
            # TensorBoard hides the old events of steps from here on.
            purge_step = 0 if resume_step is None else resume_step + 1
            self._events = Events(folder / "tensorboard", purge_step)
            self._lines = open(folder / "metrics.jsonl", "ab")  # noqa: SIM115 (closed by close)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            if error is not None:  # Files that cannot be completed are of no interest then.
                stack.enter_context(contextlib.suppress(UserError))
            self.close()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes named figures (numbers or arrays of one element) of `step`.

        Raises:
          UserError: the disk is full.
        """
        if not self._enabled:
            return
        numbers = {name: float(np.asarray(value).item()) for name, value in values.items()}
        with told_if_no_space(self._folder):
            self._lines.write(_json_line({"step": int(step), **numbers}))
            self._lines.flush()
            self._events.scalars(int(step), {_tag(name): one for name, one in numbers.items()})

    def images(
        self,
        step: int,
        images: Mapping[str, UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "n h w 3"]],
    ) -> None:
        """Writes named RGB images of `step` to TensorBoard; those of one name are side by side.

        Raises:
          UserError: the disk is full.
        """
        if not self._enabled:
            return
        for name, image in images.items():
            strip = image if image.ndim == 3 else np.concatenate(list(image), axis=1)
            with told_if_no_space(self._folder):
                self._events.image(int(step), _tag(name), strip)

    def close(self) -> None:
        """Writes what is pending and closes the files; later calls do nothing.

        Raises:
          UserError: the disk is full.
        """
        if self._enabled:
            self._enabled = False
            with told_if_no_space(self._folder), contextlib.closing(self._events), self._lines:
                pass


def read_metrics(folder: Path | str, last_step: int | None = None) -> list[dict[str, Any]]:
    """Reads the lines of ``folder/metrics.jsonl`` up to `last_step`; none if there is no file.

    A line that is not a JSON object of numbers, because the run was killed, is left out. Lines of
    the same step, such as its loss and the figures of an evaluator, are merged, and the later of
    two values with one name counts.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        return []
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines():
        row = _row(line)
        if row is not None and (last_step is None or row["step"] <= last_step):
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return [rows[step] for step in sorted(rows)]


def log_digest(folder: Path | str, last_step: int) -> dict[str, Any]:
    """Returns the number of rows that `read_metrics` returns, and their digest."""
    rows = read_metrics(folder, last_step)
    text = json.dumps(rows, sort_keys=True)
    return {"rows": len(rows), "digest": hashlib.sha256(text.encode()).hexdigest()[:16]}


def lost_rows(folder: Path | str, last_step: int, log: Mapping[str, Any]) -> list[str]:
    """Returns sentences on rows that ``metrics.jsonl`` had after `last_step` or earlier, and lost.

    Args:
      folder: the folder of the log.
      last_step: the step.
      log: what `log_digest` returned after this step, or an empty mapping if that is unknown. Its
        ``lost`` are the sentences on what was lost before, if there are any.
    """
    found = log_digest(folder, last_step)
    before = list(log.get("lost", ()))
    if not log or all(log.get(name) == value for name, value in found.items()):
        return before
    path = Path(folder) / "metrics.jsonl"
    return [
        *before,
        f"expected {log.get('rows')} rows of figures up to step {last_step} in {path}, found"
        f" {found['rows']}{'' if found['rows'] != log.get('rows') else ' others'}: the weights are"
        f" not affected, but charts of this training are; restore the file, or delete"
        f" {path.parent} to train again",
    ]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return row if all(type(one) in (int, float, type(None)) for one in row.values()) else None


def _json_line(row: Mapping[str, Any]) -> bytes:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite, allow_nan=False).encode() + b"\n"


def _tag(name: str) -> str:
    # TensorBoard allows only these characters, and replaces others with a warning.
    return re.sub(r"[^-/\w.]", "_", name)
