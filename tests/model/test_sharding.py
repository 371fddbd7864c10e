"""Eight devices along `sphere` give what one device gives, and exchange data by all-to-all alone."""

from __future__ import annotations

import os

import pytest


def main() -> None:
    """Compare in a process of its own: the number of host devices is fixed when JAX starts."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from devices import collectives
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from model.harmonics import Transform
    from transforms.grids import Grid

    mesh = (
        Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "sphere"), axis_types=(AxisType.Auto, AxisType.Auto))
        if os.environ.get("SPHERECAST_TEST_MESH") == "2x4"
        else Mesh(np.array(jax.devices()), ("sphere",))
    )
    shards = mesh.shape["sphere"]
    data = "data" if "data" in mesh.shape else None
    nodal_split = NamedSharding(mesh, PartitionSpec(None, "sphere", data))

    # 19 orders do not share out evenly over the devices.
    grids = {8: (Grid.equiangular(24, 48, poles=False), 19), 4: (Grid.gaussian(16), 16)}
    grid, band_limit = grids[shards]
    one, many = Transform(grid, band_limit), Transform(grid, band_limit, mesh=mesh)
    assert sorted(set(many.orders.tolist()))[:band_limit] == list(range(band_limit))
    rng = np.random.default_rng(0)
    fields = [jnp.asarray(rng.normal(size=(*grid.shape[::-1], 4, 3)), jnp.float32) for _ in range(3)]
    spread = [jax.device_put(field, nodal_split) for field in fields]

    def chain(transform, scalars, u, v):
        modal = transform.scalars_to_modal(scalars)
        divergent, rotational = transform.vectors_to_modal(u, v)
        nodal = transform.scalars_to_nodal(modal), *transform.vectors_to_nodal(divergent, rotational)
        return (modal, divergent, rotational), nodal

    def loss(fields, transform):
        modal, nodal = chain(transform, *fields)
        power = sum(jnp.sum(part**3) for part in modal)
        return power + sum(jnp.sum(jnp.sin(part)) for part in nodal)

    compiled = jax.jit(chain).lower(many, *spread).compile()
    kinds = _kinds(collectives(compiled.as_text()))
    assert kinds == {"all-to-all"}, kinds
    expected, got = chain(one, *fields), compiled(many, *spread)
    for name, a, b in zip(("scalars", "divergent", "rotational"), expected[0], got[0], strict=True):
        natural = np.zeros_like(a)
        kept = many.orders < band_limit
        natural[:, many.orders[kept]] = np.asarray(b)[:, kept]
        assert not np.asarray(b)[:, ~kept].any(), name
        assert _relative(natural, a) < 1e-6, (name, _relative(natural, a))
        assert {shard.data.shape[1] for shard in b.addressable_shards} == {b.shape[1] // shards}
    for name, a, b in zip(("scalars", "u", "v"), expected[1], got[1], strict=True):
        assert _relative(b, a) < 1e-6, (name, _relative(b, a))
    gradient = jax.jit(jax.grad(loss))
    kinds = _kinds(collectives(gradient.lower(spread, many).compile().as_text()))
    assert kinds <= {"all-to-all"}, kinds
    for name, a, b in zip(("scalars", "u", "v"), gradient(fields, one), gradient(spread, many), strict=True):
        assert _relative(b, a) < 1e-6, (name, _relative(b, a))


def _relative(value, reference) -> float:
    import numpy as np

    return float(np.linalg.norm(np.asarray(value) - np.asarray(reference)) / np.linalg.norm(reference))


def _kinds(collectives: list[tuple[str, int]]) -> set[str]:
    """Names of the collectives, but for reductions of scalars."""
    return {kind for kind, size in collectives if (kind, size) != ("all-reduce", 1)}


def test_latitudes_that_cannot_be_shared_are_refused():
    from jax.sharding import AbstractMesh

    from model.harmonics import Transform
    from transforms.grids import Grid

    with pytest.raises(ValueError, match="got 8 devices along 'sphere' for 33 latitudes"):
        Transform(Grid.equiangular(33, 64, poles=True), 16, mesh=AbstractMesh((8,), ("sphere",)))


@pytest.mark.parametrize(("platform", "method"), [("cpu", "folded"), ("gpu", "fft"), ("tpu", "matmul")])
def test_sums_over_longitude_are_chosen_for_the_devices_that_will_run_them(platform, method):
    import numpy as np

    from model.fourier_transform import FourierTransform
    from model.sharding import make_mesh, platform_of

    transform = FourierTransform(np.arange(64) * 5.625, np.arange(16), platform=platform)
    assert transform.method == method
    elsewhere = type("Device", (), {"platform": platform})()
    assert platform_of(make_mesh([elsewhere, elsewhere])) == platform


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8", "2x4"])
def test_sharded_transforms_equal_those_of_one_device(on_eight_devices, mesh):
    on_eight_devices(__file__, SPHERECAST_TEST_MESH=mesh)


if __name__ == "__main__":
    main()
