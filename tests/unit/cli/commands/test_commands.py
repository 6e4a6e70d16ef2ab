"""The table of commands, and what each declares."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from patchpack.cli import commands
from patchpack.cli.commands import COMMANDS


def test_the_table_names_every_module() -> None:
    folder = Path(str(commands.__file__)).parent
    assert {path.stem for path in folder.glob("*.py")} == {*COMMANDS, "__init__"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_has_help_that_states_its_default(name: str) -> None:
    parser = argparse.ArgumentParser()
    import_module(f"patchpack.cli.commands.{name}").add_arguments(parser)
    assert parser.description
    assert f"patchpack {name} " in f"{parser.epilog} "
    for action in parser._actions:
        assert action.help, action.dest
        if action.option_strings and action.default not in (None, False, argparse.SUPPRESS):
            assert "default:" in action.help, action.option_strings
        if isinstance(action.default, str | int) and action.default not in ("auto", False, argparse.SUPPRESS):
            assert str(action.default) in action.help, action.option_strings
