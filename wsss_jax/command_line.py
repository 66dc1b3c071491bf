"""The common part of all command lines: options, the format of ``--help``, and exit statuses.

A command describes itself with a `Parser` and passes `run` the function that does the work. All
commands then report mistakes of the user, interruptions, closed pipes and full disks the same way.
"""

import argparse
import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from wsss_jax import __version__, console, interrupts
from wsss_jax.errors import (
    MAKE_SPACE,
    Interrupted,
    UserError,
    check_no_folder,
    nearest,
    no_space,
    refuse_addresses,
    used_up,
)
from wsss_jax.pipeline import process

INTERRUPTED = {True: "interrupted; finished work is kept", False: "interrupted"}
"""What is printed after Ctrl-C, if the same command resumes and otherwise."""

_OVERRIDE = re.compile(r"--?(no)?config\.")
_STATUSES = {
    0: "finished",
    2: "a mistake in the command, the recipe or the data, reported in one line",
}
# These are errors that the user can fix. Missing files are not among them: they are looked for
# beforehand, so anywhere else they are a defect, which keeps its traceback.
_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
)


class Parser(argparse.ArgumentParser):
    """The options of one command and its help text.

    Options are added as to any `argparse.ArgumentParser`, preferably in groups. Users can write
    their names with hyphens for underscores and with a single dash, but cannot abbreviate them.
    """

    def __init__(
        self,
        module: str,
        purpose: str,
        *,
        usage: str,
        examples: Sequence[tuple[str, str]],
        statuses: Mapping[int, str] = {},
        goes_on: bool = True,
    ) -> None:
        """Describes a command.

        Args:
          module: the module of the command, ``python -m MODULE``, and the name of the command in
            it if it has several.
          purpose: the purpose of the command, in whole sentences.
          usage: the arguments in short, without the name of the program.
          examples: descriptions of examples, and their arguments.
          statuses: exit statuses that differ from those of all commands, with their meanings.
          goes_on: whether the same command resumes where it was interrupted.
        """
        program = f"python -m {module}"
        told = {**_STATUSES, 130: INTERRUPTED[goes_on], **statuses}
        shown = [f"  {what}:\n    {program} {arguments}" for what, arguments in examples]
        super().__init__(
            prog=program,
            usage=f"{program} {usage}",
            description=purpose,
            epilog="\n".join(
                ["examples:", *shown, "", "exit status:"]
                + [f"  {status:<3}  {meaning}" for status, meaning in sorted(told.items())]
            ),
            formatter_class=_Help,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self.module = module
        self.goes_on = goes_on
        self.add_argument("-h", "-?", "--help", action="store_true", help="show this help")
        self.add_argument("--version", action="store_true", help="show the version")

    def error(self, message: str) -> NoReturn:
        """Reports a mistake like all others."""
        raise UserError(message)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses a command line without the name of the program.

        Returns:
          The options, and the `arguments` that they come from. If the command has an option
          ``--config.KEY``, `overrides` are the replaced values of a recipe: ``--config.KEY=VALUE``,
          ``--config.KEY`` or ``--noconfig.KEY``.

        Raises:
          UserError: an option is unknown (the nearest one is named), a value does not fit or is the
            address of a bucket, or a required option is missing.
        """
        for argument in arguments:
            refuse_addresses(argument, "the command")
        needed = [action for action in self._actions if action.required]
        for action in needed:
            action.required = False  # The message below says what is missing, and what it means.
        own, overrides = self._divided(arguments)
        try:
            options, unknown = self.parse_known_args(own)
        except argparse.ArgumentError as error:
            raise UserError(f"{error.argument_name}: {error.message}") from error
        finally:
            for action in needed:
                action.required = True
        if options.help or options.version:
            return options
        for argument in unknown:
            if argument.startswith("-"):
                name = argument.split("=")[0]
                raise UserError(f"unknown flag {name}{nearest(name, self._option_string_actions)}")
            raise UserError(f"unexpected argument {argument!r}: values are given as --flag=value")
        for action in needed:
            if getattr(options, action.dest) is None:
                name = action.option_strings[0] if action.option_strings else str(action.metavar)
                raise UserError(f"{name} is missing: {action.help}")
        options.overrides, options.arguments = overrides, tuple(arguments)
        return options

    def _divided(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """Returns the command's own arguments in its spelling, and the values of a recipe."""
        known = self._option_string_actions
        own: list[str] = []
        overrides: list[str] = []
        rest = list(arguments)
        while rest:
            argument = rest.pop(0)
            value_follows = bool(rest) and not rest[0].startswith("--")
            if _OVERRIDE.match(argument) and "--config.KEY" in known:
                argument = "--" + argument.lstrip("-")
                if "=" not in argument and value_follows and not argument.startswith("--no"):
                    argument += f"={rest.pop(0)}"
                overrides.append(argument)
                continue
            name, equals, value = argument.partition("=")
            spelled = "--" + name.lstrip("-").replace("-", "_")
            if name.startswith("-") and name not in known and spelled in known:
                argument = name = spelled
                argument += equals + value
            action = known.get(argument)
            if action is not None and action.nargs is None and not value_follows:
                raise UserError(f"{argument} needs a value: {argument} {action.metavar}")
            own.append(argument)
        return own, overrides


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed look: purpose and examples as written, options in one column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {action.metavar}"


def run(parser: Parser, argv: Sequence[str], body: Callable[[argparse.Namespace], int]) -> int:
    """Runs a command line and returns its exit status.

    Args:
      parser: the command.
      argv: the command line, with the name of the program first.
      body: the function that does the work with the parsed options and returns the exit status.

    Returns:
      The status of `body`; 0 if it stopped on request after saving; 2 for a mistake of the user,
      which is reported in one line; 130 if it was interrupted. An option ``--status_if_stopped``
      replaces 0 after a stop, and 130. A defect of the program raises its
      exception.
    """
    process.quiet()
    again = f"\nto resume: {command(parser, argv)}" if parser.goes_on else ""
    options = None
    try:
        interrupts.tell(f"{INTERRUPTED[parser.goes_on]}{again}", interrupts.STATUS)
        process.check_limits()
        options = parser.parse(argv[1:])
        stopped = getattr(options, "status_if_stopped", None) or interrupts.STATUS
        interrupts.tell(f"{INTERRUPTED[parser.goes_on]}{again}", stopped)
        if options.help:
            print(parser.format_help(), end="")
            status = 0
        elif options.version:
            print(f"wsss_jax {__version__}")
            status = 0
        else:
            status = body(options)
        sys.stdout.flush()
        return status
    except UserError as error:
        console.event("error", text=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        console.say(f"stopped: {stop}{again}")
        return getattr(options, "status_if_stopped", None) or 0
    except KeyboardInterrupt:
        print(f"{INTERRUPTED[parser.goes_on]}{again}", file=sys.stderr)
        return getattr(options, "status_if_stopped", None) or interrupts.STATUS
    except BrokenPipeError:  # The reader of a pipe (head, less) has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError, MemoryError) as error:
        if text := _explained(error):
            console.event("error", text=text)
            print(f"error: {text}{again if no_space(error) else ''}", file=sys.stderr)
            return 2
        raise
    finally:
        console.write_events_to(None)
        console.quiet(False)


Command = tuple[Callable[[], Parser], Callable[[argparse.Namespace], int]]
"""What makes the parser of one of several commands, and what does its work."""


def overview(
    module: str,
    purpose: str,
    commands: Mapping[str, Command],
    examples: Sequence[tuple[str, str]],
    goes_on: bool = True,
) -> Parser:
    """Returns the parser of a module with several commands, which names them."""
    names = ", ".join(commands)
    parser = Parser(
        module,
        f"{purpose}\nThe commands are {names}; each has its own --help.",
        usage="COMMAND [options]",
        examples=examples,
        goes_on=goes_on,
    )
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=f"one of {names}")
    return parser


def run_one_of(
    commands: Mapping[str, Command], parser: Callable[[], Parser], argv: Sequence[str]
) -> int:
    """Runs the command that the first argument of `argv` names, as `run` does.

    Args:
      commands: the commands by name.
      parser: what makes the `overview`, for arguments that name no command.
      argv: the command line, with the name of the program first.
    """

    def refuse(options: argparse.Namespace) -> int:
        names = ", ".join(commands)
        if options.command is None:
            raise UserError(f"COMMAND is missing: one of {names}")
        raise UserError(
            f"expected one of {names}, found {options.command!r}"
            f"{nearest(options.command, commands)}"
        )

    name = argv[1] if len(argv) > 1 else ""
    if name not in commands:
        return run(parser(), argv, refuse)
    make, body = commands[name]
    # The line that resumes has the name of the command in the parser's module.
    return run(make(), [argv[0], *argv[2:]], body)


def command(parser: Parser, argv: Sequence[str]) -> str:
    """Returns the command line that resumes `argv`, to be pasted into a shell."""
    program = ["python", "-m", *parser.module.split()] if argv[0].endswith(".py") else [argv[0]]
    # A forced run has already deleted everything that it had to delete.
    return shlex.join([*program, *(a for a in argv[1:] if a not in ("--force", "-force"))])


def _explained(error: OSError | RuntimeError | MemoryError) -> str:
    """Returns what an error of the system means for the user, or "" if it is a defect."""
    where = os.fspath(getattr(error, "filename", None) or "")
    if what := used_up(error):
        of_files = isinstance(error, OSError) and error.errno != errno.ENOMEM
        return f"cannot open {where or 'a file'}: {what}" if of_files else what
    if isinstance(error, TimeoutError):
        return (
            f"a library has waited too long ({error}), as happens on a slow disk or if the clock is"
            " set forward: run the same command again; finished work is kept"
        )
    if not isinstance(error, OSError):
        # What `pathlib` raises for links that lead to each other.
        return f"cannot use a path: {error}" if str(error).startswith("Symlink loop") else ""
    if what := no_space(error):
        return f"{what}{f' while writing {where}' if where else ''}: {MAKE_SPACE}"
    return f"cannot use {where}: {error.strerror}" if error.errno in _PLACE and where else ""


def add_run_options(group: Any, required: bool = False) -> None:
    """Adds the options that choose a network of a run and the settings with which it is applied."""
    add = group.add_argument
    add("--workdir", type=Path, required=required, metavar="DIR", help="the run that trained it")
    add("--stage", default="", metavar="NAME", help="the stage that applies it (the last one)")
    add(
        "--scales",
        type=numbers,
        metavar="S,S",
        help="factors of the image's size instead of those of the stage: 0.75,1,1.5",
    )
    add("--classes", default="", metavar="FILE", help="class names, for a run without them")


def whole_number(text: str) -> int:
    """Converts the value of an option to a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise _expected("a whole number", text) from error


def number(text: str) -> float:
    """Converts the value of an option to a number."""
    try:
        return float(text)
    except ValueError as error:
        raise _expected("a number", text) from error


def numbers(text: str) -> tuple[float, ...]:
    """Converts the value of an option to numbers, which commas separate."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise _expected("numbers such as 0.75,1", text) from error


def names(text: str) -> tuple[str, ...]:
    """Converts the value of an option to names, which commas separate; there is at least one."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise _expected("names, which commas separate", text)
    return found


def new_file(text: str) -> Path:
    """Converts the value of an option to the path of a file to write, which is no folder."""
    path = Path(text)
    try:
        check_no_folder(path)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def one_of(*choices: str) -> dict[str, Any]:
    """Returns arguments of `add_argument` for an option that is one of a few words."""

    def chosen(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(choices)}, found {text!r}{nearest(text, choices)}"
            )
        return text

    return {"type": chosen, "metavar": "|".join(choices)}


def _expected(what: str, found: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {what}, found {found!r}")
