"""Reads many damaged and hostile files with every reader, and counts what comes of them.

    python -m tests.hostile --count=50000

`tests.hostile.processes` says what is wrong. The program ends with status 1 if anything was.
"""

import argparse
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

from tests.hostile.kinds import KINDS
from tests.hostile.processes import run

_SHOWN = 20  # lines about files of a kind that were wrong


def parser() -> argparse.ArgumentParser:
    """The options of the program."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--count", type=int, default=50_000, help="files of all kinds together")
    options.add_argument("--seed", type=int, default=0, help="other numbers make other files")
    options.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    options.add_argument("--only", type=int, help="the number of a single file of each kind")
    return options


def _processor() -> float:
    """Returns the processor time of this process and those that it started, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(arguments: Sequence[str] | None = None, tell: Callable[[str], None] = print) -> int:
    """Runs the program; returns 1 if there was a file that was wrong."""
    options = parser().parse_args(arguments)
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX has started nothing yet
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    chosen = [KINDS[name] for name in options.kinds]
    shares = sum(kind.share for kind in chosen)
    head = f"{'files':>7}{'read':>8}{'refused':>9}{'wrong':>7}{'slowest s':>11}{'memory':>8}"
    tell(f"{'kind':24}{head}{'seconds':>9}")
    failed = 0
    total: Counter[str] = Counter()
    for kind in chosen:
        count = max(1, round(options.count * kind.share / shares))
        first = options.seed * 10**9
        if options.only is not None:
            first, count = options.only, 1
        before = _processor()
        found = run(kind, first, count)
        read, refused = found.outcomes["read"], found.outcomes["refused"]
        tell(
            f"{kind.name:24}{count:7}{read:8}{refused:9}{len(found.wrong):7}{found.seconds:11.2f}"
            f"{max(found.asked, found.had):8.2f}{_processor() - before:9.1f}"
        )
        for line in found.wrong[:_SHOWN]:
            tell(f"  {line}")
        failed += len(found.wrong)
        total += found.outcomes
    tell(
        f"{'in all':24}{sum(total.values()):7}{total['read']:8}{total['refused']:9}{failed:7}"
        f"{'':19}{_processor():9.1f}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
