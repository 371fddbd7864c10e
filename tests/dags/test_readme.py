"""The README and the help speak of commands, options, stages, configurations and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from dags.cli import app
from dags.stages import STAGES
from pipeline.config_files import list_configs, load_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands
EXAMPLES = re.findall(r"^ {4}spherecast (.+)$", README, re.MULTILINE) + [
    example for command in COMMANDS.values() for example in re.findall(r"`spherecast (.+?)`", command.help or "")
]


def options_of(command: str) -> set[str]:
    return {option for parameter in COMMANDS[command].params for option in parameter.opts + parameter.secondary_opts}


def test_there_are_examples_in_every_help():
    for name, command in COMMANDS.items():
        assert "`spherecast" in command.help or command.hidden, f"{name} has no example"


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_use_commands_options_and_configurations_that_exist(example):
    name, *words = example.split()
    assert name in COMMANDS
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in options_of(name), f"{name} has no {word}"
    if name in ("run", "validate", "train") and "/" not in words[0]:
        assert words[0] in list_configs()


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example.split()[0] in ("run", "validate")])
def test_the_values_that_examples_change_are_values_of_the_configuration(example):
    _, configuration, *words = example.split()
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    assert load_config(configuration, overrides).name


def test_the_readme_names_every_command():
    named = set(re.findall(r"[a-z]+", " ".join(re.findall(r"^\| (`.+?) \|", README, re.MULTILINE))))
    assert {name for name, command in COMMANDS.items() if not command.hidden} <= named
    inline = re.findall(r"`spherecast ([a-z-]+)", README)
    assert set(inline) <= set(COMMANDS)


def test_the_readme_draws_every_stage():
    drawing = README[README.index("    simulate ->") :].split("\n\n")[0]
    assert set(re.findall(r"[a-z]+", drawing)) == set(STAGES)


def test_make_targets_and_files_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make (\w+)$", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for folder in re.findall(r"^ {4}(\w+)/ ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir()
    for path in re.findall(r"`([a-z]+/[a-z_/]+\.py)`", README):
        assert (ROOT / path).is_file()
    for picture in re.findall(r"!\[.*?\]\((.+?)\)", README):
        assert (ROOT / picture).is_file(), picture
