"""The commands of docs/distributed.md give the files it names, and its tables are true."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.config_files import load_config
from pipeline.processes.launch import SETTINGS, render
from pipeline.processes.local import parse_local
from pipeline.processes.membership import COORDINATOR, PROCESS, PROCESSES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "distributed.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^ {4}(\S.*)$", TEXT, re.MULTILINE)]
LAUNCHES = [command for command in COMMANDS if command[:2] == ["spherecast", "launch"]]


def _rows(heading: str) -> list[list[str]]:
    """Cells of the table below a row that begins with `heading`."""
    table = TEXT[TEXT.index(f"| {heading}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("command", LAUNCHES, ids=lambda command: command[command.index("--to") + 1])
def test_a_command_renders_the_file_that_the_next_one_uses(command, tmp_path):
    words = command[2:]
    options = [(word, words[i + 1]) for i, word in enumerate(words) if word.startswith("--")]
    overrides = words[1 : min(i for i, word in enumerate(words) if word.startswith("--"))]
    settings = dict(value.split("=", 1) for option, value in options if option == "--set")
    files = render(load_config(words[0], overrides), dict(options)["--to"], **settings)
    following = COMMANDS[COMMANDS.index(command) + 1]
    (used,) = set(files) & set(following)
    if used.endswith(".yaml"):
        assert [part["kind"] for part in yaml.safe_load_all(files[used])] == ["ConfigMap", "JobSet"]
    else:
        subprocess.run(["bash", "-n"], input=files[used], text=True, check=True)
    for name in files:
        assert name in TEXT or dict(options)["--to"] == "tpu-vm"


def test_all_places_have_a_command():
    assert {command[command.index("--to") + 1] for command in LAUNCHES} == set(SETTINGS)


def test_the_trial_names_a_number_of_processes():
    (trial,) = [command for command in COMMANDS if "--launch" in command]
    assert parse_local(trial[trial.index("--launch") + 1]) == 2
    for variable in (COORDINATOR, PROCESSES, PROCESS):
        assert f"`{variable}`" in TEXT


def test_the_samples_on_a_device_are_as_the_formula_says():
    for devices, sphere, accumulate, data, samples in _rows("devices"):
        assert int(data) == int(devices) // int(sphere)
        assert 32 % (int(accumulate) * int(data)) == 0
        assert 32 // (int(accumulate) * int(data)) == int(samples.split(",")[0])
        part = {"1": "", "2": "half", "4": "a quarter"}[sphere]
        assert part in samples


def test_the_settings_are_those_there_are():
    told = {(row[0], row[1].strip("`")): row[2].strip("`") for row in _rows("target")}
    there = {}
    for target, settings in SETTINGS.items():
        for name, field in settings.model_fields.items():
            default = "none" if field.default is None else str(field.default)
            default = default.lower() if isinstance(field.default, bool) else default
            there[target, name] = "" if field.is_required() else default
    assert told == there
