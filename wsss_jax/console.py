"""What a command tells while it works: lines for people and, if asked for, events for programs.

Events are lines of JSON, each with the time and the kind of the event, in a file that
`write_events_to` opens. `quiet` leaves the lines out, and errors are shown in any case.
"""

import datetime
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from wsss_jax.errors import UserError

_quiet = False
_events: TextIO | None = None


def quiet(on: bool) -> None:
    """Turns lines for people off or on."""
    global _quiet
    _quiet = on


def is_quiet() -> bool:
    """Returns whether lines for people are left out."""
    return _quiet


def write_events_to(path: Path | None) -> None:
    """Appends events to the file `path` from now on; None writes none.

    Raises:
      UserError: the file cannot be written.
    """
    global _events
    if _events is not None:
        _events.close()
        _events = None
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _events = path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise UserError(f"cannot write --json_logs {path}: {error.strerror}") from error


def say(text: str, **fields: Any) -> None:
    """Prints a line, which is also the event ``message``."""
    event("message", text=text, **fields)
    if not _quiet:
        print(text, flush=True)


def note(text: str) -> None:
    """Prints a line that asks for attention to stderr; it is also the event ``note``."""
    event("note", text=text)
    if not _quiet:
        print(f"note: {text}", file=sys.stderr)


def event(kind: str, **fields: Any) -> None:
    """Writes an event; values that JSON does not know become text."""
    if _events is None:
        return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    record = {"time": now, "event": kind, **fields}
    _events.write(json.dumps(record, default=str, ensure_ascii=False) + "\n")
