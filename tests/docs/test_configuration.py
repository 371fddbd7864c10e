"""docs/configuration.md is what the classes of the configuration say, and they say something of every key."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config
from pipeline.config_data import Section
from pipeline.config_files import list_configs, load_config
from pipeline.config_reference import keys, reference

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
KEYS = dict(keys())
MAPPINGS = {key for key, field in KEYS.items() if "dict" in str(field.annotation)}


def documented() -> set[str]:
    """Keys of the page's tables, as ``section.key``, and the headings of its sections."""
    found, section = set(), ""
    for line in PAGE.splitlines():
        if heading := re.match(r"## (\S+)", line):
            section = f"{heading[1]}."
            found.add(heading[1].removesuffix("[]"))
        elif row := re.match(r"\| `(\w+)` \|", line):
            found.add(section + row[1])
    return found


def used(values: Any, path: str = "") -> set[str]:
    """Keys of a configuration as it is written; entries of lists are ``key[]``."""
    if isinstance(values, list):
        return set().union(*(used(value, f"{path}[]") for value in values if isinstance(value, dict)))
    if not isinstance(values, dict) or path in MAPPINGS:
        return set()
    found = set()
    for name, value in values.items():
        key = f"{path}.{name}" if path else str(name)
        found |= {key} | used(value, key)
    return found


def test_the_page_is_what_is_generated():
    assert reference() == PAGE, "write it anew: python -m pipeline.config_reference > docs/configuration.md"


def test_every_key_is_on_the_page():
    assert documented() == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_described(key):
    field = KEYS[key]
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
        assert field.annotation.__doc__ != Section.__doc__
    else:
        assert field.description


@pytest.mark.parametrize("name", list_configs())
def test_shipped_configurations_use_documented_keys_alone(name):
    values = yaml.safe_load((resources.files("pipeline") / "configs" / f"{name}.yaml").read_text())
    assert len(used(values)) > 10
    assert used(values) <= documented()


def test_defaults_on_the_page_are_those_of_a_configuration():
    bare = {section: {} for section in ("data", "model", "training")}
    bare["data"] = {"variables": ["temperature"]}
    bare["model"] = {"levels": [{"band_limit": 16, "scalars": 1, "vectors": 0, "blocks": 1}]}
    bare["training"] = {"stages": [{"steps": 1, "updates": 1, "learning_rate": 1e-3}]}
    config = Config.model_validate({"name": "bare", **bare}).model_dump(mode="json")
    section = ""
    compared = 0
    for line in PAGE.splitlines():
        if heading := re.match(r"## (\S+)", line):
            section = heading[1]
        row = re.match(r"\| `(\w+)` \| .+? \| `(.+?)` \| ", line)
        if row and section and "[]" not in section:
            node: Any = config
            for part in section.split("."):
                node = node[part]
            told = yaml.safe_load(row[2])
            assert node[row[1]] == told or section.endswith("grid"), f"{section}.{row[1]}"
            compared += 1
    assert compared > 60


def test_the_example_of_an_override_works():
    (override,) = re.findall(r"`(training\.stages\S+=\S+)`", PAGE)
    assert load_config("quickstart", [override]).training.stages[0].updates == 500
