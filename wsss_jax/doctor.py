"""The command line that describes this machine and tells what does not work on it.

    python -m wsss_jax.doctor
    python -m wsss_jax.doctor --config seam_voc_light --config.data.root=DIR/VOCdevkit

What it prints belongs into a bug report. It changes nothing but prepared records, which a run would
prepare as well. The exit status is 1 if something does not work.
"""

import argparse
import contextlib
import io
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.errors import UserError
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.host.provenance import git_revision, versions
from wsss_jax.pipeline import process

_EXAMPLES = (
    ("this machine, for a bug report", ""),
    (
        "with the data and the weights that a recipe would use",
        "--config seam_voc_light --config.data.root=DIR/VOCdevkit",
    ),
    ("with a short training and its maps and masks on every device", "--check"),
)
_OF_INTEREST = ("JAX_", "XLA_", "WSSS_", "TPU_", "CUDA_VISIBLE", "NVIDIA_", "SLURM_", "OMP_NUM")
_FEW_FILES = 1024
_LITTLE_SPACE = 2 << 30


class Finding(NamedTuple):
    """A line of the report, and whether what it tells is a problem."""

    topic: str
    text: str
    problem: bool = False


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    It is that of `command_line.run`, or 1 if something does not work.
    """
    return command_line.run(_parser(), argv, _run)


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.doctor",
        "Describes this machine and tells what does not work on it.",
        usage="[--config RECIPE [--config.KEY=VALUE ...]] [--check]",
        examples=_EXAMPLES,
        statuses={1: "something does not work; its line begins with !"},
        goes_on=False,
    )
    add = parser.add_argument_group("what else to look at").add_argument
    add("--config", metavar="RECIPE", help="the data and weights of this recipe")
    add("--config.KEY", metavar="VALUE", help="replaces a value of the recipe")
    add("--check", action="store_true", help="train, infer and score for half a minute")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.overrides and not options.config:
        raise UserError(f"{options.overrides[0]} needs --config=RECIPE: add it")
    share_one_heap()
    problems = 0
    topic = ""
    for finding in _findings(options):
        shown = "" if finding.topic == topic else finding.topic
        topic = finding.topic
        print(f"{'!' if finding.problem else ' '} {shown:<12} {finding.text}", flush=True)
        problems += finding.problem
    print(f"\n{problems} problem{'s' if problems != 1 else ''}" if problems else "\nno problems")
    return 1 if problems else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    yield from _software()
    yield from _host()
    yield from _folders()
    yield from _devices()
    if options.config:
        yield from _recipe(options.config, options.overrides)
    if options.check:
        yield from _short_run()


def _software() -> Iterator[Finding]:
    revision = git_revision()
    for name, version in versions().items():
        extra = f" ({revision})" if name == "wsss_jax" and revision else ""
        yield Finding("versions", f"{name} {version}{extra}")
    yield Finding("versions", f"{platform.platform()}, {sys.executable}")
    for name, value in sorted(os.environ.items()):
        if name.startswith(_OF_INTEREST):
            yield Finding("environment", f"{name}={value}")


def _host() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("host", f"{cores} cores for this process, {os.cpu_count()} in the machine")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("host", f"{_gib(total)} memory{_available()}")
    try:
        import resource

        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        few = files < _FEW_FILES
        advice = f": raise it with ulimit -n {min(most, 4096)}" if few else ""
        yield Finding("host", f"up to {files} open files{advice}", few)
    except ImportError:
        pass


def _available() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # This is not Linux.
        return ""
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return f", {_gib(1024 * int(found[0]))} of it available" if found else ""


def _folders() -> Iterator[Finding]:
    for name, folder in (
        ("working directory", Path.cwd()),
        ("prepared records", Path(os.environ.get("WSSS_JAX_DATA") or process.cache_folder())),
        ("compiled programs", process.cache_folder() / "xla"),
    ):
        place = folder
        while not place.exists():
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Finding("folders", f"{name}: cannot write to {folder}: {error.strerror}", True)
            continue
        free = shutil.disk_usage(place).free
        little = free < _LITTLE_SPACE
        advice = ": free some space" if little else ""
        yield Finding("folders", f"{name}: {folder}, {_gib(free)} free{advice}", little)


def _devices() -> Iterator[Finding]:
    process.quiet()
    try:
        import jax
        import jax.numpy as jnp

        devices = jax.devices()
    except Exception as error:  # A broken driver or plugin can fail in any way.
        yield Finding("devices", f"JAX finds none: {' '.join(str(error).split())}", True)
        return
    for device in devices:
        try:
            stats = device.memory_stats() or {}
            memory = f", {_gib(stats['bytes_limit'])}" if "bytes_limit" in stats else ""
            ones = jax.device_put(jnp.ones((256, 256)), device)
            value = float(jax.jit(lambda x: (x @ x).sum())(ones))
        except Exception as error:
            text = f"{device}: {' '.join(str(error).split())[:300]}"
            yield Finding("devices", text, True)
            continue
        wrong = value != 256**3
        said = f": a product of ones gives {value}, expected {256**3}" if wrong else ""
        yield Finding("devices", f"{device.platform} {device.device_kind}{memory}{said}", wrong)
    if devices[0].platform == "cpu":
        for kind, tell in (("nvidia", "/proc/driver/nvidia"), ("accel", "/dev/accel0")):
            if Path(tell).exists():
                extra = "cuda13" if kind == "nvidia" else "tpu"
                text = f"an accelerator is here ({tell}), but JAX does not use it: "
                yield Finding("devices", f"{text}pip install 'jax[{extra}]'", True)


def _recipe(name: str, overrides: Sequence[str]) -> Iterator[Finding]:
    from wsss_jax.data.sets.base import DataSettings
    from wsss_jax.pipeline import run
    from wsss_jax.pipeline.config import read_recipe

    config: Any = read_recipe(name, overrides)
    nodes = run.checked(config, ())
    yield Finding("recipe", f"{config.name}: {', '.join(node.name for node in nodes)}")
    splits = dict.fromkeys(split for node in nodes for split in node.stage.splits())
    data = DataSettings.from_config(config.data, "data")
    all_open = True
    for split in splits:
        try:
            source = data.open(split)
        except UserError as error:
            all_open = False
            yield Finding("data", f"{split}: {error}", True)
            continue
        yield Finding("data", f"{split}: {len(source):,} images, {len(source.classes)} classes")
    for refusal in run.data_refusals(config, nodes) if all_open else ():
        yield Finding("data", refusal, True)
    for node in nodes:
        for setting, file in node.stage.files().items():
            if not file:
                continue
            text = f"{node.name}.{setting}: {file}"
            try:
                yield Finding("files", f"{text} ({node.stage.locate(setting)})")
            except UserError as error:
                yield Finding("files", f"{text}: {error}", True)


def _short_run() -> Iterator[Finding]:
    """Yields what becomes of the smallest recipe on a few generated images, with all its stages.

    It runs in this process, because another one could not use the accelerators of this one.
    """
    from wsss_jax import main as program

    with tempfile.TemporaryDirectory(prefix="wsss_jax_doctor_") as folder:
        small = {"data.train_images": 32, "data.val_images": 16, "data.data_dir": f"{folder}/data"}
        values = [
            f"--config.{name}={value}" for name, value in (small | {"train.steps": 20}).items()
        ]
        arguments = ["main.py", "--config=cam_shapes", f"--workdir={folder}/run", *values]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = program.main(arguments)
        if status == 0 and (Path(folder) / "run/report.html").is_file():
            yield Finding("check", "all stages of a short run on generated images have ended")
            return
    last = (said.getvalue().strip().splitlines() or ["it said nothing"])[-1]
    yield Finding(
        "check", f"a short run on generated images ended with status {status}: {last}", True
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
