"""Every `spherecast` command line in the documentation names commands, options and values that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from dags.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands


def blocks(text: str) -> list[str]:
    """Return the command lines of indented and fenced blocks, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^(?: {4}|\t)(.*)$", text, re.MULTILINE)
    for fence in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines += fence.splitlines()
    return [line.strip() for line in lines if re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(?:srun )?spherecast [a-z]", line)]


def mentions(text: str) -> list[str]:
    """Return the command lines within backticks."""
    return re.findall(r"`(spherecast [a-z][^`]*)`", text.replace("\n", " "))


def found(extract) -> list:
    lines = {(page.name, line): None for page in PAGES for line in extract(page.read_text())}
    return [pytest.param(line, id=f"{page}: {line}") for page, line in lines]


def words_of(line: str) -> list[str]:
    """Return the words after `spherecast`, up to the end of the shell's command."""
    words = shlex.split(line, comments=True)
    words = words[words.index("spherecast") + 1 :]
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "&&", ";", "&", "||")]
    return words[: ends[0]] if ends else words


def require_names(words: list[str]) -> None:
    """Assert that a command and the options given to it exist."""
    name, *rest = words
    assert name in COMMANDS, f"no command {name}"
    options = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    # What follows -- goes to a runner of Apache Beam.
    rest = rest[: rest.index("--")] if "--" in rest else rest
    for word in rest:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in {*options, "--help"}, f"{name} has no {word}"


@pytest.mark.parametrize("line", found(blocks))
def test_a_command_of_a_block_parses(line):
    words = words_of(line)
    require_names(words)
    # An ellipsis stands for what the page leaves out.
    name, *rest = (word for word in words if word != "...")
    context = COMMANDS[name].make_context(name, rest)
    assert context.command is COMMANDS[name]
    if not context.allow_extra_args:
        assert context.args == []


@pytest.mark.parametrize("line", found(mentions))
def test_a_command_that_is_mentioned_exists(line):
    require_names(words_of(line))


def test_commands_are_found_on_most_pages():
    pages = {case.id.partition(":")[0] for case in found(blocks)}
    assert {"README.md", "data.md", "distributed.md", "evaluation.md", "forecasts.md", "scaling.md"} <= pages


def test_a_wrong_option_is_found():
    with pytest.raises(AssertionError, match="no --climatologie"):
        require_names(words_of("spherecast score a.zarr b.zarr --climatologie c.zarr"))
