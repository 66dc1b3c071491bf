"""Writes figures and images for TensorBoard."""

import contextlib
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter

_VERSION = "brain.Event:2"
_FLUSH_SECONDS = 30


class Events:
    """An event file.

    Every event is written when it is given. The library's own writer has a thread, which ends when
    the disk is full, and then nobody empties its queue.

    Args:
      folder: the folder of the file, which is created if it does not exist.
      purge_step: the first step whose older events TensorBoard hides.
    """

    def __init__(self, folder: Path, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names. Two runs may start within one second,
        # and the clock may have been set back.
        before = (one.name.split(".")[3:4] for one in folder.glob("events.out.tfevents.*"))
        later = [int(second[0]) + 1 for second in before if second and second[0].isdigit()]
        second = max(round(time.time()), *later, 0)
        name = f"events.out.tfevents.{second}.{socket.gethostname()}.{time.time_ns()}"
        self._file = RecordWriter(str(folder / name))
        try:
            self._write(file_version=_VERSION)
            self._write(step=purge_step, file_version=_VERSION)
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))
            self._file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            raise
        self._flushed = time.monotonic()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes figures by their names."""
        for name, value in values.items():
            self._write(step=step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def image(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes an RGB image."""
        self._write(step=step, summary=summary.image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Writes what is pending and closes the file."""
        self._file.close()

    def _write(self, **fields: object) -> None:
        self._file.write(Event(wall_time=time.time(), **fields).SerializeToString())
