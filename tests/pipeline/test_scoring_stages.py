"""The stages statistics, climatology and evaluate of a run, on stores made for the purpose."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline import climatology, evaluate, statistics
from pipeline.artefacts import ATTRIBUTE, describe, read_description
from pipeline.config_files import load_config
from pipeline.runs import Run
from transforms.errors import InputError
from transforms.grids import Grid

STEP = np.timedelta64(6, "h")


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of the tiny configuration with a training store and forecasts of noise."""
    config = load_config("tiny")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    run = Run.open(tmp_path)
    settings, rng = config.data.grid, np.random.default_rng(0)
    grid = Grid.equiangular(settings.latitude, settings.longitude, poles=settings.poles)
    times = np.datetime64(config.simulation.start, "ns") + np.arange(160) * STEP
    space = {"level": config.data.levels, "latitude": grid.latitude, "longitude": grid.longitude}
    shape = (len(config.data.levels), *grid.shape)
    fields = {name: rng.normal(0, 1, (160, *shape)).astype("f4") for name in config.data.variables}
    store = xr.Dataset(
        {name: (("time", *space), values) for name, values in fields.items()} | {"valid": ("time", np.ones(160, bool))},
        {"time": times, **space},
        {ATTRIBUTE: describe("training store", "train", simulated=True)},
    )
    store.to_zarr(run.training_store, zarr_format=3, consolidated=False)
    start = int((np.datetime64(config.periods.test[0]) - times[0]) / STEP)
    leads = np.arange(1, 5)
    valid = start + np.arange(0, 12, 4)[:, None] + leads
    forecast = xr.Dataset(
        {name: (("time", "prediction_timedelta", *space), values[valid] + 1) for name, values in fields.items()},
        {"time": times[start : start + 12 : 4], "prediction_timedelta": leads * STEP, **space},
        {ATTRIBUTE: describe("forecast", "forecast", simulated=True)},
    )
    forecast.to_zarr(run.forecast, zarr_format=3, consolidated=False)
    return run


def test_stages_publish_described_artefacts(run):
    statistics.run_stage(run, "a", {"regrid": "train"})
    climatology.run_stage(run, "b", {"regrid": "train"})
    evaluate.run_stage(run, "c", {"forecast": "forecast"})
    train = [f"{instant:%Y-%m-%dT%H:%M}" for instant in run.config.periods.train]
    for path, kind, fingerprint in ((run.statistics, "statistics", "a"), (run.climatology, "climatology", "b")):
        description = read_description(path)
        assert (description["kind"], description["fingerprint"]) == (kind, fingerprint)
        assert description["period"] == train
        assert description["simulated"] is True
    # Maps and spectra are of the configured lead times that the forecast has; it ends at 24 h.
    expected = ["climatology.nc", "maps.nc", "model.nc", "persistence.nc", "spectra.nc"]
    assert sorted(path.name for path in run.metrics.iterdir()) == expected
    for name, kind in (("maps", "metrics"), ("spectra", "spectra")):
        with xr.open_dataset(run.metrics / f"{name}.nc", decode_timedelta=True) as result:
            assert read_description(run.metrics / f"{name}.nc")["kind"] == kind
            assert result.lead_time.values.tolist() == [np.timedelta64(24, "h").astype("timedelta64[ns]").astype(int)]
    for system in evaluate.SYSTEMS:
        description = read_description(run.metrics / f"{system}.nc")
        assert (description["kind"], description["system"], description["fingerprint"]) == ("metrics", system, "c")
        assert description["simulated"] is True
        assert description["initial_times"] == 3
    model = xr.load_dataset(run.metrics / "model.nc", decode_timedelta=True)
    assert model.metric.values[:5].tolist() == run.config.evaluation.metrics
    assert {f"mse_skill_score_vs_{name}" for name in run.config.evaluation.against} < set(model.metric.values.tolist())
    np.testing.assert_array_equal(model.region, run.config.evaluation.regions)
    np.testing.assert_allclose(model.temperature.sel(metric="bias"), 1.0, rtol=1e-6)
    assert np.isfinite(model.temperature.sel(metric="acc")).all()


def test_a_missing_artefact_names_the_command_that_makes_it(run):
    with pytest.raises(InputError, match=r"climatology.zarr: the climatology is missing; run `spherecast preprocess`"):
        evaluate.run_stage(run, "c", {})
