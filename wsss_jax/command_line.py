"""What all command lines share: one look of ``--help``, options, and how a run ends.

A command describes itself by a `Parser` and gives `run` the function that does the work. Mistakes
of the user, interruptions, closed pipes and full disks are then told in the same way everywhere.
"""

import argparse
import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from wsss_jax.errors import Interrupted, UserError, nearest
from wsss_jax.pipeline import process

_OVERRIDE = re.compile(r"--?(no)?config\.")
_STATUSES = {0: "finished", 2: "a mistake in the command, the recipe or the data, told in one line"}
# What the user can mend. A file that is not there is looked for beforehand, so elsewhere it is a
# defect and keeps its traceback.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
)


class Parser(argparse.ArgumentParser):
    """The options of one command and its help text.

    Options are added as to any `argparse.ArgumentParser`, preferably in groups. Names may be
    written with hyphens for underscores and with a single dash; they cannot be abbreviated.
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
          module: the command is ``python -m MODULE``.
          purpose: what it is for, in whole sentences.
          usage: the arguments in short, without the program's name.
          examples: what a command does, and its arguments.
          statuses: exit statuses with another meaning than those that all commands share.
          goes_on: the same command goes on where it was interrupted.
        """
        program = f"python -m {module}"
        told = {**_STATUSES, 130: _interrupted(goes_on), **statuses}
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

    def error(self, message: str) -> NoReturn:
        """Tells a mistake in the way of all others."""
        raise UserError(message)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options of a command line without the program's name.

        `overrides` are the replaced values of a recipe, each ``--config.KEY=VALUE``,
        ``--config.KEY`` or ``--noconfig.KEY``, where the command has the option ``--config.KEY``.

        Raises:
          UserError: an unknown option (the nearest is named), a value that does not fit, or a
            required option that is missing.
        """
        needed = [action for action in self._actions if action.required]
        for action in needed:
            action.required = False  # it is told below what is missing, and what that is
        own, overrides = self._divided(arguments)
        try:
            options, unknown = self.parse_known_args(own)
        except argparse.ArgumentError as error:
            raise UserError(f"{error.argument_name}: {error.message}") from error
        finally:
            for action in needed:
                action.required = True
        if options.help:
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
        options.overrides = overrides
        return options

    def _divided(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """The command's own arguments as it spells them, and the replaced values of a recipe."""
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

    0: finished, or stopped on request after saving. 2: a mistake of the user, told in one line.
    130: interrupted. A defect of the program is raised as itself.

    Args:
      parser: the command.
      argv: the command line, the program's name first.
      body: does the work with the parsed options and returns the exit status.
    """
    process.quiet()
    again = f"\nto go on: {command(parser, argv)}" if parser.goes_on else ""
    try:
        options = parser.parse(argv[1:])
        if options.help:
            print(parser.format_help(), end="")
            status = 0
        else:
            status = body(options)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"stopped: {stop}{again}", flush=True)
        return 0
    except KeyboardInterrupt:
        print(f"{_interrupted(parser.goes_on)}{again}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _FULL:
            print(f"error: {_full(error)}{again}", file=sys.stderr)
            return 2
        if error.errno in _PLACE and error.filename:
            where = os.fspath(error.filename)
            print(f"error: cannot use {where}: {error.strerror}", file=sys.stderr)
            return 2
        raise


def _interrupted(goes_on: bool) -> str:
    return "interrupted; finished work is kept" if goes_on else "interrupted"


def command(parser: Parser, argv: Sequence[str]) -> str:
    """The command line that goes on where `argv` has stopped, to be pasted into a shell."""
    program = ["python", "-m", parser.module] if argv[0].endswith(".py") else [argv[0]]
    # A forced run has already deleted what it was to delete.
    return shlex.join([*program, *(a for a in argv[1:] if a not in ("--force", "-force"))])


def _full(error: OSError) -> str:
    where = f" while writing {os.fspath(error.filename)}" if error.filename else ""
    return f"no space left on the device{where}: free some space and run the same command again"


def whole_number(text: str) -> int:
    """The type of an option that is a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise _expected("a whole number", text) from error


def number(text: str) -> float:
    """The type of an option that is a number."""
    try:
        return float(text)
    except ValueError as error:
        raise _expected("a number", text) from error


def numbers(text: str) -> tuple[float, ...]:
    """The type of an option that is several numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise _expected("numbers as 0.75,1", text) from error


def names(text: str) -> tuple[str, ...]:
    """The type of an option that is several names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def one_of(*choices: str) -> dict[str, Any]:
    """What `add_argument` takes for an option that is one of a few words."""

    def chosen(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(choices)}, found {text!r}{nearest(text, choices)}"
            )
        return text

    return {"type": chosen, "metavar": "|".join(choices)}


def _expected(what: str, found: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {what}, found {found!r}")
