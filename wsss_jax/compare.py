"""Command line: several recipes with several seeds each, in one table, page and picture.

    python -m wsss_jax.compare --configs cam_shapes,seam_shapes --seeds 3 --workdir runs/compare

Every run is the program `wsss_jax.main` in a process of its own, in ``DIR/RECIPE/seedK``: only so
is its peak memory its own, and a run that is killed does not end the others. A second run of the
same command skips what is finished.
"""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from absl import flags

from wsss_jax.comparison.runs import Planned, Recipe, complete, plan, read_recipes, run, state
from wsss_jax.errors import UserError
from wsss_jax.pipeline import process
from wsss_jax.pipeline.config import parse_flags, shipped_recipes

_USAGE = """\
usage: python -m wsss_jax.compare --configs=A,B,... --workdir=DIR [flags] [--config.KEY=VALUE ...]

  --configs=A,B,...     config files or names of shipped recipes, the baseline first:
                        {recipes}
  --config.KEY=VALUE    replaces a value of all of them (--config.train.batch_size=8)
  --workdir=DIR         compare.html, .png, .md and .json, and every run in RECIPE/seedK
"""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_list("configs", [], "the recipes", flag_values=values)
    flags.DEFINE_string("workdir", "", "folder of the results", flag_values=values)
    flags.DEFINE_integer("seeds", None, "how many seeds (3): 0, 1, 2, ...", flag_values=values)
    flags.DEFINE_list("seed_list", None, "these seeds instead: 0,4", flag_values=values)
    flags.DEFINE_bool(
        "table_only", False, "train nothing, show what is finished", flag_values=values
    )
    flags.DEFINE_bool(
        "all_stages",
        False,
        "run the recipes to their end, not only what is compared",
        flag_values=values,
    )
    flags.DEFINE_bool("dry_run", False, "print the plan, change nothing", flag_values=values)
    flags.DEFINE_bool("help", False, "show this help", short_name="?", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    0: everything is there. 1: some run failed, the table has the others. 2: a mistake of the user,
    told in one line. 130: interrupted.
    """
    process.quiet()
    # nohup has the second one ignored.
    ends = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    previous = {number: signal.signal(number, _stop) for number in ends}
    try:
        own, overrides = _divided(argv)
        values, config = parse_flags(_flags(), own)
        options = {name: values[name].value for name in values}
        if options["help"]:
            print(_help(values))
            return 0
        if config is not None:
            raise UserError("--config is for a single run: recipes are named by --configs=A,B,...")
        return _run(options, overrides, argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; finished work is kept\nto go on: {_command(argv)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(options: dict[str, Any], overrides: list[str], argv: Sequence[str]) -> int:
    recipes = read_recipes(options["configs"], overrides)
    if not options["workdir"]:
        raise UserError("--workdir is missing: the folder where the results go")
    folder = Path(options["workdir"]).expanduser().resolve()
    seeds = _seeds(options)
    if options["dry_run"] and options["table_only"]:
        raise UserError("expected --dry_run (what would run) or --table_only, found both")
    planned = plan(recipes, seeds, folder, options["all_stages"])
    if options["dry_run"]:
        print(_plan(planned, folder))
        return 0
    failed: dict[Planned, str] = {}
    if not options["table_only"]:
        for number, one in enumerate(planned, 1):
            head = f"\n=== {number}/{len(planned)} {one.name}"
            if complete(one):
                print(f"{head}: finished", flush=True)
                continue
            print(head, flush=True)
            why = run(one)
            if why:
                failed[one] = why
                print(f"{one.name} failed, the others go on", flush=True)
    _show(recipes, planned, seeds, folder, failed, argv)
    for one, why in failed.items():
        print(f"failed: {one.name}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _show(
    recipes: Sequence[Recipe],
    planned: Sequence[Planned],
    seeds: Sequence[int],
    folder: Path,
    failed: dict[Planned, str],
    argv: Sequence[str],
) -> None:
    """Writes and prints what is finished."""
    # Matplotlib is slow to import.
    from wsss_jax.comparison.results import collect, write

    comparison = collect(recipes, planned, seeds, failed)
    if not comparison.entries:
        if failed:
            return
        raise UserError(f"expected finished runs in {folder}, found none; leave out --table_only")
    print("\n" + write(comparison, planned[0].config, folder, _command(argv)))
    print(f"Look at {folder / 'compare.html'}", flush=True)


def _seeds(options: dict[str, Any]) -> tuple[int, ...]:
    if options["seed_list"] is None:
        count = 3 if options["seeds"] is None else options["seeds"]
        if count < 1:
            raise UserError(f"--seeds expects a number from 1, found {count}")
        return tuple(range(count))
    if options["seeds"] is not None:
        raise UserError("expected --seeds or --seed_list, found both")
    named = [text.strip() for text in options["seed_list"]]
    if not named or not all(text.isdecimal() for text in named):
        raise UserError(f"--seed_list expects numbers from 0, as 0,4; found {','.join(named)!r}")
    seeds = tuple(map(int, named))
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seed_list names a seed twice: {','.join(named)}")
    return seeds


def _plan(planned: Sequence[Planned], folder: Path) -> str:
    lines = [f"workdir {folder}" + ("" if folder.exists() else " (new)"), ""]
    width = max(len(one.name) for one in planned)
    for one in planned:
        word, reason = state(one)
        told = f"{word}: {reason}" if reason else word
        lines.append(f"  {one.name:<{width}}  {told}")
    lines += ["", "stages"]
    for recipe, stages in {one.recipe.name: one.only for one in planned}.items():
        lines.append(f"  {recipe}: {', '.join(stages)}")
    lines += ["", "values: python -m wsss_jax.main --config=RECIPE --workdir=DIR --dry_run"]
    return "\n".join(lines)


def _divided(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The program's own flags, and the replaced values of the recipes."""
    own, overrides = list(argv[:1]), []
    arguments = list(argv[1:])
    while arguments:
        argument = arguments.pop(0)
        name = argument.lstrip("-").split("=")[0]
        if not argument.startswith("-") or not name.startswith(("config.", "noconfig.")):
            own.append(argument)
            continue
        if name in ("config.seed", "noconfig.seed"):
            raise UserError("--config.seed is set by --seeds or --seed_list")
        overrides.append(argument)
        # --config.KEY VALUE
        if "=" not in argument and arguments and not arguments[0].startswith("--"):
            overrides.append(arguments.pop(0))
    return own, overrides


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _command(argv: Sequence[str]) -> str:
    program = ["python", "-m", "wsss_jax.compare"] if argv[0].endswith(".py") else [argv[0]]
    return shlex.join([*program, *argv[1:]])


def _help(values: flags.FlagValues) -> str:
    names = [n for n in values if n not in ("help", "?", "workdir", "configs")]
    lines = [f"  --{n:<18}  {values[n].help}" for n in names]
    return _USAGE.format(recipes=", ".join(shipped_recipes())) + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
