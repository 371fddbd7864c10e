"""Configurations and stores changed at random: each runs, or is refused by what names the change; nothing half is published.

``MUTATIONS=100 pytest tests/dags/test_mutations.py`` tries that many of each in place of a few, and ``MUTATIONS_SEED`` others.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from dags import stage_work
from dags.fingerprints import graph
from dags.plan import expected_of, plan
from dags.state import State, holds
from pipeline.config_files import load_config, parse_config
from pipeline.config_reference import keys
from pipeline.runs import Run
from transforms.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Sharding info not provided")]

LIMITS = settings(
    max_examples=int(os.environ.get("MUTATIONS", "12")),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # What is drawn is as small as it gets.
    suppress_health_check=list(HealthCheck),
)
SEED = int(os.environ.get("MUTATIONS_SEED", "1"))
SMALL = [
    "simulation.days=9",
    "simulation.grid={latitude: 13, longitude: 24, poles: true}",
    "data.grid={latitude: 8, longitude: 16}",
    "periods.train=[2001-01-01T00:00, 2001-01-05T18:00]",
    "periods.validation=[2001-01-06T00:00, 2001-01-07T18:00]",
    "periods.test=[2001-01-08T00:00, 2001-01-09T18:00]",
    "model.levels=[{band_limit: 6, scalars: 4, vectors: 2, blocks: 1}]",
    "training.stages=[{steps: 1, updates: 2, learning_rate: 1.0e-3}]",
    "training.batch_size=2",
    "training.validate_every=2",
    "training.checkpoint_every=2",
    "training.validation_windows=2",
    "training.validation_forecasts=0",
    "forecast.lead_hours=12",
    "forecast.every_hours=24",
    "forecast.batch_size=1",
    "evaluation.resamples=10",
    "evaluation.regions=[global]",
    "evaluation.map_hours=[12]",
    "evaluation.spectra_hours=[12]",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder of runs with one that is whole, so that those beside it work only on what differs."""
    folder = tmp_path_factory.mktemp("mutations") / "runs"
    assert attempt(load_config("tiny", [*SMALL, "name=whole"]), folder) == ""
    return folder


def attempt(config: Any, folder: Path, until: str = "report") -> str:
    """Run a configuration in this process; return what it is refused with, or nothing.

    Whatever becomes of it, what is published is whole.
    """
    directory = folder / config.name
    try:
        steps = plan(config, directory, until=[until])
        Run.create(directory, config)
        for step in steps:
            if step.work:
                stage_work.work(step.stage.name, directory)
        return ""
    except InputError as refused:
        return str(refused)
    finally:
        if directory.exists():
            nodes, expected = graph(config), expected_of(config, State(directory))
            for name, stage in nodes.items():
                if any((directory / artefact).exists() for artefact in stage.artefacts):
                    assert holds(directory, stage, expected[name].fingerprint) is None


# Configurations


WORDS = ("", "x", "850", "2001-01-03", "temperature", "temperature@850", "global", "<b>")
NUMBERS = (-1, 0, 1, 2, 3, 7, 24, 500, 0.5, -0.5, 1e-30, 1e30, float("inf"), float("nan"))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.lists(st.sampled_from((*NUMBERS, *WORDS)), max_size=3),
    st.dictionaries(st.sampled_from(WORDS), st.sampled_from((*NUMBERS, *WORDS)), max_size=2),
)
# What takes hours or reaches for what is outside is not for a test: the work of any choice is bounded by `NUMBERS`.
OUTSIDE = ("name", "source.kind", "source.preset", "execution.beam")


def values_of(annotation: Any) -> st.SearchStrategy:
    """Return odd values, and those that a key's type names."""
    names = [
        value for part in (annotation, *get_args(annotation)) if get_origin(part) is Literal for value in get_args(part)
    ]
    return st.one_of(st.sampled_from(names), ODD) if names else ODD


MUTATION = st.sampled_from([(key, field) for key, field in keys() if key not in OUTSIDE]).flatmap(
    lambda entry: st.one_of(
        st.tuples(st.just("set"), st.just(entry[0]), values_of(entry[1].annotation)),
        st.tuples(st.sampled_from(["remove", "misspell"]), st.just(entry[0]), st.none()),
    )
)


def mutated(values: dict, action: str, key: str, value: Any) -> dict:
    """Return unchecked values of a configuration with one key changed; of lists of sections, in the first entry."""
    values = copy.deepcopy(values)
    node: Any = values
    *parents, last = key.replace("[]", ".0").split(".")
    for part in parents:
        node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
    if action == "remove":
        node.pop(last, None)
    elif action == "misspell":
        node[f"{last}_"] = node.pop(last, 1)
    else:
        node[last] = value
    return values


@seed(SEED)
@LIMITS
@given(change=MUTATION)
def test_a_changed_configuration_runs_or_is_refused_by_name(change, base):
    action, key, value = change
    plain = yaml.safe_load(load_config("tiny", [*SMALL, "name=changed"]).to_yaml())
    shutil.rmtree(base / "changed", ignore_errors=True)
    try:
        config = parse_config(mutated(plain, action, key, value), "changed")
    except InputError as refused:
        message = str(refused)
    else:
        message = attempt(config, base, "report" if key.startswith("report") else "evaluate")
    assert not message or names(message, key), f"{key} is not named by: {message}"


def names(message: str, key: str) -> bool:
    """Whether a person who reads this knows where to look: at the key, or at the section of a key that it sets off."""
    *parents, last = key.replace("[]", "").split(".")
    return last in message or (bool(parents) and parents[0] in message)


# Stores


PLAIN = ("geopotential", "temperature", "u_component_of_wind", "land_sea_mask")
AXES = ("time", "level", "latitude", "longitude")
VALUES = (float("nan"), float("inf"), -1e30, 0.0, 1e9)
NAMES = st.sampled_from((*PLAIN, *AXES))
KNOWN_UNITS = st.sampled_from(("K", "degC", "m**2 s**-2", "m s**-1", "hPa", "Pa", "furlong", "", None, 3))


def drop(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.drop_vars(name)


def rename(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.rename({name: f"{name}_x"})


def shift(store: xr.Dataset, name: str) -> xr.Dataset:
    step = np.timedelta64(1, "D") if name == "time" else 7
    return store.assign({name: (store[name].dims, store[name].values + step, store[name].attrs)})


def reverse(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.isel({name: slice(None, None, -1)}) if name in AXES else store.transpose(*reversed(AXES))


def repeat(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.isel({name: [0, *range(store.sizes[name])]})


def thin(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.isel({name: [i for i in range(store.sizes[name]) if i != 1]})


def shorten(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.isel({name: slice(0, 1)})


def flatten(store: xr.Dataset, name: str) -> xr.Dataset:
    """Take an axis from one variable, or from all."""
    return store.isel({name: 0}) if name in AXES else store.assign({name: store[name].isel(latitude=0, drop=True)})


def add_axis(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.assign({name: store[name].expand_dims(number=2)}) if name in PLAIN else store.expand_dims(number=2)


def as_text(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.assign({name: store[name].astype(str)})


def as_integers(store: xr.Dataset, name: str) -> xr.Dataset:
    return store.assign({name: store[name].astype(np.int64)})


CHANGES = (drop, rename, shift, reverse, flatten, add_axis, as_text, as_integers)
AXIS_CHANGES = (repeat, thin, shorten)


def put(store: xr.Dataset, name: str, value: float, every: int) -> xr.Dataset:
    """Put a value in the place of every so many."""
    if name == "time":
        value = np.datetime64("NaT")
    values = store[name].values.copy()
    values.reshape(-1)[::every] = np.asarray(value).astype(values.dtype)
    return store.assign({name: (store[name].dims, values, store[name].attrs)})


def measure(store: xr.Dataset, name: str, units: Any) -> xr.Dataset:
    """Give a variable other units."""
    store = store.copy()
    store[name].attrs = {**store[name].attrs, "units": units}
    return store


STORE_CHANGE = st.one_of(
    st.tuples(st.sampled_from(CHANGES), NAMES),
    st.tuples(st.sampled_from(AXIS_CHANGES), st.sampled_from(AXES)),
    st.tuples(st.just(put), NAMES, st.sampled_from(VALUES), st.sampled_from((1, 7, 1001))),
    st.tuples(st.just(measure), st.sampled_from(PLAIN), KNOWN_UNITS),
)
FILES = st.sampled_from(("truncate", "empty", "remove", "garble"))


def damage(path: Path, action: str) -> None:
    """Damage a file of a store."""
    if action == "remove":
        path.unlink()
    elif action == "empty":
        path.write_bytes(b"")
    elif action == "truncate":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(bytes(byte ^ 0x55 for byte in path.read_bytes()))


@pytest.fixture(scope="module")
def atmosphere(base) -> xr.Dataset:
    with xr.open_zarr(base / "whole" / "source.zarr", decode_timedelta=False) as store:
        return store.load().drop_encoding()


def attempt_store(path: Path, base: Path) -> str:
    shutil.rmtree(base / "changed", ignore_errors=True)
    overrides = [*SMALL, "name=changed", "source.kind=store", f"source.path={path}"]
    return attempt(load_config("tiny", overrides), base, "climatology")


@seed(SEED)
@LIMITS
@given(change=STORE_CHANGE)
@example(change=(repeat, "level"))
@example(change=(measure, "geopotential", 3))
def test_a_changed_store_runs_or_is_refused_by_name(change, atmosphere, base, tmp_path_factory):
    function, name, *arguments = change
    path = tmp_path_factory.mktemp("store") / "changed.zarr"
    try:
        function(atmosphere, name, *arguments).to_zarr(path, zarr_format=3, consolidated=True)
    except (ValueError, TypeError, KeyError):
        return  # Cannot be written: no such store exists.
    message = attempt_store(path, base)
    known_as = [name, *(["periods"] if name == "time" else [])]
    assert not message or any(word in message for word in known_as), f"{name} is not named by: {message}"


@seed(SEED)
@LIMITS
@given(choice=st.floats(0, 1, exclude_max=True), action=FILES)
@example(choice=0.9, action="truncate")
def test_a_damaged_store_runs_or_is_refused_by_name(choice, action, base, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "damaged.zarr"
    shutil.copytree(base / "whole" / "source.zarr", path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    chosen = files[int(choice * len(files))]
    damage(chosen, action)
    message = attempt_store(path, base)
    part = chosen.relative_to(path).parts[0]
    assert not message or part in message or str(path) in message, f"{chosen} is not named by: {message}"
