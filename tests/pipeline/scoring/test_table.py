"""The score table of the terminal, from metrics files whose every value is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from pipeline.scoring.table import headline_rmse, score_table

METRICS = ["mse", "rmse"]
REGIONS = ["tropics", "global"]
LEADS = np.arange(12, 121, 12)


def write(path: Path, factor: float, units: str = "hours", metrics: list[str] = METRICS) -> None:
    """Write metrics whose global RMSE is factor * lead hours (plus a tenth of the level for geopotential)."""
    shape = (len(metrics), len(REGIONS), LEADS.size)
    surface = np.full(shape, -1.0)
    surface[-1, REGIONS.index("global")] = factor * LEADS
    upper = np.full((*shape, 2), -1.0)
    upper[-1, REGIONS.index("global")] = factor * LEADS[:, np.newaxis] + np.array([50.0, 85.0])
    dataset = xr.Dataset(
        {
            "2m_temperature": (("metric", "region", "lead_time"), surface),
            "geopotential": (("metric", "region", "lead_time", "level"), upper),
            "valid_samples": ("lead_time", np.ones(LEADS.size, int)),
        },
        {"metric": metrics, "region": REGIONS, "lead_time": LEADS * np.timedelta64(1, "h"), "level": [500, 850]},
    )
    dataset["lead_time"].encoding = {"units": units, "dtype": "float64"}
    path.parent.mkdir(exist_ok=True)
    dataset.to_netcdf(path, engine="netcdf4")


@pytest.mark.parametrize("units", ["hours", "seconds", "days"])
def test_values_are_those_of_the_region_metric_and_lead(tmp_path, units):
    write(tmp_path / "model.nc", 2.0, units)
    assert headline_rmse(tmp_path / "model.nc", (24, 72, 18)) == {
        "2m_temperature": [48.0, 144.0, None],
        "geopotential@500": [98.0, 194.0, None],
        "geopotential@850": [133.0, 229.0, None],
    }


def test_an_axis_of_ranks_leaves_the_other_scores_as_they_are(tmp_path):
    write(tmp_path / "plain.nc", 2.0)
    with xr.open_dataset(tmp_path / "plain.nc", engine="netcdf4") as plain:
        fields = {name: plain[name].expand_dims(bins=3, axis=-1) for name in ("2m_temperature", "geopotential")}
        plain.assign(fields).to_netcdf(tmp_path / "ranks.nc", engine="netcdf4")
    assert headline_rmse(tmp_path / "ranks.nc") == headline_rmse(tmp_path / "plain.nc")


def test_the_table_sets_the_model_beside_the_baselines(tmp_path):
    write(tmp_path / "m" / "model.nc", 1.0)
    write(tmp_path / "m" / "persistence.nc", 2.0)
    write(tmp_path / "m" / "climatology.nc", 4.0)
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    console.print(score_table(tmp_path / "m", ["2m_temperature"]))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines[2] == ["2m_temperature", "24", "h", "24", "48", "0.50", "96", "0.25"]
    assert lines[4] == ["120", "h", "120", "240", "0.50", "480", "0.25"]
    assert len(lines) == 5
    usual = score_table(tmp_path / "m", [])
    assert usual.row_count == 6  # geopotential@500 and 2m_temperature at three leads


def test_without_a_global_rmse_there_is_no_table(tmp_path):
    assert score_table(tmp_path, []) is None
    for name in ("model", "persistence", "climatology"):
        write(tmp_path / "m" / f"{name}.nc", 1.0, metrics=["mse", "mae"])
    assert score_table(tmp_path / "m", []) is None
