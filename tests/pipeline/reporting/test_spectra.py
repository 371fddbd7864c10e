"""The spectra: that the lines and marks of the charts lie where the metrics say."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from pipeline.reporting.fields import Field
from pipeline.reporting.sections.spectra import spectra_section
from pipeline.reporting.spectra import read_spectra, spectra_charts
from transforms.spectra import effective_resolution

DEGREES = np.arange(22)


@pytest.fixture
def stored(tmp_path):
    """Spectra that fall as l^-3, of forecasts that lose power at small scales, most at the longer lead."""
    with np.errstate(divide="ignore"):
        truth = np.where(DEGREES > 0, 1e6 * DEGREES**-3.0, 1e9)
    ratio = np.stack([np.exp(-DEGREES / 60), np.exp(-DEGREES / 15)])[::-1]
    values = np.stack([ratio * truth, np.stack([truth, truth]), ratio * truth, ratio, ratio])
    leads = np.array([120, 24], "timedelta64[h]").astype("timedelta64[ns]")
    on_levels = np.stack([values, 2 * values], axis=2)
    on_levels[3:, :, 1] /= 2
    resolution = effective_resolution(ratio).astype(float)
    dataset = xr.Dataset(
        {
            "geopotential": (("spectrum", "lead_time", "level", "degree"), on_levels),
            "geopotential_effective_resolution": (("lead_time", "level"), np.stack([resolution, resolution], axis=1)),
            "10m_wind_vector_rotational": (("spectrum", "lead_time", "degree"), values),
            "10m_wind_vector_rotational_effective_resolution": ("lead_time", resolution),
        },
        {
            "spectrum": ["forecast", "truth", "cross", "power_ratio", "coherence"],
            "lead_time": leads,
            "level": [500, 850],
            "degree": DEGREES,
        },
    )
    dataset.to_netcdf(tmp_path / "spectra.nc", engine="netcdf4")
    return tmp_path / "spectra.nc", dataset


def test_spectra_are_read_by_lead_the_headline_first(stored):
    path, dataset = stored
    spectra = read_spectra(path, [Field("10m_wind_vector"), Field("geopotential", 850)])
    assert spectra.leads == [24, 120]
    assert [field.label for field in spectra.fields] == [
        "10 m rotational kinetic energy",
        "850 hPa geopotential",
        "500 hPa geopotential",
    ]
    wanted = dataset["geopotential"].sel(level=850).sortby("lead_time")
    np.testing.assert_array_equal(spectra.fields[1].forecast, wanted.sel(spectrum="forecast").values)
    np.testing.assert_array_equal(spectra.fields[1].ratio, wanted.sel(spectrum="power_ratio").values)
    assert spectra.fields[0].units == "m² s⁻²"
    assert spectra.fields[0].resolution.tolist() == [22, 11]


def test_lines_are_drawn_where_the_numbers_are(stored):
    path, _ = stored
    spectra = read_spectra(path)
    html = str(spectra_charts(spectra))
    power, ratio = re.findall(r"<svg.*?</svg>", html, re.DOTALL)[:2]

    def line(svg, kind):
        found = re.findall(rf'<path d="([^"]+)" class="{kind}"', svg)
        return [np.array([tuple(map(float, p.split())) for p in path[1:].split("L")]) for path in found]

    (truth,) = line(power, "spectrum-line truth")
    assert len(truth) == 21  # Degree 0 has no place on a logarithmic axis.
    x = truth[:, 0]
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), np.log(DEGREES[1:]) / np.log(21), atol=1e-3)
    slope = np.diff(truth[:, 1]) / np.diff(truth[:, 0])
    np.testing.assert_allclose(slope, slope.mean(), rtol=0.02)  # A power law is a straight line.
    short, long = line(ratio, "spectrum-line")
    # On a logarithmic axis twice the loss is twice the way down.
    (_, one), (_, half) = (
        tuple(float(v) for v in re.search(rf'd="M([\d.]+) ([\d.]+)H[^"]*" class="{kind}"', svg).groups())
        for kind, svg in (("base", ratio.split('class="base"', 1)[1]), ("rule", ratio))
    )
    for drawn, field in ((short, spectra.fields[0].ratio[0]), (long, spectra.fields[0].ratio[1])):
        shown = (drawn[:, 1] - one) / (half - one)
        np.testing.assert_allclose(shown, -np.log2(field[1:]), atol=0.01)
    (at,) = re.findall(r'<circle cx="([\d.]+)"', ratio)
    assert float(at) == pytest.approx(long[10, 0], abs=0.05)  # Degree 11, the eleventh from 1.


def test_the_effective_resolution_is_told_in_words(stored):
    path, _ = stored
    html = str(spectra_charts(read_spectra(path)))
    table = html[html.index("<table") : html.index("</table>")]
    cells = re.findall(r"<t[hd][^>]*>([^<]+)</t[hd]>", table)
    assert cells[3:] == ["1 day", "none to 21", "–", "5 days", "11", "3,484 km"]


def test_a_run_without_spectra_says_how_to_get_them(tmp_path):
    assert read_spectra(tmp_path / "spectra.nc") is None
    assert "evaluation.spectra_hours" in spectra_section(None).content
