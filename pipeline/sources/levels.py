"""Vertical axes of sources: pressure in hPa, or numbered model levels with the coefficients of their pressures.

The pressure of a hybrid level is a + b * surface pressure (Simmons and Burridge 1981, doi:10.1175/1520-0493(1981)109
<0758:AEAAMC>2.0.CO;2, equation 3.17 at full levels; CF conventions, appendix D). A sigma level is one with
a = (1 - sigma) * pressure at the top and b = sigma.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from transforms.errors import InputError

__all__ = ["HYBRID", "with_levels"]

HYBRID = ("hybrid_a", "hybrid_b")
"""Coordinates over ``level``: a in Pa, b a number."""

_TO_HECTOPASCAL = {
    **dict.fromkeys(("hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"), 1.0),
    **dict.fromkeys(("pa", "pascal", "pascals"), 0.01),
}
_MOST_HECTOPASCAL = 1e6
_COEFFICIENTS = (("hyam", "hybm"), ("a", "b"), ("ap", "b"), HYBRID)
_REFERENCE = ("P0", "p0")
_HYBRID_NAMES = (
    "atmosphere_hybrid_sigma_pressure_coordinate",
    "atmosphere_sigma_coordinate",
)


def with_levels(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Give levels in hPa as integers, or numbers of model levels with the coordinates `HYBRID`.

    Pressures between two whole hPa, such as 0.5 hPa, cannot be named and are left out.

    Raises:
        InputError: the levels are neither pressures nor model levels whose coefficients are given, or are not finite.
    """
    if "level" not in dataset.dims and "level" not in dataset.coords:
        return dataset
    coefficients = _coefficients(dataset, path)
    if coefficients is not None:
        return _hybrid(dataset, *coefficients)
    if "level" not in dataset.coords:
        return dataset
    level = dataset["level"]
    units = str(level.attrs.get("units", "hPa")).strip().lower()
    if units not in _TO_HECTOPASCAL:
        raise InputError(
            f"level: {path} has levels in {level.attrs['units']!r}; expected pressure in hPa or Pa, or model levels with "
            "formula_terms, or with variables hyam and hybm over them. Choose a source on pressure levels, or add those."
        )
    pressure = np.asarray(level.values, dtype=np.float64) * _TO_HECTOPASCAL[units]
    # Beyond the pressures of any atmosphere, and not finite where a chunk of the coordinate is missing.
    if not np.all(np.abs(pressure) < _MOST_HECTOPASCAL):
        raise InputError(
            f"level: {path} has {', '.join(f'{value:g}' for value in pressure)} hPa; expected pressures below "
            f"{_MOST_HECTOPASCAL:g} hPa. The coordinate or its units may be damaged: fetch or write it again."
        )
    whole = np.abs(pressure - np.round(pressure)) < 1e-3
    values = np.round(pressure).astype(np.int32)
    dataset = dataset.assign_coords(level=xr.Variable(level.dims, values, {"units": "hPa"}))
    if level.dims == ("level",) and not whole.all():
        dataset = dataset.isel(level=np.flatnonzero(whole))
    return dataset


def _hybrid(dataset: xr.Dataset, a: np.ndarray, b: np.ndarray) -> xr.Dataset:
    number: np.ndarray = np.asarray(dataset["level"].values if "level" in dataset.coords else [], dtype=np.float64)
    counted = number.size == a.size and (number == np.round(number)).all() and number.min() >= 1
    number = number if counted and np.unique(number).size == a.size else np.arange(1, a.size + 1)
    dataset = dataset.drop_vars([name for name in HYBRID if name in dataset.variables])
    return dataset.assign_coords(
        level=("level", number.astype(np.int32), {"long_name": "model level number"}),
        hybrid_a=("level", a, {"units": "Pa"}),
        hybrid_b=("level", b, {"units": "1"}),
    )


def _coefficients(dataset: xr.Dataset, path: str) -> tuple[np.ndarray, np.ndarray] | None:
    """a in Pa and b, shape (level,), where the dataset has model levels."""
    if "level" not in dataset.dims:
        return None
    level = dataset["level"]
    attributes = level.attrs if "level" in dataset.coords else {}
    standard = str(attributes.get("standard_name", ""))
    terms = dict(re.findall(r"(\w+)\s*:\s*(\S+)", str(attributes.get("formula_terms", ""))))
    for first, second in ((terms.get("a") or terms.get("ap"), terms.get("b")), *_COEFFICIENTS):
        if not {first, second} <= set(map(str, dataset.variables)):
            continue
        a, b = dataset[first], dataset[second]
        if a.dims == ("level",) and b.dims == ("level",):
            reference = next((p for p in (terms.get("p0"), *_REFERENCE) if p in dataset.variables), None)
            return _in_pascals(a, dataset[reference] if reference else None), _floats(b)
    if standard == "atmosphere_sigma_coordinate" or "sigma" in terms or (not standard and _is_sigma(level, attributes)):
        sigma = np.asarray(level.values, dtype=np.float64)
        top = _pascals(dataset[terms["ptop"]]) if terms.get("ptop") in dataset.variables else 0.0
        return np.asarray((1.0 - sigma) * top), sigma
    found = _from_grib(dataset, level)
    if found is None and standard in _HYBRID_NAMES:
        raise InputError(
            f"level: {path} has hybrid levels without coefficients: formula_terms is "
            f"{attributes.get('formula_terms', 'missing')!r}, and no variables hyam and hybm lie over its levels. Add "
            "them, or choose a source on pressure levels."
        )
    return found


def _is_sigma(level: xr.DataArray, attributes: dict) -> bool:
    units = str(attributes.get("units", "")).strip().lower()
    if not np.issubdtype(level.dtype, np.floating) or (units not in ("sigma", "sigma_level", "1", "")):
        return False
    # Without units, levels that are all below 1.1 and mostly fractions can be no pressures in hPa.
    values = level.values
    return bool(values.size > 1 and (values > 0).all() and (values <= 1.0 + 1e-6).all())


def _from_grib(dataset: xr.Dataset, level: xr.DataArray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients from the half levels that GRIB carries as `pv`: a of all of them, then b."""
    for variable in dataset.data_vars.values():
        half = variable.attrs.get("GRIB_pv")
        if half is None or "level" not in variable.dims or variable.attrs.get("GRIB_typeOfLevel") != "hybrid":
            continue
        a, b = np.split(np.asarray(half, dtype=np.float64), 2)
        place = np.asarray(level.values, dtype=np.int64) - 1
        return (0.5 * (a[1:] + a[:-1]))[place], (0.5 * (b[1:] + b[:-1]))[place]
    return None


def _in_pascals(a: xr.DataArray, reference: xr.DataArray | None) -> np.ndarray:
    values = _floats(a)
    units = str(a.attrs.get("units", "")).strip().lower()
    if units in _TO_HECTOPASCAL:
        return values * 100.0 * _TO_HECTOPASCAL[units]
    # A number of reference pressures, as CAM writes it; without units the size decides.
    if units in ("1", "") and np.abs(values).max() <= 1.5:
        return values * (_pascals(reference) if reference is not None else 100_000.0)
    return values


def _pascals(pressure: xr.DataArray) -> float:
    units = str(pressure.attrs.get("units", "Pa")).strip().lower()
    return float(pressure) * 100.0 * _TO_HECTOPASCAL.get(units, 0.01)


def _floats(values: xr.DataArray) -> np.ndarray:
    return np.asarray(values.values, dtype=np.float64)
