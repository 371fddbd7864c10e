"""`spherecast score` and `spherecast spectra`: every option does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from dags.cli import app
from pipeline.artefacts import read_description
from pipeline.scoring.bands import read_blocks
from transforms.errors import InputError


@pytest.fixture
def say(written, tmp_path):
    """Return a function that runs a command on the stores and returns its result."""

    def run(*words: str, forecast: str = "forecast", command: str = "score", climatology: bool = True) -> xr.Dataset:
        target = tmp_path / "out.nc"
        stores = [written.path(forecast), written.path("truth"), "--output", str(target)]
        stores += ["--climatology", written.path("climatology")] if climatology else []
        result = CliRunner().invoke(app, [command, *stores, "--overwrite", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return xr.load_dataset(target, decode_timedelta=True)

    return run


def test_the_usual(say):
    result = say()
    assert result.metric.values.tolist() == ["rmse", "mse", "mae", "bias", "acc"]
    assert result.region.values.tolist()[:2] == ["global", "tropics"]
    assert say(climatology=False).metric.values.tolist() == ["rmse", "mse", "mae", "bias"]
    assert "crps" in say(forecast="ensemble").metric.values


def test_selections(say):
    words = ("--metrics", "mse,acc", "--regions", "global, tropics_land", "--levels", "500", "--leads", "12h:48h:12h")
    result = say(*words, "--initial-times", "2003-12-28:2003-12-29", "--variables", "geopotential")
    assert result.geopotential.dims == ("metric", "region", "lead_time", "level")
    assert result.geopotential.shape == (2, 2, 4, 1)
    np.testing.assert_array_equal(result.valid_samples, 4)


def test_kinds_of_result(say):
    assert say("--temporal").geopotential.dims[2] == "init_time"
    assert say("--spatial").geopotential.dims[-2:] == ("latitude", "longitude")
    assert "acc" not in say("--spatial").metric
    assert "time" in say("--temporal", "--by-valid", "--leads", "12h").dims


def test_baselines_and_skill(say, written, tmp_path):
    say("--forecast", "persistence", "--metrics", "mse")
    assert read_description(tmp_path / "out.nc")["system"] == "persistence"
    result = say(
        "--metrics", "mse", "--against", "climatology", "--against", written.path("ensemble"), "--block-hours", "12"
    )
    assert {"mse_skill_score_vs_climatology_lower", "mse_skill_score_vs_ensemble"} < set(result.metric.values)
    assert np.isfinite(result.geopotential.sel(metric="mse_skill_score_vs_climatology_lower")).all()


def test_intervals_of_scores(say, tmp_path):
    result = say("--metrics", "rmse", "--bands", "--block-hours", "12")
    assert result.metric.values.tolist() == ["rmse", "rmse_lower", "rmse_upper"]
    assert np.isfinite(result.geopotential).all()
    assert read_blocks(tmp_path / "out.nc") is not None


def test_events_and_histograms(say):
    words = ("--metrics", "brier_score,rank_histogram", "--quantiles", "0.3,0.7", "--bins", "3")
    result = say(*words, forecast="ensemble")
    assert result["quantile"].values.tolist() == [0.3, 0.7]
    assert result.sizes["bins"] == 3
    words = ("--metrics", "brier_score", "--quantiles", "0.5", "--threshold-method", "gaussian_quantile")
    other = say(*words, "--variables", "geopotential", forecast="ensemble")
    assert np.isfinite(other.geopotential).all()


def test_missing_values(broken, tmp_path):
    stores = [
        broken.path("forecast"),
        broken.path("truth"),
        "-o",
        str(tmp_path / "a.nc"),
        "--variables",
        "geopotential",
    ]
    found = []
    for words in ([], ["--skipna"]):
        assert CliRunner().invoke(app, ["score", *stores, "--overwrite", *words]).exit_code == 0
        found.append(xr.load_dataset(tmp_path / "a.nc", decode_timedelta=True).geopotential)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_workers_and_runners(say):
    plain = say("--workers", "1")
    xr.testing.assert_identical(say("--workers", "3"), plain)
    xr.testing.assert_identical(say("--runner", "DirectRunner", "--", "--direct_num_workers=1"), plain)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--temporal", "--spatial"), "are two kinds of result"),
        (("--levels", "high"), "--levels: expected numbers"),
        (("--quantiles", "a"), "--quantiles: expected numbers"),
        (("--leads", "x"), "--leads 'x': expected lead times"),
        (("--initial-times", "x"), "--initial-times 'x': expected dates"),
        (("--metrics", "nse"), "metric 'nse': not known"),
        (("--against", "a/x.zarr", "--against", "b/x.zarr"), "--against b/x.zarr: another baseline is called x too"),
        (("--backend", "weatherbench2"), "weatherbench2 is not installed"),
        (("--", "--direct_num_workers=2"), "options of a runner need --runner"),
    ],
)
def test_what_makes_no_sense_is_refused(say, words, message):
    with pytest.raises(InputError, match=message):
        say(*words)


def test_spectra(say):
    result = say(
        "--leads",
        "12h,24h",
        "--levels",
        "850",
        "--variables",
        "geopotential",
        "--initial-times",
        "2003-12-28:2003-12-29",
        command="spectra",
        climatology=False,
    )
    assert result.geopotential.dims == ("spectrum", "lead_time", "level", "degree")
    assert result["samples"].values.tolist() == [4, 4]
