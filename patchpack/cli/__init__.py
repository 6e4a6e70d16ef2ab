"""The command line: ``patchpack COMMAND ARGUMENTS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from patchpack._version import __version__
from patchpack.cli.commands import COMMANDS
from patchpack.errors import PatchpackError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    The status is 0 after success, 1 after an error, and 130 after Ctrl-C. The error is printed.

    Arguments that no command takes raise `SystemExit` with status 2.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = _parser(given).parse_args(given)
        return int(arguments.run(arguments))
    except PatchpackError as error:
        print(f"patchpack: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchpack",
        description="Train vision transformers on images at their native resolution and aspect ratio.",
        epilog="example: patchpack demo",
    )
    parser.add_argument("--version", action="version", version=f"patchpack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # patchpack has no options with a value, so the command is the first argument without a dash
    chosen = next((argument for argument in given if not argument.startswith("-")), None)
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about)
        if name == chosen:  # only its module is imported
            module = import_module(f"patchpack.cli.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
