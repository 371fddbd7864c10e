"""A run directory with plausible numbers, made without the chain."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import describe
from pipeline.config import Config
from pipeline.config_files import parse_config
from pipeline.runs import Run
from pipeline.scoring.bands import write_result
from pipeline.validate import KIND, ValidationRecord
from transforms.grids import Grid

PRESSURE = ["geopotential", "temperature", "u_component_of_wind", "v_component_of_wind"]
SURFACE = ["2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind", "mean_sea_level_pressure"]
_MEAN = {"geopotential": 54_000.0, "temperature": 280.0, "2m_temperature": 285.0, "mean_sea_level_pressure": 101_300.0}
_SPREAD = {"geopotential": 900.0, "temperature": 4.0, "2m_temperature": 4.0, "mean_sea_level_pressure": 900.0}
_FALL = {"geopotential": 3200.0, "temperature": 32.0, "2m_temperature": 40.0}


SKILL_ENDS = ("lower", "upper")


def make_config(**changes) -> Config:
    """A configuration of some 400 days of simulated data; `changes` are sections or keys that replace its own."""
    values = {
        "name": "quickstart",
        "description": "a simulated atmosphere on a laptop",
        "source": {"kind": "simulation"},
        "data": {"grid": {"latitude": 16, "longitude": 32}, "variables": PRESSURE + SURFACE, "levels": [250, 500, 850]},
        "periods": {
            "train": ["2001-01-01T00:00", "2001-10-31T18:00"],
            "validation": ["2001-11-01T00:00", "2001-11-30T18:00"],
            "test": ["2001-12-01T00:00", "2002-02-28T18:00"],
        },
        "model": {"levels": [{"band_limit": 12, "scalars": 8, "vectors": 4, "blocks": 1}]},
        "training": {"stages": [{"steps": 1, "updates": 400, "learning_rate": 3e-3}]},
        "forecast": {"lead_hours": 120, "every_hours": 12},
    }
    return parse_config(values | changes, "test")


def pattern(grid: Grid, name: str, times: np.ndarray, level: int | None = None) -> np.ndarray:
    """Travelling waves on a fall from equator to pole, float32, shape (time, latitude, longitude)."""
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None, :]
    hours = ((times - np.datetime64("2001-01-01", "ns")) / np.timedelta64(1, "h"))[:, None, None]
    phase = hours * 2 * np.pi / 200 + 0.3 * len(name)
    belt = np.cos(latitude) ** 3 * np.sin(2 * latitude) * 2
    waves = belt * np.sin(4 * longitude - phase) + 0.4 * np.cos(latitude) ** 6 * np.cos(7 * longitude - 2 * phase)
    if "u_component" in name:
        mean = 24 * np.sin(2 * latitude) ** 2 * np.cos(latitude) - 4
    elif "v_component" in name:
        mean = 0.0
    else:
        fall = _FALL.get(name, 0.0)
        mean = _MEAN[name] - fall * np.sin(latitude) ** 2 + (0 if level is None else (500 - level) * fall / 900)
    return (mean + _SPREAD.get(name, 9.0) * waves).astype(np.float32)


def make_run(directory: Path, config: Config | None = None, *, noise_seed: int = 0) -> Run:
    """Write the artefacts that the report reads."""
    config = config or make_config()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(config.to_yaml())
    run = Run(directory, config)
    grid = Grid.equiangular(config.data.grid.latitude, config.data.grid.longitude, poles=config.data.grid.poles)
    step = np.timedelta64(config.data.time_step_hours, "h")
    period = config.periods
    first, last = np.datetime64(period.train[0], "ns"), np.datetime64(period.test[1], "ns")
    times = np.arange(first, last + step, step)
    test = np.datetime64(period.test[0], "ns")
    leads = np.arange(1, config.forecast.lead_hours // config.data.time_step_hours + 1) * step.astype("timedelta64[ns]")
    every = np.timedelta64(config.forecast.every_hours, "h")
    initial = np.arange(test, last + step, every)
    # Of many forecasts only those on the maps hold data: three, spread over those with truth at every lead.
    complete = int((initial + leads[-1] <= last).sum())
    spread = np.round((np.arange(3) + 0.5) / 3 * (complete - 1)).astype(int)
    drawn = initial if len(initial) < 30 else initial[spread]
    levels = config.data.levels
    coords = {"latitude": grid.latitude, "longitude": grid.longitude}
    # Only the times around the forecasts hold data: the report reads no others.
    kept = np.unique(np.concatenate([first + np.arange(3) * step, drawn, (drawn[:, None] + leads).ravel()]))
    kept = times if len(times) < 300 else kept
    truth, forecast = {}, {}
    generator = np.random.default_rng(noise_seed)
    for name in config.data.variables:
        on_levels = name in PRESSURE
        dims = ("level",) if on_levels else ()
        heights = levels if on_levels else [None]
        state = np.stack([pattern(grid, name, kept, level) for level in heights], axis=1)
        growth = 0.25 * np.sqrt(leads / np.timedelta64(5, "D"))[None, :, None, None, None]
        later = np.stack(
            [np.stack([pattern(grid, name, drawn + lead, level) for level in heights], axis=1) for lead in leads],
            axis=1,
        )
        shifted = np.roll(later, 2, axis=-1) - later + 0.02 * later.std() * generator.standard_normal(later.shape)
        ahead = (later + 4 * growth * shifted).astype(np.float32)
        where = np.searchsorted(times, kept)
        whole = np.zeros((len(times), *state.shape[1:]), np.float32)
        whole[where] = state
        every_initial = np.zeros((len(initial), *ahead.shape[1:]), np.float32)
        every_initial[np.searchsorted(initial, drawn)] = ahead
        if not on_levels:
            whole, every_initial = whole[:, 0], every_initial[:, :, 0]
        truth[name] = (("time", *dims, "latitude", "longitude"), whole)
        forecast[name] = (("time", "prediction_timedelta", *dims, "latitude", "longitude"), every_initial)
    height = {"level": levels} if set(PRESSURE) & set(config.data.variables) else {}
    simulated = config.source.kind != "store"
    xr.Dataset(
        truth,
        coords | height | {"time": times},
        {"spherecast": describe("training store", "aaaa", simulated=simulated)},
    ).to_zarr(run.training_store, consolidated=False, zarr_format=3)
    xr.Dataset(
        forecast,
        coords | height | {"time": initial, "prediction_timedelta": leads},
        {"spherecast": describe("forecast", "bbbb", simulated=simulated)},
    ).to_zarr(run.forecast, consolidated=False, zarr_format=3)
    counts = np.array([int(np.isin(initial + lead, times).sum()) for lead in leads])
    run.metrics.mkdir()
    for line in ("model", "persistence", "climatology"):
        make_metrics(config, leads, counts, line).to_netcdf(run.metrics / f"{line}.nc", engine="netcdf4")
    run.checkpoints.mkdir()
    (run.checkpoints / "training.jsonl").write_text("".join(json.dumps(e) + "\n" for e in training_events()))
    record = ValidationRecord(
        source={"grid": str(grid), "levels": levels, "simulated": simulated, "title": ""},
        times={"first": "", "last": "", "count": len(times), "step_hours": 6, "source_step_hours": 6.0},
        gaps=[["2001-01-05T18:00", "2001-02-01T00:00"]],
        missing={config.data.variables[0]: ["2001-01-03T00:00"]},
        valid_times={},
        planned={},
    )
    run.validation_record.write_text(json.dumps({"spherecast": describe(KIND), **asdict(record)}))
    return run


def make_metrics(config: Config, leads: np.ndarray, counts: np.ndarray, line: str) -> xr.Dataset:
    """Scores that grow with lead as those of a fair model and its baselines do."""
    metrics, regions = ["rmse", "mse", "mae", "bias", "acc", "rmse_lower", "rmse_upper"], config.evaluation.regions
    if line == "model":
        metrics += [f"mse_skill_score_vs_{name}_{end}" for name in ("persistence", "climatology") for end in SKILL_ENDS]
    days = leads / np.timedelta64(1, "D")
    names = list(config.data.variables)
    scale = {name: _SPREAD.get(name, 9.0) for name in names}
    if "u_component_of_wind" in names:
        scale["wind_vector"] = 12.0
    if "10m_u_component_of_wind" in names:
        scale["10m_wind_vector"] = 8.0
    growth = {
        "model": 1 - np.exp(-((days / 5.5) ** 1.4)),
        "persistence": 1.25 * (1 - np.exp(-days / 1.7)),
        "climatology": np.full(days.shape, 0.9),
    }[line]
    acc = {
        "model": np.exp(-((days / 7) ** 2)),
        "persistence": np.exp(-days / 2.2),
        "climatology": np.full(days.shape, np.nan),
    }
    dataset = {}
    for number, (name, size) in enumerate(scale.items()):
        levels = config.data.levels if name in [*PRESSURE, "wind_vector"] else [None]
        values = np.empty((len(metrics), len(regions), len(leads), len(levels)))
        for r in range(len(regions)):
            for k in range(len(levels)):
                rmse = size * growth * (1 + 0.1 * r + 0.2 * k) * (1 + 0.03 * number)
                values[:, r, :, k] = [
                    rmse,
                    rmse**2,
                    0.8 * rmse,
                    0.05 * rmse * (-1) ** k,
                    acc[line] * (1 - 0.02 * number),
                    0.9 * rmse,
                    1.1 * rmse,
                    # Significant against persistence at all leads, against climatology at the first half alone.
                    *([0.3 + 0 * rmse, 0.5 + 0 * rmse] if line == "model" else []),
                    *([0.4 - days / days.max(), 0.9 + 0 * rmse] if line == "model" else []),
                ]
        dims = ("metric", "region", "lead_time")
        dataset[name] = (dims, values[..., 0]) if levels == [None] else ((*dims, "level"), values)
    dataset["valid_samples"] = ("lead_time", counts)
    coords = {"metric": metrics, "region": regions, "lead_time": leads}
    if any(name in dataset for name in PRESSURE):
        coords["level"] = config.data.levels
    about = describe("metrics", f"cc-{line}", simulated=config.source.kind != "store")
    return xr.Dataset(dataset, coords, {"spherecast": json.dumps(about)})


def make_error_maps(run: Run) -> xr.Dataset:
    """Write maps of scores at 24 and 72 hours, of which 3 and 2 forecasts enter; a wind vector has no mean error."""
    grid = Grid.equiangular(run.config.data.grid.latitude, run.config.data.grid.longitude, poles=False)
    metrics = ["bias", "rmse", "mse_skill_score_vs_persistence"]
    values = np.random.default_rng(3).normal(0, 1, (3, 2, *grid.shape))
    values[1] = np.abs(values[1])
    wind = np.where(np.arange(3)[:, None, None, None] == 0, np.nan, values)
    dims = ("metric", "lead_time", "latitude", "longitude")
    dataset = xr.Dataset(
        {"2m_temperature": (dims, values), "10m_wind_vector": (dims, wind), "valid_samples": ("lead_time", [3, 2])},
        {
            "metric": metrics,
            "lead_time": np.array([24, 72], "timedelta64[h]").astype("timedelta64[ns]"),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )
    dataset.to_netcdf(run.metrics / "maps.nc", engine="netcdf4")
    return dataset


def make_spectra(run: Run) -> xr.Dataset:
    """Write spectra of two fields at 24 and 120 hours, which fall as l^-3 and whose forecasts lose the small scales."""
    degrees = np.arange(16)
    truth = 1e6 * np.maximum(degrees, 1) ** -3.0
    ratio = np.stack([np.exp(-degrees / 60), np.exp(-degrees / 15)])
    values = np.stack([ratio * truth, np.stack([truth, truth]), ratio])
    fields = {}
    for name in ("2m_temperature", "10m_wind_vector_rotational"):
        fields[name] = (("spectrum", "lead_time", "degree"), values)
        fields[f"{name}_effective_resolution"] = ("lead_time", [16.0, 11.0])
    leads = np.array([24, 120], "timedelta64[h]").astype("timedelta64[ns]")
    coords = {"spectrum": ["forecast", "truth", "power_ratio"], "lead_time": leads, "degree": degrees}
    dataset = xr.Dataset(fields, coords)
    dataset.to_netcdf(run.metrics / "spectra.nc", engine="netcdf4")
    return dataset


def scored(values: np.ndarray, *, blocks: np.ndarray | None, path: Path, about: dict | None = None) -> Path:
    """Write results of Z500 by lead in days, RMSE `values`, and squared errors by (block, lead) if there are any."""
    leads = (24 * np.arange(1, len(values) + 1)).astype("timedelta64[h]").astype("timedelta64[ns]")
    dims = ("metric", "region", "lead_time", "level")
    coords = {"metric": ["rmse"], "region": ["global"], "lead_time": leads, "level": [500]}
    attrs = {"spherecast": json.dumps(describe("metrics", **about))} if about is not None else {}
    result = xr.Dataset({"geopotential": (dims, values.reshape(1, 1, -1, 1))}, coords, attrs)
    sums = None
    if blocks is not None:
        axes = ("block", *dims[1:])
        squares = blocks[:, None, :, None]
        fields = {"geopotential": (axes, squares), "geopotential_count": (axes, np.ones(squares.shape, np.int32))}
        times = np.datetime64("2020-01-01", "ns") + 3 * np.arange(len(blocks)) * np.timedelta64(1, "D")
        sums = xr.Dataset(fields, {key: coords[key] for key in dims[1:]} | {"time": times}, {"block_hours": 72.0})
    write_result(result, sums, path)
    return path


def training_events() -> list[dict]:
    """A training log of two stages of the curriculum."""
    events = []
    generator = np.random.default_rng(1)
    for update in range(10, 6001, 10):
        stage = int(update > 4800)
        loss = 0.05 + 0.9 * np.exp(-update / 700) + 0.1 * stage
        event = {"event": "train", "update": update, "stage": stage, "rollout_steps": (1, 4)[stage]}
        event |= {"loss": float(loss * np.exp(0.1 * generator.standard_normal())), "learning_rate": 1e-3}
        events.append(event | {"samples_per_second": 20.0 - 10 * stage, "waiting": 0.1})
        if update % 500 == 0:
            events.append({"event": "validation", "update": update, "stage": stage, "loss": float(loss * 1.05)})
            errors = {"geopotential@500": [300.0 * loss, 500.0 * loss], "2m_temperature": [2.0 * loss, None]}
            reference = {"geopotential@500": [300.0, 500.0], "2m_temperature": [2.0, 3.0]}
            about = {"event": "forecast", "update": update, "stage": stage, "lead_hours": [24, 72]}
            events.append(about | {"rmse": errors, "persistence": reference})
    return events


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makers of a configuration, of metrics and of a run."""
    return SimpleNamespace(config=make_config, metrics=make_metrics, run=make_run, scored=scored)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Run:
    """A complete run on simulated data; tests must not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")
