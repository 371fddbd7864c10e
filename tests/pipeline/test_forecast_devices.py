"""Forecasts on eight devices are those of one, members shared out evenly or not."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import train
from pipeline.forecast import forecast_store
from tests.pipeline.test_train import make_run

TIMES = [datetime(2001, 2, 1, hour) for hour in (0, 6, 12, 18)]
JOBS = {
    # Twelve members in batches of 8, the last half empty; in one of 16; and four members on eight devices.
    "even": {"members": 3, "batch_size": 8},
    "more": {"members": 3, "batch_size": 10},
    "few": {"numbers": [1], "members": 3, "variables": ["geopotential"]},
}


def forecasts(base: Path, folder: str) -> None:
    for name, settings in JOBS.items():
        forecast_store(
            base / "run" / "checkpoints",
            base / "run" / "training.zarr",
            base / folder / f"{name}.zarr",
            initial_times=TIMES,
            lead_hours=24,
            **settings,
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("devices")
    run = make_run(base / "run", "training.stages=[{steps: 1, updates: 3, learning_rate: 0.003}]")
    train.run_stage(run, "f", {"regrid": "t"})
    forecasts(base, "one")
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run([sys.executable, __file__, str(base)], env={**os.environ, **settings}, check=True)
    return base


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_eight_devices_equal_one(base, name):
    one, eight = (xr.open_zarr(base / folder / f"{name}.zarr", decode_timedelta=True) for folder in ("one", "eight"))
    assert dict(eight.sizes) == dict(one.sizes)
    for field in one:
        scale = float(np.abs(one[field]).max())
        np.testing.assert_allclose(eight[field], one[field], atol=1e-5 * scale, rtol=0)
        assert float(one[field].std("time").max()) > 1e-3 * scale


if __name__ == "__main__":
    import jax

    assert jax.local_device_count() == 8
    forecasts(Path(sys.argv[1]), "eight")
