"""Counts the programs that JAX compiles, and those that it finds in the compilation cache."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jax import monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"  # also of programs from the cache
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass
class Compilations:
    """What was compiled since the counting began.

    Attributes:
      began: the time when it began, of `time.monotonic`.
      compiled: the number of programs that were compiled.
      from_cache: the number of programs that were read from the persistent compilation cache.
      seconds: the time that both took, without tracing.
    """

    began: float = dataclasses.field(default_factory=time.monotonic)
    compiled: int = 0
    from_cache: int = 0
    seconds: float = 0.0


@contextmanager
def compilations() -> Iterator[Compilations]:
    """Counts the programs of this process, of all its threads, until the context ends."""
    count = Compilations()

    def note_duration(event: str, duration_secs: float, **kwargs: Any) -> None:
        del kwargs
        if event == _COMPILED:
            count.compiled += 1
            count.seconds += duration_secs

    def note(event: str, **kwargs: Any) -> None:
        del kwargs
        if event == _FROM_CACHE:
            count.from_cache += 1
            count.compiled -= 1

    monitoring.register_event_duration_secs_listener(note_duration)
    monitoring.register_event_listener(note)
    try:
        yield count
    finally:
        monitoring.unregister_event_duration_listener(note_duration)
        monitoring.unregister_event_listener(note)
