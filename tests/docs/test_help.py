"""The help of every command: what it does, an example that works, and a word on each argument and option."""

from __future__ import annotations

import re

import pytest
import typer.main

from dags.cli import app

COMMANDS = {name: command for name, command in typer.main.get_command(app).commands.items() if not command.hidden}
PARAMETERS = [
    pytest.param(parameter, id=f"{name} {max(parameter.opts, key=len)}")
    for name, command in COMMANDS.items()
    for parameter in command.params
]


def test_there_are_commands_with_parameters():
    assert len(COMMANDS) > 15
    assert len(PARAMETERS) > 100


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_and_an_example_of_itself(name):
    text = COMMANDS[name].help
    assert re.match(r"[A-Z].+[.:]", text)
    assert re.search(rf"Example: `spherecast {name}\b[^`]*`", text), f"{name}: no line `Example: ...`"


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_an_argument_or_option_has_help(parameter):
    assert len(parameter.help or "") > 5
