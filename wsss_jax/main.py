"""Command line: runs the stages of a recipe.

    python -m wsss_jax.main --config configs/seam_voc.py --workdir runs/seam

A second run of the same command goes on where the first stopped.
"""

import contextlib
import errno
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from wsss_jax.errors import Interrupted, UserError
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.pipeline import process
from wsss_jax.pipeline.config import parse_flags, shipped_recipes

_USAGE = """\
usage: python -m wsss_jax.main --config=RECIPE --workdir=DIR [flags] [--config.KEY=VALUE ...]

  --config=RECIPE       a config file, or the name of a shipped recipe:
                        {recipes}
  --config.KEY=VALUE    replaces a value of the recipe (--config.train.batch_size=4)
  --workdir=DIR         where everything goes; run again to go on where a run stopped
"""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "folder of the results", flag_values=values)
    flags.DEFINE_list("only", [], "run these stages only: a,b", flag_values=values)
    flags.DEFINE_bool(
        "force",
        False,
        "delete and do again the stages whose settings differ (with --only: the stages it names)"
        " and all that was made from them",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run", False, "print the resolved plan and recipe, change nothing", flag_values=values
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "join the processes the cluster started (automatic under SLURM and on TPU pods)",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0, to join without a cluster", flag_values=values
    )
    flags.DEFINE_integer("num_processes", 0, "with --coordinator", flag_values=values)
    flags.DEFINE_integer("process_id", 0, "with --coordinator", flag_values=values)
    flags.DEFINE_bool("help", False, "show this help", short_name="?", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    0: finished, or stopped on request after saving. 2: a mistake of the user, told in one line.
    130: interrupted.
    """
    process.quiet()
    try:
        values, config = parse_flags(_flags(), argv)
        options = {name: values[name].value for name in values}
        if options["help"]:
            print(_help(values))
            return 0
        if config is None:
            names = ", ".join(shipped_recipes())
            raise UserError(f"--config is missing: a config file or one of {names}")
        if not options["workdir"]:
            raise UserError("--workdir is missing: the folder where the results go")
        return _run(options, config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"stopped: {stop}\nto go on: {_again(argv)}", flush=True)
        return 0
    except KeyboardInterrupt:
        print(f"interrupted; finished work is kept\nto go on: {_again(argv)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"error: {_full(error)}\nto go on: {_again(argv)}", file=sys.stderr)
            return 2
        raise


def _run(options: dict[str, Any], config: ConfigDict) -> int:
    workdir = Path(options["workdir"]).expanduser().resolve()
    only = tuple(name.strip() for name in options["only"] if name.strip())
    if options["dry_run"]:
        from wsss_jax.pipeline import dry_run

        print(dry_run.describe(config, workdir, only, options["force"]))
        return 0
    share_one_heap()
    process.compilation_cache()
    process.join_processes(
        options["distributed"],
        options["coordinator"],
        options["num_processes"],
        options["process_id"],
    )
    import jax

    from wsss_jax.pipeline import memory, run

    # Grain's worker processes ask for parsed flags of absl's own collection.
    flags.FLAGS(["wsss_jax"], known_only=True)
    run.checked(config, only)  # before the working directory is made
    previous = signal.signal(signal.SIGTERM, _terminate)
    first = jax.process_index() == 0
    try:
        with process.lock(workdir) if first else contextlib.nullcontext():
            run.run(config, workdir, only, options["force"])
            if first:
                memory.record(workdir, anew=options["force"] and not only)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C: per-image stages leave whole files behind; training has a handler of its own.
    raise KeyboardInterrupt


def _again(argv: Sequence[str]) -> str:
    program = ["python", "-m", "wsss_jax.main"] if argv[0].endswith(".py") else [argv[0]]
    # A forced run has already deleted what it was to delete.
    return shlex.join([*program, *(a for a in argv[1:] if a not in ("--force", "-force"))])


def _full(error: OSError) -> str:
    where = f" while writing {os.fspath(error.filename)}" if error.filename else ""
    return f"no space left on the device{where}: free some space and run the same command again"


def _help(values: flags.FlagValues) -> str:
    names = [n for n in values if n not in ("help", "?", "workdir", "config")]
    lines = [f"  --{n:<18}  {values[n].help}" for n in names]
    return _USAGE.format(recipes=", ".join(shipped_recipes())) + "\n".join(lines)


def cli() -> None:
    """Entry point of the ``wsss-jax`` program."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    cli()
