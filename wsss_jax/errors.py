"""The exceptions that end a run with one line instead of a traceback."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

MAKE_SPACE = (
    "free some space, or raise the limit, and run the same command again; finished work is kept"
)
"""What to do if `no_space` tells a reason."""

_ADDRESS = re.compile(r"(?:^|[\s=,'\"(])([A-Za-z][\w+.-]+://\S*)")
_NO_SPACE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "no space left in the quota",
    errno.EFBIG: "the limit on the size of files (ulimit -f) is reached",
}


_LONGEST = 4000  # characters of a message


class UserError(Exception):
    """A mistake in the input, in one line: what was expected, what was found and what to do.

    ``wsss_jax.main`` and the other commands print the message without a traceback and exit with
    status 2. Any other exception is a defect of the program and keeps its traceback.

    Args:
      message: the line. Line breaks in it, from what a file says, become blanks, other characters
        that cannot be shown are written as escapes, and the middle of a very long line is left out.
    """

    def __init__(self, message: str):
        super().__init__(_one_line(message))


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    if len(text) > _LONGEST:
        end = _LONGEST // 4  # It says what to do.
        text = f"{text[: _LONGEST - end - 5]} ... {text[-end:]}"
    return text


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


def refuse_addresses(text: str, where: str) -> None:
    """Refuses the address of a bucket or server, which would otherwise become a local folder.

    Args:
      text: a value that may name files.
      where: what the value belongs to, for the message.

    Raises:
      UserError: the text has an address.
    """
    if found := _ADDRESS.search(text):
        raise UserError(
            f"expected files and folders of this machine in {where}, found the address {found[1]}:"
            " mount the bucket (docs/launch.md#buckets) or copy the files, and give their path"
        )


def check_no_folder(path: Path) -> None:
    """Refuses a folder where a file is to be written.

    Raises:
      UserError: `path` is a folder.
    """
    if path.is_dir():
        raise UserError(f"expected a file to write, found the folder {path}: name a file in it")


def no_space(error: BaseException) -> str:
    """Returns in words why there is no space for a file, or "" if this was not the problem.

    Libraries that are not written in Python raise errors of their own, which quote the system's.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return _NO_SPACE.get(error.errno, "")
    text = str(error)
    return next((what for code, what in _NO_SPACE.items() if os.strerror(code) in text), "")


def used_up(error: BaseException) -> str:
    """Returns what to do if an error says that files or memory have run out, or "".

    Libraries that are not written in Python raise errors of their own, which quote the system's.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in text:
        return f"{os.strerror(errno.EMFILE)}: raise the limit with ulimit -n"
    signs = ("RESOURCE_EXHAUSTED", "can't start new thread", "failed to map segment")
    if (
        isinstance(error, MemoryError)
        or number == errno.ENOMEM
        or any(sign in text for sign in (*signs, os.strerror(errno.ENOMEM)))
    ):
        return (
            "memory has run out: use a smaller batch, fewer workers or threads, or raise the limit,"
            " and run the same command again; finished work is kept"
        )
    return ""


@contextlib.contextmanager
def told_if_no_space(where: os.PathLike[str] | str) -> Iterator[None]:
    """Turns errors of the block that mean a lack of space into a `UserError` that names `where`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if what := no_space(error):
            raise UserError(f"{what} while writing {os.fspath(where)}: {MAKE_SPACE}") from error
        raise
