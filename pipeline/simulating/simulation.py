"""A simulated atmosphere: SPEEDY physics on a spectral dynamical core, from the package jcm.

SPEEDY (Molteni 2003, Clim. Dyn. 20, 175-191) at 8 sigma levels on the core of dinosaur, with climatological sea surface
temperature, sea ice, soil and snow of jcm's boundary files. Sunlight is a daily mean, so there is almost no diurnal
cycle, and the dynamics is dry: virtual effects of humidity do not act on the flow.

jcm's own driver is not used. Its parts are put together here into one compiled function for any number of six-hour
intervals, with a time scheme that allows longer steps; precipitation is summed over every step.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax_datetime as jdt
import numpy as np
import xarray as xr
from dinosaur import coordinate_systems, primitive_equations
from jcm.date import DateData
from jcm.dycore.dinosaur.dycore import DinosaurDycore
from jcm.dycore.dinosaur.state_bridge import physics_tendency_to_dynamics_tendency
from jcm.forcing import ForcingData
from jcm.model import Model
from jcm.physics.speedy.speedy_coords import get_speedy_coords
from jcm.physics.speedy.speedy_terms import speedy_physics
from jcm.physics_interface import compute_physics_step_gridpoint
from jcm.terrain import TerrainData

from pipeline.config_data import SimulationConfig
from pipeline.jobs.progress import Progress
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regridding import Regridder
from transforms.spectral import SpectralInterpolation
from transforms.vertical import GRAVITY, interpolate, mean_sea_level_pressure, temperature_and_geopotential

__all__ = ["SOURCE", "Atmosphere", "Frames", "simulated_blocks"]

logger = logging.getLogger(__name__)

SOURCE = "Simulated: SPEEDY T{truncation} with 8 levels (package jcm); not observations, not a reanalysis"

BLOCK = 100
"""Intervals integrated at once; also the frames held in memory twice."""
_INTERVAL = 6 * 3600
_STEP_SECONDS = {21: 4320, 31: 2700, 42: 2160}
_OFF_CENTRING = 0.5
"""Damps the gravity waves that steps this long cannot follow. Without it they ring on, and double the 6-hourly second
differences of geopotential; with it these, the mean state and the variance are those of jcm's own half-hour steps."""
_MEAN_SURFACE_PRESSURE = 98_550.0  # Pa, Earth's (Trenberth & Smith 2005, J. Clim. 18, 864-875).
_REFERENCE_PRESSURE = 1e5  # What jcm divides surface pressure by.


class Frames(NamedTuple):
    """Instantaneous states, with a leading axis of times where there are several.

    Attributes:
        state: spectral coefficients.
        surface: 2 m temperature (K), 10 m winds (m s-1) and precipitation summed over the interval that ends here
            (m), all (longitude, latitude) on the model's grid. Temperature and winds are those of the last step.
    """

    state: primitive_equations.State
    surface: tuple[jax.Array, jax.Array, jax.Array, jax.Array]


class Atmosphere:
    """The model, made for one truncation and start.

    Attributes:
        grid: the model's Gaussian grid.
        sigma: pressure over surface pressure of its levels, uppermost first.
        surface_geopotential: m2 s-2, (latitude, longitude), as the dynamics sees it.
        land: land fraction, (latitude, longitude).
    """

    def __init__(self, truncation: int, start: np.datetime64) -> None:
        coords = get_speedy_coords(layers=8, spectral_truncation=truncation)
        longitude, sine = coords.horizontal.nodal_axes
        self.grid = Grid(np.rad2deg(np.arcsin(sine)), np.rad2deg(longitude))
        terrain, self._forcing, self.land = _boundary(coords, self.grid)
        self._step_seconds = _STEP_SECONDS[truncation]
        core = DinosaurDycore(coords, terrain, self._step_seconds, advection="eulerian", compute_omega=True)
        self._model = Model(
            dycore=core,
            physics=speedy_physics(checkpoint_terms=False),
            start_time=str(np.datetime_as_string(start, "s")),
        )
        self._core = core
        self.sigma = np.asarray(coords.vertical.centers, dtype=np.float64)
        height = np.asarray(coords.horizontal.to_nodal(core.primitive.orography)).T
        self.surface_geopotential = (GRAVITY * height).astype(np.float32)
        self._advance = _semi_implicit(core.primitive, core.dt_nondim)
        self._damping = _damping(coords, core, self._step_seconds)

    def initial(self, seed: int) -> Any:
        """Return the state of rest with Earth's mean surface pressure and a small perturbation drawn from the seed."""

        @jax.jit
        def make() -> Any:
            state = self._core.initial_state(None, random_seed=seed)
            horizontal = self._core.coords.horizontal
            # jcm gives every point the pressure of sea level; over orography that is too much air.
            pressure = _MEAN_SURFACE_PRESSURE / _REFERENCE_PRESSURE
            level = horizontal.to_modal(jnp.full((1, *horizontal.nodal_shape), jnp.log(pressure)))
            state = state.replace(
                log_surface_pressure=state.log_surface_pressure + level, sim_time=jnp.zeros((), jnp.float32)
            )
            return state, self._model.initial_physics_carry(), self._model.start_time, jnp.int32(0)

        return make()

    def compile(self, carry: Any) -> Callable[[Any, int], tuple[Any, Frames]]:
        """Return the integration over up to `BLOCK` six-hour intervals, compiled once for any number of them.

        It takes a carry and the number of intervals; it returns the carry at the end and `BLOCK` frames, the first of
        them one interval after the beginning. Those past the number asked for are zero.
        """

        def integrate(carry: Any, count: jax.Array) -> tuple[Any, Frames]:
            shapes = jax.eval_shape(self._interval, carry)[1]
            frames = jax.tree.map(lambda leaf: jnp.zeros((BLOCK, *leaf.shape), leaf.dtype), shapes)

            def body(index: jax.Array, both: Any) -> Any:
                carry, frame = self._interval(both[0])
                return carry, jax.tree.map(lambda all_, one: all_.at[index].set(one), both[1], frame)

            return jax.lax.fori_loop(0, count, body, (carry, frames))

        compiled = jax.jit(integrate).lower(carry, jnp.int32(0)).compile()
        return lambda carry, count: jax.block_until_ready(compiled(carry, jnp.int32(count)))

    def _interval(self, carry: Any) -> tuple[Any, Frames]:
        def body(both: Any, _: None) -> tuple[Any, None]:
            carry, rain = both
            carry = self._step(carry)
            physics = carry[1]
            # g m-2 s-1 to metres of water.
            rate = (physics["_convection"].precnv + physics["_condensation"].precls) * 1e-6
            return (carry, rain + rate * self._step_seconds), None

        rain = jnp.zeros(self._core.coords.horizontal.nodal_shape, jnp.float32)
        (carry, rain), _ = jax.lax.scan(body, (carry, rain), None, length=_INTERVAL // self._step_seconds)
        near = carry[1]["_surface_flux"]
        return carry, Frames(carry[0], (near.t0, near.u0, near.v0, rain))

    def _step(self, carry: Any) -> Any:
        state, physics, clock, count = carry
        core, model = self._core, self._model
        forcing = self._forcing.select(DateData(clock, count, self._step_seconds))
        tendency, physics = compute_physics_step_gridpoint(
            core.to_physics_state(state),
            forcing,
            model.terrain,
            physics,
            physics=model.physics,
            time_step=float(self._step_seconds),
        )
        forced = state + core.dt_nondim * physics_tendency_to_dynamics_tendency(tendency, core.primitive)
        after = self._advance(forced)
        divergence, vorticity, temperature = self._damping
        state = after.replace(
            divergence=after.divergence * divergence,
            vorticity=after.vorticity * vorticity,
            temperature_variation=after.temperature_variation * temperature,
            tracers={name: values * vorticity for name, values in after.tracers.items()},
            # Advection in spectral form creates a little air; its mean stays what it was.
            log_surface_pressure=after.log_surface_pressure.at[0, 0, 0].set(state.log_surface_pressure[0, 0, 0]),
        )
        return state, physics, clock + jdt.Timedelta(seconds=jnp.int32(self._step_seconds)), count + jnp.int32(1)

    def converter(self, target: Grid, levels: list[int]) -> Callable[[Frames, int], dict[str, np.ndarray]]:
        """Return the function that turns the first so many of `Frames` into ERA5's variables on `target`."""
        spectral = SpectralInterpolation(self.grid, target)
        conservative = Regridder(self.grid, target)
        ground = jnp.asarray(spectral(self.surface_geopotential))

        def convert(frame: Frames) -> dict[str, jax.Array]:
            nodal = self._core.to_physics_state(frame.state)
            omega = self._core.physics_fields(frame.state, nodal)["omega"]
            near_temperature, near_u, near_v, _ = frame.surface
            scalars = jnp.concatenate(
                [
                    nodal.temperature,
                    nodal.specific_humidity,
                    omega,
                    jnp.log(nodal.normalized_surface_pressure * _REFERENCE_PRESSURE)[None],
                    near_temperature[None],
                ]
            )
            count = self.sigma.size
            scalars = spectral(jnp.swapaxes(scalars, -1, -2))
            temperature, humidity, omega = (scalars[i * count : (i + 1) * count] for i in range(3))
            pressure = jnp.exp(scalars[-2])
            winds = [jnp.concatenate([x, y[None]]) for x, y in ((nodal.u_wind, near_u), (nodal.v_wind, near_v))]
            u, v = spectral.wind(*(jnp.swapaxes(wind, -1, -2) for wind in winds))
            column = partial(interpolate, surface_pressure=pressure, column=self.sigma, levels=levels)
            on_levels = temperature_and_geopotential(temperature, pressure, ground, self.sigma, levels)
            return {
                "geopotential": on_levels[1],
                "temperature": on_levels[0],
                "u_component_of_wind": column(u[:-1]),
                "v_component_of_wind": column(v[:-1]),
                "specific_humidity": column(jnp.maximum(humidity, 0.0)),
                "vertical_velocity": column(omega),
                "2m_temperature": scalars[-1],
                "10m_u_component_of_wind": u[-1],
                "10m_v_component_of_wind": v[-1],
                "mean_sea_level_pressure": mean_sea_level_pressure(temperature, pressure, ground, self.sigma),
            }

        # Several at a time make large matrix products; all at once would need much memory on a fine grid.
        run = jax.jit(lambda frames: jax.lax.map(convert, frames, batch_size=10))

        def converted(frames: Frames, count: int) -> dict[str, np.ndarray]:
            fields = {name: np.asarray(values)[:count] for name, values in run(frames).items()}
            rain = np.asarray(frames.surface[3])[:count].swapaxes(-1, -2)
            fields["total_precipitation_6hr"] = conservative(rain)
            return fields

        return converted

    def statics(self, target: Grid) -> dict[str, np.ndarray]:
        """Return geopotential_at_surface and land_sea_mask on `target`."""
        return {
            "geopotential_at_surface": SpectralInterpolation(self.grid, target)(self.surface_geopotential),
            "land_sea_mask": np.clip(Regridder(self.grid, target)(self.land), 0.0, 1.0).astype(np.float32),
        }


def simulated_blocks(
    settings: SimulationConfig, times: np.ndarray, grid: Grid, bar: Progress
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Integrate from rest and yield (index of the first time, fields) of consecutive blocks of `times`.

    The next block is integrated in a thread while the caller writes one. Statics come with the first block.

    Raises:
        InputError: the simulation became unstable.
    """
    bar.update(0, note="compiling the model, about half a minute")
    spinup = settings.spinup_days * 86_400 // _INTERVAL
    # One interval more, since what is accumulated ends at the first time written.
    begin = times[0] - (spinup + 1) * np.timedelta64(_INTERVAL, "s")
    with _quiet():
        atmosphere = Atmosphere(settings.truncation, begin)
        carry = atmosphere.initial(settings.seed)
        integrate = atmosphere.compile(carry)
        convert = atmosphere.converter(grid, list(settings.levels))
    bar.update(0, note="spin-up from rest")
    counts = [spinup % BLOCK] * (spinup % BLOCK > 0) + [BLOCK] * (spinup // BLOCK)
    for count in counts:
        carry, _ = integrate(carry, count)
        bar.advance(count * _INTERVAL / 86_400)
    bar.advance(0, note=f"SPEEDY T{settings.truncation}")
    starts = range(0, times.size, BLOCK)
    with ThreadPoolExecutor(1, thread_name_prefix="simulation") as pool:
        pending = pool.submit(integrate, carry, min(BLOCK, times.size))
        for start in starts:
            carry, frames = pending.result()
            count = min(BLOCK, times.size - start)
            following = min(BLOCK, times.size - start - count)
            if following:
                pending = pool.submit(integrate, carry, following)
            fields = convert(frames, count)
            _require_finite(fields["temperature"], times[start : start + count])
            if start == 0:
                fields |= atmosphere.statics(grid)
            yield start, fields


def _require_finite(temperature: np.ndarray, times: np.ndarray) -> None:
    broken = ~np.isfinite(temperature).all(axis=(1, 2, 3))
    if broken.any():
        first = np.datetime_as_string(times[broken.argmax()], "h")
        raise InputError(
            f"simulation: the atmosphere became unstable by {first} UTC. Change simulation.seed or simulation.truncation."
        )


def _semi_implicit(equations: primitive_equations.PrimitiveEquations, step: float) -> Callable[[Any], Any]:
    """Return one time step: Williamson's low-storage third-order Runge-Kutta scheme for advection, and for the linear
    gravity-wave terms in each stage a Crank-Nicolson step, off-centred towards its end.

    Canuto et al. (2007), Spectral Methods, appendix D.3; stable for oscillations of 1.7 radians a step.
    """
    ends = (0.0, 1 / 3, 3 / 4, 1.0)
    memory = (0.0, -5 / 9, -153 / 128)
    weights = (1 / 3, 15 / 16, 8 / 15)

    def advance(state: Any) -> Any:
        slope = None
        for stage, (keep, weight) in enumerate(zip(memory, weights, strict=True)):
            tendency = equations.explicit_terms(state)
            slope = tendency if slope is None else tendency + keep * slope
            half = 0.5 * step * (ends[stage + 1] - ends[stage])
            known = state + weight * step * slope + (1 - _OFF_CENTRING) * half * equations.implicit_terms(state)
            state = equations.implicit_inverse(known, (1 + _OFF_CENTRING) * half)
        return state

    return advance


def _damping(
    coords: coordinate_systems.CoordinateSystem, core: DinosaurDycore, seconds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the factors by which a step damps divergence, vorticity and humidity, and temperature, by degree."""
    eigenvalues = np.abs(np.asarray(coords.horizontal.laplacian_eigenvalues, dtype=np.float64))
    relative = eigenvalues / eigenvalues.max()
    d = core.diffusion
    scales = (
        (d.div_timescale, d.div_order),
        (d.vor_q_timescale, d.vor_q_order),
        (d.temp_timescale, d.temp_order),
    )
    return tuple(np.exp(-seconds / float(t) * relative ** int(order)).astype(np.float32) for t, order in scales)


def _boundary(coords: coordinate_systems.CoordinateSystem, grid: Grid) -> tuple[TerrainData, ForcingData, np.ndarray]:
    """Return jcm's T63 boundary conditions on the model's grid: cell means, and the land fraction once more."""
    folder = resources.files("jcm.data.bc") / "t63"
    with resources.as_file(folder / "terrain.nc") as path:
        terrain = xr.load_dataset(path)
    with resources.as_file(folder / "forcing.nc") as path:
        forcing = xr.load_dataset(path)[["sst", "icec", "stl", "soilw_am", "snowc", "alb"]]
    regridder = Regridder(Grid(terrain.lat.values, terrain.lon.values), grid)

    def coarsened(dataset: xr.Dataset) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        fields: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for name, field in dataset.data_vars.items():
            values = regridder(field.transpose(..., "lat", "lon").values)
            axes = [str(axis) for axis in field.dims if axis not in ("lat", "lon")]
            fields[str(name)] = (("lon", "lat", *axes), np.moveaxis(values, (-1, -2), (0, 1)))
        return fields

    ground = coarsened(terrain[["orog", "lsm"]])
    land = ground["lsm"][1]
    axes = {"lon": grid.longitude, "lat": grid.latitude, "time": forcing.time}
    monthly = xr.Dataset(coarsened(forcing), coords=axes)
    return (
        TerrainData.from_coords(coords, orography=jnp.asarray(ground["orog"][1]), fmask=jnp.asarray(land)),
        ForcingData.from_dataset(monthly, coords=coords, align_mode="wrap_year"),
        land.T,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send warnings of the libraries to the log: a user cannot act on them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        logger.debug("%s: %s", warning.category.__name__, warning.message)
