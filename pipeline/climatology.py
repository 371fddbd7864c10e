"""Stage `climatology`: mean, spread, quantiles and SEEPS thresholds by hour and day of year over the training period."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
import zarr.codecs

from pipeline.artefacts import ATTRIBUTE, describe, publishing, read_description, require, working_path
from pipeline.climatologies.jobs import (
    ALL_SUMS,
    JOB,
    SUMS,
    Field,
    FirstPass,
    Job,
    SecondPass,
    array_path,
    cell_bytes,
)
from pipeline.jobs.beam_runner import run_elements
from pipeline.runs import Run
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import (
    consolidate,
    description_of,
    fields_over_time,
    period_of,
    read_times,
    select_period,
)
from transforms.climatology import DAYS, METHODS, Calendar, origin_of, samples_of
from transforms.errors import InputError
from transforms.window_quantiles import SEEPS_DRY

__all__ = ["STATISTICS", "climatology_store", "run_stage"]

logger = logging.getLogger(__name__)

STATISTICS = ("mean", "std", "quantile", "seeps")

_SHARD_BYTES = 32e6
"""Values in one shard of the result, all days of one hour; of one level at least where a variable is larger."""
_CHUNK_BYTES = 1e6


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``climatology.zarr`` of the run."""
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    settings = run.config.climatology
    climatology_store(
        run.training_store,
        run.climatology,
        period=run.config.periods.train,
        method=settings.method,
        statistics=settings.statistics,
        quantiles=settings.quantiles,
        window_days=settings.window_days,
        beam_options=run.config.execution.beam,
        memory_mb=run.config.execution.memory_mb,
        fingerprint=fingerprint,
        inputs=inputs,
    )


def climatology_store(
    source: str | Path,
    target: str | Path,
    *,
    period: tuple[datetime, datetime] | None = None,
    years: tuple[int, int] | None = None,
    method: str = "explicit",
    statistics: Sequence[str] = ("mean", "std"),
    quantiles: Sequence[float] = (),
    window_days: int = 61,
    daily: bool = False,
    hour_interval: int | None = None,
    dry_thresholds: Mapping[str, float] | None = None,
    beam_options: Sequence[str] = ("--runner=DirectRunner",),
    memory_mb: float = 1024,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write the climatology of every variable of a store that changes in time, as zarr.

    For each VARIABLE the store has, as WeatherBench 2 names them, VARIABLE (mean), VARIABLE_std, VARIABLE_quantile,
    and for precipitation VARIABLE_seeps_threshold and VARIABLE_seeps_dry_fraction; float32, axes (hour, [quantile],
    dayofyear, [level], then the horizontal axes in the order of the source). ``hour`` holds hours of day, ``dayofyear``
    1 to 366; daily climatologies have no hour. Days without data within the window are NaN.

    Args:
        source: store with axes time, latitude, longitude and perhaps level.
        target: zarr directory to publish.
        period: first and last time, both included; all times by default.
        years: first and last year, both included, in place of a period.
        method: ``explicit`` or ``fast``; see `transforms.climatology`.
        statistics: some of `STATISTICS`; ``quantile`` and ``seeps`` of ``explicit`` alone.
        quantiles: levels of the statistic ``quantile``.
        window_days: width of the triangular window, odd.
        daily: take daily means, not hours apart.
        hour_interval: hours 0, `hour_interval`, ...; by default the distinct hours of the source.
        dry_thresholds: precipitation below which a variable counts as dry, by its name; in its units; by default
            that of `transforms.window_quantiles.SEEPS_DRY`.
        beam_options: options of Apache Beam. Workers in other processes or machines must see both paths.
        memory_mb: about how much data a worker may hold at once; changes no value.
        fingerprint: of settings and inputs; shards that a job of the same left behind are kept.

    Raises:
        InputError: settings that do not go together, no valid time in the period, or no variable on a global grid.
    """
    _check(method, statistics, quantiles, window_days, daily, hour_interval)
    source, dataset, names = fields_over_time(source)
    if years is not None:
        period = (datetime(years[0], 1, 1), datetime(years[1], 12, 31, 23, 59, 59))
    positions, memory, places = select_period(dataset, period, source), memory_mb * 1e6, _places(target)
    calendar = _calendar(dataset.time.values[positions], hour_interval, daily, source)
    job = Job(source, *places, positions, calendar, method, window_days, tuple(quantiles), memory, {})
    dry = _dry_thresholds(names, dry_thresholds or SEEPS_DRY) if "seeps" in statistics else {}
    first = _plan_fields(job, dataset, names, statistics, dry)
    facts = _facts(job, dataset, statistics)
    _write(job, target, dataset, first, describe("climatology", fingerprint, inputs, **facts), beam_options)
    logger.info("%s: %d variables, %d hours, from %d times", target, len(names), calendar.hours.size, len(positions))


def _places(target: str | Path) -> tuple[str, str]:
    """Return where the result is built, and the folder of what workers share."""
    target = Path(target).absolute()
    return str(working_path(target)), str(target.with_name(f".sums-{target.name}"))


def _dry_thresholds(names: Sequence[str], thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return the thresholds, m, of the variables that there are."""
    dry = {name: threshold for name, threshold in thresholds.items() if name in names}
    if not dry:
        wanted = ", ".join(thresholds)
        raise InputError(f"seeps: expected one of {wanted}, got {', '.join(names)}. Leave seeps out.")
    return dry


def _calendar(times: np.ndarray, hour_interval: int | None, daily: bool, source: str) -> Calendar:
    """Return the calendar of the times used, which must have all hours asked for."""
    hours = None if hour_interval is None else np.arange(0, 24, hour_interval)
    calendar = Calendar.of(times, hours=hours, daily=daily)
    if hours is not None and np.setdiff1d(hours, calendar.hours[np.unique(calendar.hour)]).size:
        raise InputError(f"hour_interval: {hour_interval} needs hours that {source} lacks. Choose a coarser interval.")
    return calendar


def _plan_fields(
    job: Job, dataset: xr.Dataset, names: Sequence[str], statistics: Sequence[str], dry: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Enter into the job how each variable is worked on; return the values of each in the calendar's first cell."""
    calendar = job.calendar
    chosen = [name in statistics for name in ("mean", "std", "quantile")]
    cell = job.positions[calendar.start[0] : calendar.start[0] + calendar.count[0]]
    first = {name: read_times(dataset[name], cell) for name in names}
    for name, values in first.items():
        job.fields[name] = _field(
            dataset[name], values.strides, calendar, job.method, job.memory_bytes, chosen, dry.get(name)
        )
    return first


def _facts(job: Job, dataset: xr.Dataset, statistics: Sequence[str]) -> dict[str, Any]:
    """Return what the description says of a climatology."""
    return {
        "period": period_of(dataset.time.values[job.positions]),
        "method": job.method,
        "statistics": list(statistics),
        "quantiles": list(job.quantiles),
        "daily": job.calendar.daily,
        "window_days": job.window,
        "grid": str(grid_of(dataset)),
        "levels": [int(level) for level in dataset.level.values] if "level" in dataset.coords else [],
        "simulated": bool(description_of(dataset).get("simulated", False)),
    }


def _write(
    job: Job,
    target: str | Path,
    dataset: xr.Dataset,
    first: dict[str, np.ndarray],
    description: dict[str, Any],
    beam_options: Sequence[str],
) -> None:
    """Do the job and publish its result, going on with what a job of the same left behind."""
    resumed = bool(description["fingerprint"]) and read_description(working_path(target)) == description
    with publishing(target, keep_partial=resumed) as partial:
        arrays = {suffixed for name, field in job.fields.items() for suffixed in _results(name, field)}
        if not resumed:
            _begin(job, first)
            _create(Path(partial), dataset, job, description)
        _run(job, beam_options)
        lost = [name for name in sorted(arrays) if any(not path.exists() for path in _shards(job, name))]
        if lost:
            raise RuntimeError(f"{target}: shards of {', '.join(lost)} were not written")
        consolidate(partial)
    shutil.rmtree(job.work, ignore_errors=True)


def _begin(job: Job, first: dict[str, np.ndarray]) -> None:
    """Make the folder of what workers share: the origins that sums are taken from, near the first values of each variable."""
    shutil.rmtree(job.work, ignore_errors=True)
    Path(job.work).mkdir()
    for name in list(first):
        sample = samples_of(job.fields[name].flattened(first.pop(name)), job.calendar.count[:1])[0]
        np.save(job.origin_path(name), origin_of(sample.reshape(job.fields[name].space[0], -1)))


def _check(
    method: str, statistics: Sequence[str], quantiles: Sequence[float], window: int, daily: bool, interval: int | None
) -> None:
    unknown = [name for name in statistics if name not in STATISTICS]
    if unknown or not statistics:
        raise InputError(f"statistics: expected some of {', '.join(STATISTICS)}, got {', '.join(unknown) or 'none'}.")
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method}.")
    explicit = [name for name in ("quantile", "seeps") if name in statistics]
    if method != "explicit" and explicit:
        raise InputError(f"{explicit[0]}: defined for the method explicit alone, got {method}. Choose explicit.")
    if ("quantile" in statistics) != bool(quantiles) or any(not 0 <= level <= 1 for level in quantiles):
        raise InputError(
            f"quantiles: expected levels from 0 to 1 together with the statistic quantile, got {list(quantiles)}."
        )
    if window < 1 or window % 2 == 0:
        raise InputError(f"window_days: expected an odd number, got {window}.")
    if interval is not None and (daily or not 1 <= interval <= 24):
        raise InputError(f"hour_interval: expected 1 to 24 and no daily climatology, got {interval}.")


def _field(
    variable: xr.DataArray,
    strides: Sequence[int],
    calendar: Calendar,
    method: str,
    memory: float,
    chosen: Sequence[bool],
    dry: float | None,
) -> Field:
    """Plan how a variable is worked on.

    Args:
        strides: of values read; they tell which horizontal axis lies outermost in the source.
    """
    sizes = variable.sizes
    turned = abs(strides[-1]) > abs(strides[-2])
    rows, columns = (sizes["longitude"], sizes["latitude"]) if turned else (sizes["latitude"], sizes["longitude"])
    levels = sizes.get("level", 1)
    points = levels * rows * columns
    whole = points * DAYS * 4 <= _SHARD_BYTES * 4
    row_span = rows if whole else int(np.clip(_SHARD_BYTES / (4 * DAYS * columns), 1, rows))
    cell, hours, days = cell_bytes(points, calendar, method), calendar.hours.size, calendar.days
    hour_span = int(np.clip(memory / cell, 1, hours))
    count = np.ptp(calendar.year) + 1
    return Field(
        space=(levels, rows, columns),
        turned=bool(turned),
        surface="level" not in sizes,
        level_span=levels if whole else 1,
        row_span=row_span,
        in_memory=(hours * days * cell <= memory, hours * days * count * points * 4 <= memory / 2),
        day_span=int(np.clip(memory / (cell * hour_span), 1, days)),
        hour_span=hour_span,
        sample_days=int(np.clip(memory / 4 / (hours * points * 4), 1, days)),
        sums=tuple(name for name, wanted in zip(("mean", "std"), chosen, strict=False) if wanted),
        quantiles=chosen[2],
        dry=dry,
    )


def _results(name: str, field: Field) -> list[str]:
    """Return the names of the arrays made of a variable."""
    suffixes = ["" if statistic == "mean" else "_std" for statistic in field.sums]
    suffixes += ["_quantile"] * field.quantiles
    suffixes += ["_seeps_threshold", "_seeps_dry_fraction"] * (field.dry is not None)
    return [name + suffix for suffix in suffixes]


def _create(partial: Path, dataset: xr.Dataset, job: Job, description: dict[str, Any]) -> None:
    """Write the result without its data; its description last, by which it is known as begun."""
    calendar = job.calendar
    coordinates: dict[str, Any] = {"dayofyear": np.arange(1, DAYS + 1)}
    if not calendar.daily:
        coordinates["hour"] = calendar.hours
    if job.quantiles:
        coordinates["quantile"] = np.array(job.quantiles, np.float64)
    for axis in ("level", "latitude", "longitude"):
        if axis in dataset.coords:
            coordinates[axis] = dataset[axis].variable
    xr.Dataset(coords=coordinates).drop_encoding().to_zarr(partial, zarr_format=3, consolidated=False)
    group = zarr.open_group(partial, mode="r+")
    codec = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    for name, field in job.fields.items():
        space = field.space[1:] if field.surface else field.space
        horizontal = ("longitude", "latitude") if field.turned else ("latitude", "longitude")
        part = (field.level_span, field.row_span, field.space[2])[-len(space) :]
        days = int(np.clip(_CHUNK_BYTES / (4 * np.prod(part)), 1, 61))
        attributes = {key: dataset[name].attrs[key] for key in ("units", "long_name") if key in dataset[name].attrs}
        for suffixed in _results(name, field):
            lead = {"quantile": len(job.quantiles)} if suffixed.endswith("_quantile") else {}
            lead = ({} if calendar.daily else {"hour": calendar.hours.size}) | lead
            chunks = (*[1] * len(lead), days, *part)
            inner = DAYS + (-DAYS) % days  # A shard holds whole chunks.
            group.create_array(
                suffixed,
                shape=(*lead.values(), DAYS, *space),
                chunks=chunks,
                shards=(*[size if axis == "quantile" else 1 for axis, size in lead.items()], inner, *part),
                compressors=codec,
                dtype="float32",
                fill_value=float("nan"),
                dimension_names=(*lead, "dayofyear", *(() if field.surface else ("level",)), *horizontal),
                attributes={"long_name": suffixed.replace("_", " ")} if suffixed.endswith("_fraction") else attributes,
            )
    _create_work(job)
    group.attrs[ATTRIBUTE] = description


def _create_work(job: Job) -> None:
    """Write the intermediate store without its data, where some variable needs one."""
    calendar = job.calendar
    codec = zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
    hours, days, years = calendar.hours.size, calendar.days, job.year_span()[1]
    for name, field in job.fields.items():
        band = (1, field.row_span, field.space[2])
        if field.sums and not field.in_memory[0]:
            parts = SUMS | (ALL_SUMS if calendar.daily and job.method == "fast" else {})
            for part, dtype in parts.items():
                zarr.create_array(
                    f"{job.work}/{name}/{part}",
                    shape=(hours, days, *field.space),
                    chunks=(1, field.day_span, *band),
                    shards=(field.hour_span, field.day_span, field.space[0], _whole(field), field.space[2]),
                    compressors=codec,
                    dtype=dtype,
                    fill_value=0,
                )
        if (field.quantiles or field.dry is not None) and not field.in_memory[1]:
            zarr.create_array(
                f"{job.work}/{name}/samples",
                shape=(hours, years, days, *field.space),
                chunks=(1, 1, field.sample_days, *band),
                shards=(hours, 1, field.sample_days, field.space[0], _whole(field), field.space[2]),
                compressors=codec,
                dtype="float32",
                fill_value=float("nan"),
            )


def _whole(field: Field) -> int:
    """Return the number of rows rounded up to whole bands."""
    return field.space[1] + (-field.space[1]) % field.row_span


def _shards(job: Job, name: str) -> list[Path]:
    """Return the files of one array of the result."""
    array = zarr.open_array(f"{job.target}/{name}", mode="r")
    counts = [-(-size // part) for size, part in zip(array.shape, array.shards or array.chunks, strict=True)]
    return [array_path(job.target, name, index) for index in np.ndindex(*counts)]


def _run(job: Job, beam_options: Sequence[str]) -> None:
    """Run the two passes, without the elements whose shards are there."""
    first: list[tuple] = []
    second: list[tuple] = []
    calendar, (first_year, years) = job.calendar, job.year_span()
    hours = range(calendar.hours.size)
    for name, field in job.fields.items():
        results = _results(name, field)
        sums = results[: len(field.sums)]
        for wanted, in_memory, whole, window in (
            (sums, field.in_memory[0], "whole_sums", "window"),
            (results[len(sums) :], field.in_memory[1], "whole_samples", "quantiles"),
        ):
            if all(path.exists() for result in wanted for path in _shards(job, result)):
                continue
            if in_memory:
                first.append((whole, name))
                continue
            if window == "window":
                last = "all_total" if calendar.daily and job.method == "fast" else "square"
                spans = [
                    (i * field.hour_span, j * field.day_span)
                    for i, j in np.ndindex(-(-len(hours) // field.hour_span), -(-calendar.days // field.day_span))
                ]
                first += [
                    ("sums", name, hour, day)
                    for hour, day in spans
                    if not array_path(
                        job.work, f"{name}/{last}", (hour // field.hour_span, day // field.day_span, 0, 0, 0)
                    ).exists()
                ]
            else:
                first += [
                    ("samples", name, first_year + year, number * field.sample_days)
                    for year, number in np.ndindex(years, -(-calendar.days // field.sample_days))
                    if not array_path(job.work, f"{name}/samples", (0, year, number, 0, 0, 0)).exists()
                ]
            second += [
                (window, name, hour, levels, rows)
                for hour in hours
                for levels, rows in field.shards()
                if not all(
                    array_path(job.target, result, _index(job, field, result, hour, levels, rows)).exists()
                    for result in wanted
                )
            ]
    for elements, stage in ((first, FirstPass), (second, SecondPass)):
        if elements:
            run_elements(JOB, elements, stage(job), beam_options)


def _index(job: Job, field: Field, result: str, hour: int, levels: slice, rows: slice) -> tuple[int, ...]:
    """Return the number of a shard along each axis."""
    lead = [] if job.calendar.daily else [hour]
    lead += [0, 0] if result.endswith("_quantile") else [0]
    level = [] if field.surface else [levels.start // field.level_span]
    return (*lead, *level, rows.start // field.row_span, 0)
