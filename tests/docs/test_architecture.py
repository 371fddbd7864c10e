"""docs/architecture.md speaks of functions, classes, modules and folders that exist, and of the quickstart's true shapes."""

from __future__ import annotations

import importlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from model.filters import Features
from pipeline.config_files import load_config
from pipeline.states.layout import StateLayout
from transforms.forcings import forcing_names

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text()
NAMES = sorted(set(re.findall(r"`((?:dags|pipeline|model|transforms)(?:\.\w+)+)`", TEXT)) - {"model.precision"})
FOLDERS = sorted(set(re.findall(r"`((?:dags|pipeline|model|transforms)/[\w/]*)`", TEXT)))


def resolve(name: str) -> object:
    """Return the module, or the member of one, of a dotted name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if not (path.is_dir() or path.with_suffix(".py").is_file()):
            continue
        found = importlib.import_module(".".join(parts[:length]))
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def test_tests_of_new_things_exist():
    named = [path for *_, test in rows("what") for path in re.findall(r"`(tests/[\w/.]+)`", test)]
    assert len(named) >= len(rows("what"))
    assert all((ROOT / path).exists() for path in named)


def rows(heading: str) -> list[list[str]]:
    table = TEXT[TEXT.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name):
    assert resolve(name) is not None


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_exist(folder):
    assert (ROOT / folder).is_dir()


def test_every_step_names_code_of_the_folder_it_gives():
    steps = rows("step")
    assert len(steps) > 20
    for step, who, *_ in steps:
        names, folders = re.findall(r"`([\w.]+)`", who), re.findall(r"in `([\w/]+)/`", who)
        assert names, step
        assert folders, step
        for name in names:
            module = ".".join(part for part in name.split(".") if part.islower() or "_" in part)
            homes = {*folders, "pipeline/stores", "pipeline/regridding"}
            assert any(module.startswith(home.replace("/", ".")) for home in homes), f"{step}: {name}"


def test_shapes_are_those_of_the_quickstart():
    config = load_config("quickstart")
    layout, level = StateLayout.of(config), config.model.levels[0]
    channels = layout.channels
    forcings = len(forcing_names(solar=config.model.solar, clock=config.model.clock))
    statics = len(config.data.statics) + config.model.latitude
    assert (len(layout.fields), len(channels.scalars), len(channels.eastward)) == (15, 9, 3)
    assert (forcings, statics, level.blocks) == (5, 3, 4)
    degrees, nlat = level.band_limit, config.data.grid.latitude
    encoded = Features(level.scalars, level.vectors).channels
    size, first = config.training.batch_size, f"{len(channels.scalars)} + {forcings} + {statics}"
    assert f"(64, {nlat}, {size}, {first})" in TEXT
    assert f"(2, {degrees}, {degrees}, {size}, {encoded})" in TEXT
    assert f"({2 * degrees}, {degrees}, {size}, {level.scalars})" in TEXT
    leads = config.forecast.lead_hours // config.data.time_step_hours
    assert f"(T, {leads}, {len(layout.levels)}, {nlat}, {config.data.grid.longitude})" in TEXT
    assert f"({config.forecast.batch_size}, 1, {len(layout.fields)}, {nlat}, 64)" in TEXT
    source = config.simulation.grid
    assert f"(T, {len(layout.levels)}, {source.latitude}, {source.longitude})" in TEXT
    assert f"({len(config.evaluation.regions)}, {leads}, {len(layout.levels)})" in TEXT


def test_the_picture_is_there_and_well_formed():
    (picture,) = re.findall(r"!\[.*?\]\((.+?)\)", TEXT)
    root = ElementTree.parse(PAGE.parent / picture).getroot()
    places = {text.text for text in root.iter() if text.tag.endswith("text") and text.get("font-size") == "11"}
    named = {word.strip() for place in places for word in (place or "").split(",")}
    rooms = {name for name in named if name.split("/")[0] in ("pipeline", "transforms", "model")}
    assert len(rooms) >= 6
    assert all((ROOT / room).is_dir() for room in rooms)
