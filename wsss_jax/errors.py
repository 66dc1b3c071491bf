"""Exceptions that end a run with one line instead of a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input: one line saying what was expected, what was found, what to do.

    ``wsss_jax.main`` and the other command-line programs print the message without a traceback
    and exit with status 2. Everything else is a defect of the program and keeps its traceback.
    """


class Interrupted(Exception):
    """A stage stopped on request (SIGINT, SIGTERM) after it had saved its state.

    ``wsss_jax.main`` prints the message and the command to go on, and exits with status 0.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean X?` for the entry of `names` that resembles `name` most, else nothing."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""
