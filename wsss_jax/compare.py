"""The command line that compares recipes, with several seeds each, in a table, page and picture.

    python -m wsss_jax.compare --configs cam_shapes,seam_shapes --seeds 3 --workdir runs/compare

Every run is the program `wsss_jax.main` in its own process, in ``DIR/RECIPE/seedK``. Its peak
memory is then its own, and a run that is killed does not end the others. A second run of the same
command skips what is finished.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.comparison.runs import Planned, Recipe, complete, plan, read_recipes, run, state
from wsss_jax.errors import UserError
from wsss_jax.pipeline.config import shipped_recipes

_EXAMPLES = (
    (
        "two methods on the built-in data, three seeds each",
        "--configs cam_shapes,seam_shapes --workdir runs/compare",
    ),
    (
        "on PASCAL VOC, with the seeds 0 and 4",
        "--configs cam_voc_light,seam_voc_light \\\n"
        "        --seed_list 0,4 --workdir runs/voc \\\n"
        "        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz",
    ),
    (
        "what is finished so far, without training anything",
        "--configs cam_shapes,seam_shapes --workdir runs/compare --table_only",
    ),
)


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.compare",
        "Trains and scores several recipes with several seeds each, and shows them in one table,\n"
        "page and picture. The same command skips what is finished.",
        usage="--configs A,B,... --workdir DIR [--config.KEY=VALUE ...] [options]",
        examples=_EXAMPLES,
        statuses={0: "everything is finished", 1: "a run failed; the table shows the others"},
    )
    recipes = parser.add_argument_group("recipes and results")
    add = recipes.add_argument
    shipped = ", ".join(shipped_recipes())
    add(
        "--configs",
        type=command_line.names,
        metavar="A,B,...",
        required=True,
        help=f"config files or names of {shipped}; the first one is the baseline",
    )
    add(
        "--config.KEY",
        metavar="VALUE",
        help="replaces a value in all recipes: --config.train.batch_size=8",
    )
    add(
        "--workdir",
        type=Path,
        metavar="DIR",
        required=True,
        help="the folder where the results go: compare.html, .png, .md and .json, and every run in"
        " RECIPE/seedK",
    )
    what = parser.add_argument_group("what to run")
    add = what.add_argument
    add("--seeds", type=command_line.whole_number, metavar="N", help="seeds 0 to N-1 (3 of them)")
    add("--seed_list", type=_seed_list, metavar="S,S", help="particular seeds instead: 0,4")
    add(
        "--all_stages",
        action="store_true",
        help="run all stages of the recipes, not only what is compared",
    )
    add("--table_only", action="store_true", help="train nothing, show what is finished")
    add("--dry_run", action="store_true", help="print the plan, change nothing")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    It is 0 if everything is finished; 1 if a run failed, so that the table only shows the others; 2
    for a mistake of the user, which is reported in one line; and 130 after an interruption.
    """
    # nohup makes processes ignore SIGHUP, and that stays so.
    ends = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    previous = {number: signal.signal(number, _stop) for number in ends}
    parser = _parser()
    try:
        command = command_line.command(parser, argv)
        return command_line.run(parser, argv, lambda options: _run(options, command))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(options: argparse.Namespace, command: str) -> int:
    if any(override.split("=")[0].endswith("config.seed") for override in options.overrides):
        raise UserError("expected seeds in --seeds or --seed_list, found --config.seed: remove it")
    if options.dry_run and options.table_only:
        raise UserError(
            "expected --dry_run (what would run) or --table_only, found both: remove one of them"
        )
    seeds = _seeds(options)
    recipes = read_recipes(options.configs, options.overrides)
    folder = options.workdir.expanduser().resolve()
    planned = plan(recipes, seeds, folder, options.all_stages)
    if options.dry_run:
        print(_plan(planned, folder))
        return 0
    failed: dict[Planned, str] = {}
    if not options.table_only:
        for number, one in enumerate(planned, 1):
            head = f"\n=== {number}/{len(planned)} {one.name}"
            if complete(one):
                print(f"{head}: finished", flush=True)
                continue
            print(head, flush=True)
            why = run(one)
            if why:
                failed[one] = why
                print(f"{one.name} failed, the others continue", flush=True)
    _show(recipes, planned, seeds, folder, failed, command)
    for one, why in failed.items():
        print(f"failed: {one.name}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _show(
    recipes: Sequence[Recipe],
    planned: Sequence[Planned],
    seeds: Sequence[int],
    folder: Path,
    failed: dict[Planned, str],
    command: str,
) -> None:
    """Writes and prints what is finished."""
    # Matplotlib is slow to import.
    from wsss_jax.comparison.results import collect, write

    comparison = collect(recipes, planned, seeds, failed)
    if not comparison.entries:
        if failed:
            return
        raise UserError(f"expected finished runs in {folder}, found none: leave out --table_only")
    print("\n" + write(comparison, planned[0].config, folder, command))
    print(f"Look at {folder / 'compare.html'}", flush=True)


def _seeds(options: argparse.Namespace) -> tuple[int, ...]:
    if options.seed_list is None:
        count = 3 if options.seeds is None else options.seeds
        if count < 1:
            raise UserError(f"expected --seeds of at least 1, found {count}: change it")
        return tuple(range(count))
    if options.seeds is not None:
        raise UserError("expected --seeds or --seed_list, found both: remove one of them")
    return options.seed_list


def _seed_list(text: str) -> tuple[int, ...]:
    named = command_line.names(text)
    if not all(name.isdecimal() for name in named):
        raise argparse.ArgumentTypeError(f"expected numbers such as 0,4, found {text!r}")
    if len(set(map(int, named))) < len(named):
        raise argparse.ArgumentTypeError(f"expected every seed once, found one twice: {text}")
    return tuple(map(int, named))


def _plan(planned: Sequence[Planned], folder: Path) -> str:
    lines = [f"workdir {folder}" + ("" if folder.exists() else " (new)"), ""]
    width = max(len(one.name) for one in planned)
    for one in planned:
        word, reason = state(one)
        shown = f"{word}: {reason}" if reason else word
        lines.append(f"  {one.name:<{width}}  {shown}")
    lines += ["", "stages"]
    for recipe, stages in {one.recipe.name: one.only for one in planned}.items():
        lines.append(f"  {recipe}: {', '.join(stages)}")
    lines += [
        "",
        "values: python -m wsss_jax.main --config=RECIPE --workdir=DIR --dry_run --details",
    ]
    return "\n".join(lines)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv))
