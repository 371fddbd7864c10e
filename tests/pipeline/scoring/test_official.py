"""The official package: what it is asked, with a stand-in that records it, and what is said where it is not installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.evaluate import score_store
from transforms.errors import InputError
from transforms.selections import parse_leads


class _Call(SimpleNamespace):
    """An object of the package: what it was made with."""


def _maker(name: str):
    return lambda *positional, **named: _Call(kind=name, positional=positional, **named)


@dataclass
class Asked:
    """What the package was asked."""

    data: Any = None
    config: Any = None
    options: Any = None
    way: str = ""


@pytest.fixture
def package(monkeypatch) -> Asked:
    """A `weatherbench2` that answers every metric of every field with the number of that metric."""
    asked = Asked()

    def answer(way: str):
        def run(data, configs, **options) -> None:
            ((name, config),) = configs.items()
            asked.data, asked.config, asked.options, asked.way = data, config, options, way
            leads = np.arange(1, 5) * np.timedelta64(12, "h").astype("timedelta64[ns]")
            metrics, regions = list(config.metrics), list(config.regions or [])
            shape = (len(metrics), *([len(regions)] if regions else []), 4)
            values = np.broadcast_to(np.arange(4.0, 4.0 + len(metrics)).reshape(-1, *[1] * (len(shape) - 1)), shape)
            dims = ("metric", *(["region"] if regions else []), "lead_time")
            coordinates = {"metric": metrics, "lead_time": leads, **({"region": regions} if regions else {})}
            result = xr.Dataset({"geopotential": (dims, values)}, coordinates)
            result.to_netcdf(Path(data.paths.output_dir) / f"{name}.nc")

        return run

    names = {
        "config": ("Data", "Selection", "Paths", "Eval"),
        "regions": ("SliceRegion", "LandRegion", "CombinedRegion"),
        "metrics": (
            "MSE",
            "MAE",
            "Bias",
            "ACC",
            "WindVectorMSE",
            "CRPS",
            "EnsembleVariance",
            "SpatialMSE",
            "SpatialBias",
        ),
    }
    root = ModuleType("weatherbench2")
    monkeypatch.setitem(sys.modules, "weatherbench2", root)
    for module, members in names.items():
        made = ModuleType(f"weatherbench2.{module}")
        for member in members:
            setattr(made, member, _maker(member))
        monkeypatch.setitem(sys.modules, f"weatherbench2.{module}", made)
    evaluation = ModuleType("weatherbench2.evaluation")
    evaluation.evaluate_in_memory, evaluation.evaluate_with_beam = answer("memory"), answer("beam")
    monkeypatch.setitem(sys.modules, "weatherbench2.evaluation", evaluation)
    return asked


def test_without_the_package_the_mend_is_named(written, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "weatherbench2", None)
    with pytest.raises(
        InputError, match=r"weatherbench2 is not installed. It is not on the package index; install it from"
    ):
        score_store(written.request(), tmp_path / "a.nc", backend="weatherbench2")
    assert list(tmp_path.iterdir()) == []


def test_it_is_asked_the_same_question(written, tmp_path, package):
    request = written.request(
        metrics=("rmse", "mae", "acc"),
        regions=("extra-tropics", "tropics_land", "global_land_gt_0.5"),
        leads=parse_leads("12h,48h"),
        levels=(500.0,),
        variables=("geopotential", "u_component_of_wind", "v_component_of_wind"),
        skipna=True,
    )
    score_store(request, tmp_path / "a.nc", backend="weatherbench2")
    selection, config = package.data.selection, package.config
    assert selection.variables == ["u_component_of_wind", "v_component_of_wind", "geopotential"]
    assert selection.levels == [500]
    assert selection.time_slice == slice("2003-12-27T00:00", "2003-12-31T12:00")
    assert package.data.by_init
    assert package.options == {"skipna": True}
    assert [metric.kind for metric in config.metrics.values()] == ["MSE", "MAE", "ACC"]
    (vector,) = config.metrics["mse"].wind_vector_mse
    assert (vector.u_name, vector.vector_name) == ("u_component_of_wind", "wind_vector")
    assert config.regions["extra-tropics"].lat_slice == [slice(-90, -20), slice(20, 90)]
    assert [part.kind for part in config.regions["tropics_land"].positional[0]] == ["SliceRegion", "LandRegion"]
    assert config.regions["global_land_gt_0.5"].threshold == 0.5
    result = xr.load_dataset(tmp_path / "a.nc", decode_timedelta=True)
    assert result.metric.values.tolist() == ["rmse", "mae", "acc"]
    assert result.sizes["lead_time"] == 2
    np.testing.assert_array_equal(result.geopotential.isel(region=0, lead_time=0), [2.0, 5.0, 6.0])


def test_baselines_maps_and_ensembles(written, tmp_path, package):
    score_store(written.request(systems=("persistence",), metrics=("mse",)), tmp_path / "a.nc", backend="weatherbench2")
    assert (package.way, package.config.evaluate_persistence) == ("beam", True)
    score_store(written.request(systems=("climatology",), metrics=("mse",)), tmp_path / "b.nc", backend="weatherbench2")
    assert (package.way, package.config.evaluate_climatology) == ("memory", True)
    request = written.request("ensemble", metrics=("crps", "ensemble_stddev"), average="temporal")
    score_store(request, tmp_path / "c.nc", backend="weatherbench2")
    assert [m.ensemble_dim for m in package.config.metrics.values()] == ["number", "number"]
    assert not package.config.temporal_mean
    request = written.request(metrics=("mse", "bias"), average="spatial")
    score_store(request, tmp_path / "d.nc", backend="weatherbench2")
    assert package.config.regions is None
    assert [m.kind for m in package.config.metrics.values()] == ["SpatialMSE", "SpatialBias"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("activity",)}, "activity: weatherbench2 has no such metric"),
        ({"metrics": ("mse",), "against": ("persistence",)}, "--against: weatherbench2 has no skill scores"),
    ],
)
def test_what_it_has_not_is_refused(written, tmp_path, package, options, message):
    with pytest.raises(InputError, match=message):
        score_store(written.request(**options), tmp_path / "a.nc", backend="weatherbench2")
