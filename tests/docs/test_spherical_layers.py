"""The code of docs/spherical-layers.md runs as it stands and does what the text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model import layers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spherical-layers.md"
TEXT = PAGE.read_text()


@pytest.fixture(scope="module")
def names() -> dict:
    """What the page's code defines, all blocks run in order."""
    namespace = {"__name__": "spherical_layers"}
    for block in re.finditer(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        # Empty lines in front let an error name the line of the page.
        above = "\n" * TEXT[: block.start(1)].count("\n")
        exec(compile(above + block[1], str(PAGE), "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_storms_are_recognised_wherever_they_are(names):
    accuracy = names["accuracy"]
    assert set(accuracy) == {"near the pole", "anywhere", "in the mirror"}
    assert min(accuracy.values()) > 0.98, accuracy
    assert abs(accuracy["anywhere"] - accuracy["near the pole"]) < 0.02


@pytest.mark.slow
def test_all_classes_are_in_the_test_images(names):
    for labels in (names["arctic_labels"], names["turned_labels"]):
        assert set(labels.tolist()) == {0, 1, 2}


def test_the_page_speaks_of_layers_that_exist():
    table = TEXT[TEXT.index("| layer | does | view |") :].split("\n\n")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)[(`]", line.split("|")[1])]
    assert len(named) >= 8
    assert set(named) <= set(layers.__all__)
