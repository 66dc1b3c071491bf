"""The exceptions that end a run with one line instead of a traceback."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """A mistake in the input, in one line: what was expected, what was found and what to do.

    ``wsss_jax.main`` and the other commands print the message without a traceback and exit with
    status 2. Any other exception is a defect of the program and keeps its traceback.
    """


class Interrupted(Exception):
    """A stage stopped on request (SIGINT, SIGTERM) after it had saved its state.

    ``wsss_jax.main`` prints the message and the command that resumes the run, and exits with
    status 0.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns `; did you mean X?` for the most similar entry of `names`, or an empty string.

    Entries that are equally similar are all named. Their case does not count.
    """
    by_lower = {one.lower(): one for one in names}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, one, name.lower()).ratio() for one in found]
    best = [by_lower[f] for f, ratio in zip(found, likeness, strict=True) if ratio == likeness[0]]
    return f"; did you mean {' or '.join(sorted(best))}?" if best else ""


def first(names: Sequence[str], count: int = 5) -> str:
    """Joins the first few of `names` for an error message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
