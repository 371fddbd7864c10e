"""The forecaster: normalisation around the network, residual tendencies, and multistep rollout.

This is the door of `model/`: states enter and leave as (batch, channel, latitude, longitude) in physical units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from model.blocks import ENCODED
from model.layouts import from_nodal, to_nodal
from model.network import NetworkConfig, SphericalUNet
from model.noise import Noise
from model.normalisation import SpectralBatchNorm
from model.products import Table
from transforms.grids import Grid

__all__ = ["Channels", "Forecaster", "Normalisation", "Roles"]

_KEPT = {
    True: jax.checkpoint_policies.save_only_these_names(ENCODED),
    "products": jax.checkpoint_policies.dots_saveable,
}
"""What is not recomputed, by the argument `remat`."""


@dataclass(frozen=True)
class Channels:
    """Which channels of a state are scalars and which are components of tangent vectors.

    Attributes:
        scalars: indices of scalar channels.
        eastward, northward: indices of the components of each vector, in the same order.
    """

    scalars: tuple[int, ...]
    eastward: tuple[int, ...]
    northward: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of channels of a state."""
        return len(self.scalars) + len(self.eastward) + len(self.northward)

    def among(self, chosen: Sequence[int]) -> Channels:
        """Return those that are chosen, numbered as in the state.

        Raises:
            ValueError: one component of a vector is chosen without the other.
        """
        kept = set(chosen)
        halves = [pair for pair in zip(self.eastward, self.northward, strict=True) if len(kept & set(pair)) == 1]
        if halves:
            raise ValueError(f"channels {halves[0]}: components of a vector, of which one is chosen without the other")
        scalars, east, north = (
            tuple(channel for channel in channels if channel in kept)
            for channels in (self.scalars, self.eastward, self.northward)
        )
        return Channels(scalars, east, north)


@dataclass(frozen=True)
class Roles:
    """What the channels of a state are to the network.

    Attributes:
        given: those that are its inputs.
        predicted: those that are its outputs, ascending.
        whole: of these, those that it predicts as values; of the others it predicts the change.
        direct: whether it predicts each lead time by one call from the same states; else it predicts the next step, and
            all channels, of which the next begins.
    """

    given: tuple[int, ...]
    predicted: tuple[int, ...]
    whole: tuple[int, ...] = ()
    direct: bool = False

    @classmethod
    def prognostic(cls, count: int) -> Roles:
        """Return the roles of so many channels, whose changes over a step are predicted from all of them."""
        return cls(tuple(range(count)), tuple(range(count)))


@dataclass(frozen=True)
class Normalisation:
    """Per-channel constants, each of shape (channel,), in the units of the channel.

    The components of a vector must share `std` and `tendency_std` and have zero `mean`, or equivariance is lost.

    Attributes:
        mean, std: of states, what inputs are normalised by.
        tendency_std: what outputs and errors are measured in: the spread of the change over a step or, of channels that
            are predicted as values, of these.
    """

    mean: np.ndarray
    std: np.ndarray
    tendency_std: np.ndarray


class Forecaster(nnx.Module):
    """Predicts the state one time step ahead: ``x(t + dt) = x(t) + tendency_std * network(x(t), forcing, statics)``.

    Of channels that are predicted as values, ``mean`` takes the place of ``x(t)``. A direct forecaster predicts the state
    at a lead time in place of a step, which its forcings name.
    """

    def __init__(
        self,
        config: NetworkConfig,
        grid: Grid,
        channels: Channels,
        normalisation: Normalisation,
        statics: np.ndarray,
        *,
        forcings: int,
        roles: Roles | None = None,
        input_steps: int = 1,
        remat: bool | str = True,
        noise: Noise | None = None,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Build the forecaster.

        Args:
            grid: grid of the states.
            roles: of the channels; by default all are prognostic.
            statics: normalised time-independent inputs, (static, latitude, longitude).
            forcings: number of forcing fields given for every step, those of noise aside.
            input_steps: states given to the network, the latest that at t.
            remat: recompute a step's activations in the backward pass, so that memory grows by little more than a state
                with every step: the coefficients of the network's inputs are kept beside it, which are smaller and
                spare the transform of the finest grid. Of ``"products"`` the results of matrix products are kept: less
                to recompute, more to keep.
            noise: random fields that every call is given as its last forcings; None for none.
            mesh: devices to share the work; see `model.network.SphericalUNet`. States are then split over batch and
                latitude, as `model.sharding.STATES` says.

        Raises:
            ValueError: constants of the wrong shape, unequal constants within a vector, roles that tear a vector apart or
                that a next step cannot begin with, or an unknown `remat`.
        """
        if remat not in (False, *_KEPT):
            raise ValueError(f"remat: got {remat!r}, expected one of False, {', '.join(map(repr, _KEPT))}")
        _require_constants(channels, normalisation)
        roles = Roles.prognostic(channels.count) if roles is None else roles
        if not roles.direct and roles.predicted != tuple(range(channels.count)):
            raise ValueError(f"predicted: got channels {roles.predicted}, expected all {channels.count} of a state")
        self.roles, self.given, self.predicted = roles, channels.among(roles.given), channels.among(roles.predicted)
        self.input_steps = input_steps
        self.remat = remat
        self.noise = nnx.data(noise)
        column = (slice(None), None, None)
        self.mean = Table(jnp.asarray(normalisation.mean, jnp.float32)[column])
        self.std = Table(jnp.asarray(normalisation.std, jnp.float32)[column])
        self.tendency_std = Table(jnp.asarray(normalisation.tendency_std, jnp.float32)[column])
        whole = np.isin(roles.predicted, roles.whole)[:, None, None]
        self.whole = Table(jnp.asarray(whole)) if whole.any() else nnx.data(None)
        fields_of_noise = 0 if noise is None else noise.fields
        self.statics = Table(to_nodal(jnp.asarray(statics, jnp.float32)[None]))
        self.network = SphericalUNet(
            config,
            grid,
            in_scalars=input_steps * len(self.given.scalars) + forcings + fields_of_noise + statics.shape[0],
            in_vectors=input_steps * len(self.given.eastward),
            out_scalars=len(self.predicted.scalars),
            out_vectors=len(self.predicted.eastward),
            mesh=mesh,
            rngs=rngs,
        )

    @property
    def scale(self) -> jax.Array:
        """What outputs are measured in, (predicted channel, 1, 1)."""
        return self.select(self.tendency_std[...])

    def select(self, states: jax.Array) -> jax.Array:
        """Return the predicted channels of states, (..., channel, latitude, longitude)."""
        predicted = np.array(self.roles.predicted)
        everything = len(predicted) == states.shape[-3]
        return states if everything else states[..., predicted, :, :]

    def normalised_output(self, history: jax.Array, forcing: jax.Array) -> jax.Array:
        """Return what the network predicts, changes over the next step or values, in units of `tendency_std`.

        Args:
            history: states up to t, ascending in time, (batch, input_steps, channel, latitude, longitude).
            forcing: normalised forcings at t, then noise where there is any, (batch, forcing, latitude, longitude).

        Returns:
            (batch, predicted channel, latitude, longitude).
        """
        # The network's channels begin with the latest state, those of all else with the earliest.
        normalised = (history[:, ::-1] - self.mean[...]) / self.std[...]

        def pick(indices: tuple[int, ...]) -> jax.Array:
            fields = normalised[:, :, jnp.asarray(indices, jnp.int32)]
            return to_nodal(fields.reshape(fields.shape[0], -1, *fields.shape[3:]))

        forcing = to_nodal(forcing)
        batch = history.shape[0]
        statics = jnp.broadcast_to(self.statics[...], (*forcing.shape[:2], batch, self.statics.shape[-1]))
        scalars = jnp.concatenate([pick(self.given.scalars), forcing, statics], axis=-1)
        outputs = self.network(scalars, pick(self.given.eastward), pick(self.given.northward))
        order = np.argsort([*self.predicted.scalars, *self.predicted.eastward, *self.predicted.northward])
        return from_nodal(jnp.concatenate(outputs, axis=-1)[..., order])

    def step(self, history: jax.Array, forcing: jax.Array) -> jax.Array:
        """Return the state at ``t + dt``, or at the lead time of the forcing; arguments and result as above."""
        base = self.select(history[:, -1])
        if self.whole is not None:
            base = jnp.where(self.whole[...], self.select(self.mean[...]), base)
        return base + self.scale * self.normalised_output(history, forcing)

    def following(self, history: jax.Array, state: jax.Array) -> jax.Array:
        """Return what the next call starts from, once `state` is predicted: of a direct forecaster the same states."""
        return history if self.roles.direct else jnp.concatenate([history[:, 1:], state[:, None]], axis=1)

    def rollout(self, history: jax.Array, forcings: jax.Array) -> jax.Array:
        """Integrate one step for every forcing, or forecast directly what every forcing asks for.

        In training mode, batch normalisations then hold running averages updated by the mean over the steps.

        Args:
            history: states up to t, ascending in time, (batch, input_steps, channel, latitude, longitude).
            forcings: normalised forcings at ``t, t + dt, ...``, or of lead times, (batch, step, forcing, latitude,
                longitude).

        Returns:
            States at ``t + dt, t + 2 dt, ...``, or at the lead times, (batch, step, predicted channel, latitude, longitude).
        """
        advance = self._advance(forcings)

        def body(carry: jax.Array, step: jax.Array) -> tuple[jax.Array, tuple[jax.Array, nnx.State]]:
            carry, state, statistics = advance(carry, step)
            return carry, (state, statistics)

        _, (states, statistics) = self._scan(body, history, forcings.shape[1])
        self._update_statistics(statistics)
        return jnp.swapaxes(states, 0, 1)

    def observe(self, history: jax.Array, forcings: jax.Array, measure: Callable[[jax.Array, jax.Array], Any]) -> Any:
        """Integrate as `rollout` does and return what is measured of every state, stacked along a first axis.

        What `measure` needs is computed anew in the backward pass too: of a rollout only the states are kept.

        Args:
            measure: called with a state, (batch, predicted channel, latitude, longitude), and the number of its step,
                from 0. It may be called for the last of the given states too, with the number -1, and that result is
                dropped.
        """
        advance, steps = self._advance(forcings), forcings.shape[1]
        if self.roles.direct:

            def forecast(carry: jax.Array, step: jax.Array) -> tuple[jax.Array, tuple[Any, nnx.State]]:
                carry, state, statistics = advance(carry, step)
                return carry, (measure(state, step), statistics)

            _, (measured, statistics) = self._scan(forecast, history, steps)
            self._update_statistics(statistics)
            return measured

        def body(carry: jax.Array, step: jax.Array) -> tuple[jax.Array, tuple[Any, nnx.State]]:
            # What a step starts from is measured, not what it leads to: the former is kept for the backward pass, and
            # the latter, with the transform to the finest grid, need not be computed anew.
            seen = measure(carry[:, -1], step - 1)
            carry, _, statistics = advance(carry, step)
            return carry, (seen, statistics)

        carry, (measured, statistics) = self._scan(body, history, steps)
        self._update_statistics(statistics)
        last = measure(carry[:, -1], jnp.asarray(steps - 1))
        return jax.tree.map(lambda earlier, last: jnp.concatenate([earlier[1:], last[None]]), measured, last)

    def _advance(self, forcings: jax.Array) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, nnx.State]]:
        """Return a function of the latest states and a step's number to what the next call starts from, what this one
        predicts, and statistics of batches."""
        graph, arrays = nnx.split(self)

        def advance(carry: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, nnx.State]:
            # A copy, because a scanned function may not change variables from outside it.
            model = nnx.merge(graph, arrays, copy=True)
            # Scanning over the forcings themselves would need a copy of them with the steps first.
            forcing = jax.lax.dynamic_index_in_dim(forcings, step, axis=1, keepdims=False)
            state = model.step(carry, forcing)
            return self.following(carry, state), state, nnx.state(model, nnx.BatchStat)

        return advance

    def _scan(self, body: Callable, history: jax.Array, steps: int) -> tuple[jax.Array, Any]:
        if self.remat and steps > 1:
            # A single step would be computed twice and save nothing. The scan already keeps steps apart, so the barrier
            # against common subexpressions would only cost time.
            body = jax.checkpoint(body, prevent_cse=False, policy=_KEPT[self.remat])
        return jax.lax.scan(body, history, jnp.arange(steps))

    def _update_statistics(self, statistics: nnx.State) -> None:
        if self._gathers_statistics():
            nnx.update(self, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), statistics))

    def _gathers_statistics(self) -> bool:
        norms = (module for _, module in nnx.iter_modules(self) if isinstance(module, SpectralBatchNorm))
        return any(not norm.use_running_average for norm in norms)


def _require_constants(channels: Channels, normalisation: Normalisation) -> None:
    for name in ("mean", "std", "tendency_std"):
        value = np.asarray(getattr(normalisation, name))
        if value.shape != (channels.count,):
            raise ValueError(f"{name}: got shape {value.shape}, expected ({channels.count},)")
        pair = value[list(channels.eastward)], value[list(channels.northward)]
        if not np.array_equal(*pair) or (name == "mean" and np.any(pair)):
            raise ValueError(f"{name}: components of a vector must share it (mean: be zero), got {pair}")
