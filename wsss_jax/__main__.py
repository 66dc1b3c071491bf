"""One program for all commands: ``wsss-jax COMMAND …`` or ``python -m wsss_jax COMMAND …``."""

import importlib
import sys
from collections.abc import Sequence

from wsss_jax import interrupts
from wsss_jax.errors import nearest

COMMANDS = {
    "run": ("main", "runs a recipe: from labels to masks, a network and a report"),
    "compare": ("compare", "runs recipes with several seeds and puts them into one table"),
    "prepare": ("prepare", "makes data sets of photographs, VOC and COCO, and checks them"),
    "predict": ("predict", "segments photographs with a trained network, or of ImageNet's classes"),
    "evaluate": ("evaluate", "scores masks or maps of any program"),
    "convert_cams": ("convert_cams", "turns maps of other programs into ours"),
    "submission": ("submission", "packs masks for PASCAL VOC's evaluation server"),
    "export": ("export", "writes a network as one file that runs without this package"),
    "weights": ("weights_command", "looks into files of weights and writes them in other forms"),
    "doctor": ("doctor", "describes this machine and tells what does not work on it"),
}
"""The module of each command and what it does."""

ALIASES = {"segment": "predict"}
"""Former names of commands."""


def main(argv: Sequence[str]) -> int:
    """Runs the command that `argv` names (program name first) and returns its exit status.

    Options without a command are those of ``run``. No arguments, or ``--help``, list the commands.
    """
    from wsss_jax import __version__

    first = argv[1] if len(argv) > 1 else "--help"
    if first in ("-h", "-?", "--help", "help"):
        print("usage: wsss-jax COMMAND [options]\n\ncommands (COMMAND --help tells more):")
        for name, (module, purpose) in COMMANDS.items():
            shown = name if module == f"{name}_command" else module
            print(f"  {name:<13} {purpose} (python -m wsss_jax.{shown})")
        print("\n--version prints the version. Options without a command are those of run.")
        return 0
    if first == "--version":
        print(f"wsss_jax {__version__}")
        return 0
    command, arguments = ("run", argv[1:]) if first.startswith("-") else (first, argv[2:])
    spelled = command.replace("-", "_")
    spelled = ALIASES.get(spelled, spelled)
    if spelled not in COMMANDS:
        print(
            f"error: expected a command, found {command!r}{nearest(spelled, COMMANDS)}: choose one"
            f" of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    module = COMMANDS[spelled][0]
    if module == "main" and argv is sys.argv:
        interrupts.begin()  # before libraries are imported, which takes seconds
    # The command then names itself by its module, also in the line that resumes it.
    return importlib.import_module(f"wsss_jax.{module}").main([f"{module}.py", *arguments])


def cli() -> None:
    """Runs the program ``wsss-jax``."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    cli()
