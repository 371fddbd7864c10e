"""A network on eight devices gives what it gives on one, and exchanges fields by all-to-all alone."""

from __future__ import annotations

import os

import pytest


def main() -> None:
    """Compare in a process of its own: the number of host devices is fixed when JAX starts."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from devices import collectives
    from flax import nnx
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from model.network import Level, NetworkConfig, SphericalUNet
    from transforms.grids import Grid

    axes, normalisation = os.environ["SPHERECAST_TEST_MESH"], os.environ["SPHERECAST_TEST_NORM"]
    split = {"sphere": {"sphere": 8}, "both": {"data": 2, "sphere": 4}, "data": {"data": 4}}[axes]
    devices = np.array(jax.devices()[: np.prod(list(split.values()))]).reshape(*split.values())
    mesh = Mesh(devices, tuple(split), axis_types=(AxisType.Auto,) * len(split))
    # Orders do not share out evenly over the devices, and hidden grids have 24 and 16 latitudes on any number of them.
    config = NetworkConfig((Level(23, 4, 2, 1), Level(15, 5, 3, 1)), filter_knots=3, normalisation=normalisation)
    grid = Grid.gaussian(24)

    def build(mesh: Mesh | None) -> SphericalUNet:
        channels = {"in_scalars": 2, "in_vectors": 1, "out_scalars": 1, "out_vectors": 1}
        network = SphericalUNet(config, grid, **channels, mesh=mesh, rngs=nnx.Rngs(0))
        rng = np.random.default_rng(0)
        parameters = nnx.state(network, nnx.Param)
        nnx.update(network, jax.tree.map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape), parameters))
        return network

    def run(network: SphericalUNet, fields: list) -> tuple:
        graph, parameters, rest = nnx.split(network, nnx.Param, ...)

        def apply(parameters, rest, fields):
            return nnx.merge(graph, parameters, rest, copy=True)(*fields)

        def loss(parameters, rest, fields):
            return sum(jnp.sum(jnp.sin(field)) for field in apply(parameters, rest, fields))

        arguments, options = (parameters, rest, fields), {"xla_backend_optimization_level": 0}
        compiled = [jax.jit(f).lower(*arguments).compile(compiler_options=options) for f in (apply, jax.grad(loss))]
        return [f(*arguments) for f in compiled], [collectives(f.as_text()) for f in compiled]

    rng = np.random.default_rng(1)
    fields = [jnp.asarray(rng.normal(size=(48, 24, 4, n)), jnp.float32) for n in (2, 1, 1)]
    present = [axis if axis in split else None for axis in ("sphere", "data")]
    nodal = NamedSharding(mesh, PartitionSpec(None, *present))
    (expected, gradient), _ = run(build(None), fields)
    (got, sharded), (forward, backward) = run(build(mesh), [jax.device_put(field, nodal) for field in fields])
    for name, a, b in zip(("scalars", "u", "v"), expected, got, strict=True):
        assert _relative(b, a) < 1e-6, (name, _relative(b, a))
        assert b.sharding.shard_shape(b.shape)[1:3] == (24 // split.get("sphere", 1), 4 // split.get("data", 1))
    assert _relative(sharded, gradient) < 3e-6, _relative(sharded, gradient)
    # Norms add up a few numbers for each sample and channel, and gradients those of replicated parameters.
    kinds = {kind for kind, _ in forward + backward}
    assert kinds <= {"all-to-all", "all-reduce"}, kinds
    sums = [size for kind, size in forward if kind == "all-reduce"]
    assert max(sums, default=0) <= 4 * (5 + 2 * 3), sums
    if axes == "data":
        assert not sums or normalisation == "batch", sums


def _relative(value, reference) -> float:
    import jax
    import numpy as np

    value, reference = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)]) for x in (value, reference))
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "normalisation"), [("sphere", "sample"), ("both", "batch"), ("data", "sample")])
def test_sharded_network_equals_that_of_one_device(on_eight_devices, axes, normalisation):
    on_eight_devices(__file__, SPHERECAST_TEST_MESH=axes, SPHERECAST_TEST_NORM=normalisation)


if __name__ == "__main__":
    main()
