"""Other packages' spherical transforms behind one interface, each in its fastest form found on the machine.

Every package transforms the same fields, closed-form functions of limited degree that owe nothing to any transform, on
its own best grid, in float32, with `THREADS` threads. A round trip that does not return them is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import scipy.special

__all__ = ["BLOCKS", "CHANNELS", "PEERS", "THREADS", "Missing", "Peer", "fields", "round_trip_error"]

CHANNELS = 32
"""Real scalars, and real vectors, of one transform."""

THREADS = 2

_TOLERANCE = 1e-3


class Missing(Exception):
    """A package that is not installed, or cannot be loaded."""


@dataclass(frozen=True)
class Peer:
    """A package at one band limit.

    Attributes:
        label: name, version and the form that was chosen, for each kind of field.
        pairs: by "scalars", "vectors" and "both", as far as the package goes: a function that analyses and
            synthesises `CHANNELS` fields of that kind and returns when the work is done.
        error: relative L2 error of the round trip, the largest of the kinds.
    """

    label: str
    pairs: dict[str, Callable[[], object]]
    error: float


def fields(band_limit: int, sine: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scalars, u and v of unit mean square whose degrees are below `band_limit`.

    A scalar is ``P_k(a . n)``, n being the point and a a random direction. A vector is the gradient of one such
    function plus k x the gradient of another. Degrees k are spread from 1 to ``band_limit - 1``.

    Args:
        sine: sin(latitude) of the rows, shape (latitude,).
        longitude: in radians, shape (longitude,).

    Returns:
        Three arrays (`CHANNELS`, latitude, longitude), float64; u eastward, v northward.
    """
    rng = np.random.default_rng(1)
    degrees = np.linspace(1, band_limit - 1, CHANNELS).round().astype(int)[:, None, None]
    cosine = np.sqrt(1.0 - sine**2)[:, None]
    sine, zero, one = sine[:, None], np.zeros_like(cosine), np.ones_like(longitude)
    point = np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), sine * one])
    east = np.stack([zero - np.sin(longitude), zero + np.cos(longitude), zero * one])
    north = np.stack([-sine * np.cos(longitude), -sine * np.sin(longitude), cosine * one])

    def gradient(degree: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        direction = _directions(rng)
        x = np.einsum("cd,dji->cji", direction, point)
        slope = (x * scipy.special.eval_legendre(degree, x) - scipy.special.eval_legendre(degree - 1, x)) / (x**2 - 1)
        # The mean square of one of two orthogonal parts is 1/2.
        slope *= degree * np.sqrt((2 * degree + 1) / (2 * degree * (degree + 1)))
        return slope * np.einsum("cd,dji->cji", direction, east), slope * np.einsum("cd,dji->cji", direction, north)

    x = np.einsum("cd,dji->cji", _directions(rng), point)
    scalars = scipy.special.eval_legendre(degrees, x) * np.sqrt(2 * degrees + 1)
    (u, v), (along, across) = gradient(degrees), gradient(degrees[::-1])
    return scalars, u - across, v + along


def round_trip_error(name: str, got: object, expected: object) -> float:
    """Return the relative L2 difference.

    Raises:
        RuntimeError: it is above 1e-3, so that a timing would be one of a wrong transform.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    error = float(np.linalg.norm((got - expected).ravel()) / np.linalg.norm(expected.ravel()))
    if not error < _TOLERANCE:
        raise RuntimeError(f"{name}: round trip error is {error:.2g}, expected below {_TOLERANCE}")
    return error


def _directions(rng: np.random.Generator) -> np.ndarray:
    direction = rng.standard_normal((CHANNELS, 3))
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _gauss(band_limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes, ascending, and weights of sum 2."""
    return np.polynomial.legendre.leggauss(band_limit)


def _longitudes(count: int) -> np.ndarray:
    return np.arange(count) * (2 * np.pi / count)


def _fastest(candidates: dict[str, Callable[[], object]]) -> tuple[str, Callable[[], object]]:
    """Return the candidate that costs the least CPU time in a short trial."""
    seconds = dict.fromkeys(candidates, np.inf)
    for candidate in candidates.values():
        candidate()
    for _ in range(3):
        for name, candidate in candidates.items():
            calls, start, limit = 0, time.process_time(), time.perf_counter() + 0.04
            while calls == 0 or time.perf_counter() < limit:
                candidate()
                calls += 1
            seconds[name] = min(seconds[name], (time.process_time() - start) / calls)
    best = min(seconds, key=seconds.get)
    return best, candidates[best]


def _both(pairs: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    return {**pairs, "both": lambda: (pairs["scalars"](), pairs["vectors"]())}


def torch_harmonics(band_limit: int, compiled: bool = False) -> Peer:
    """RealSHT and RealVectorSHT on the Gauss-Legendre grid, eager or through torch.compile."""
    torch, modules = _torch_transforms(band_limit)
    sht, isht, vsht, ivsht = modules
    sine, _ = _gauss(band_limit)
    scalars, u, v = fields(band_limit, sine[::-1], _longitudes(2 * band_limit))
    # Components along theta, which points south, and phi.
    inputs = {"scalars": scalars, "vectors": np.stack([-v, u], axis=1)}
    functions = {"scalars": lambda x: isht(sht(x)), "vectors": lambda x: ivsht(vsht(x))}
    pairs, errors = {}, []
    for kind, nodal in inputs.items():
        tensor = torch.from_numpy(nodal.astype(np.float32))
        function = torch.compile(functions[kind]) if compiled else functions[kind]
        pairs[kind] = _in_inference_mode(torch, function, tensor)
        errors.append(round_trip_error("torch-harmonics", pairs[kind](), nodal))
    form = "compiled" if compiled else "eager"
    label = f"torch-harmonics {version('torch-harmonics')}, torch {version('torch')}, {form}"
    return Peer(label, _both(pairs), max(errors))


def _in_inference_mode(torch: object, function: Callable, tensor: object) -> Callable[[], object]:
    def pair() -> object:
        with torch.inference_mode():
            return function(tensor)

    return pair


def _torch_transforms(band_limit: int) -> tuple[object, list]:
    """Return torch and the four transforms with float32 tables, to spare their conversion at each call."""
    try:
        import torch
        import torch_harmonics as th
    except (ImportError, OSError) as error:
        raise Missing(f"torch-harmonics: {error}") from None
    torch.set_num_threads(THREADS)
    shape = {"nlat": band_limit, "nlon": 2 * band_limit, "lmax": band_limit, "mmax": band_limit}
    kinds = (th.RealSHT, th.InverseRealSHT, th.RealVectorSHT, th.InverseRealVectorSHT)
    return torch, [kind(**shape, grid="legendre-gauss").to(torch.float32) for kind in kinds]


def s2fft(band_limit: int) -> Peer:
    """Precomputed kernels on the Gauss-Legendre grid; a real vector is one complex field of spin 1.

    The McEwen-Wiaux sampling takes 3 to 7 times as long, and on-the-fly kernels longer still.
    """
    try:
        import jax
        from s2fft.precompute_transforms import construct, spherical
        from s2fft.sampling import s2_samples
    except ImportError as error:
        raise Missing(f"s2fft: {error}") from None
    sampling = "gl"
    sine = np.cos(s2_samples.thetas(band_limit, sampling))
    scalars, u, v = fields(band_limit, sine, s2_samples.phis_equiang(band_limit, sampling))
    inputs = {"scalars": scalars.astype(np.float32), "vectors": (-v + 1j * u).astype(np.complex64)}
    pairs, errors, forms = {}, [], []
    for kind, nodal in inputs.items():
        spin, real = (0, True) if kind == "scalars" else (1, False)
        with jax.enable_x64(True):
            kernels = [
                np.float32(construct.spin_spherical_kernel_jax(band_limit, spin, real, sampling, forward=forward))
                for forward in (True, False)
            ]

        def pair(x, analysis, synthesis, spin=spin, real=real):
            modal = spherical.forward_transform_jax(x, analysis, band_limit, sampling, real, spin, None)
            return spherical.inverse_transform_jax(modal, synthesis, band_limit, sampling, real, spin, None)

        candidates = {}
        for form, axis in {"channels first": 0, "channels last": -1}.items():
            mapped = jax.jit(jax.vmap(pair, (axis, None, None), axis))
            arguments = jax.device_put([np.moveaxis(nodal, 0, axis), *kernels])
            candidates[form] = lambda mapped=mapped, arguments=arguments: jax.block_until_ready(mapped(*arguments))
            errors.append(round_trip_error("s2fft", np.moveaxis(candidates[form](), axis, 0), nodal))
        form, pairs[kind] = _fastest(candidates)
        forms.append(form)
    return Peer(f"s2fft {version('s2fft')}, precomputed, {' / '.join(forms)}", _both(pairs), max(errors))


def ducc0(band_limit: int) -> Peer:
    """Gauss-Legendre maps, one call for each field or one for all of them."""
    try:
        from ducc0 import sht
    except ImportError as error:
        raise Missing(f"ducc0: {error}") from None
    nlon = 2 * band_limit
    sine, weights = _gauss(band_limit)
    scalars, u, v = fields(band_limit, sine[::-1], _longitudes(nlon))
    inputs = {"scalars": scalars[:, None], "vectors": np.stack([-v, u], axis=1)}
    limits = {"lmax": band_limit - 1, "mmax": band_limit - 1}
    rings = {
        "theta": np.arccos(sine[::-1]),
        "nphi": np.full(band_limit, nlon, np.uint64),
        "phi0": np.zeros(band_limit),
        "ringstart": np.arange(band_limit, dtype=np.uint64) * nlon,
        "nthreads": THREADS,
    }
    pool = ThreadPoolExecutor(THREADS)
    pairs, errors, forms = {}, [], []
    for spin, (kind, nodal) in enumerate(inputs.items()):
        maps = nodal.astype(np.float32)
        alm = np.empty((CHANNELS, maps.shape[1], band_limit * (band_limit + 1) // 2), np.complex64)
        result = np.empty_like(maps)

        def one(i, threads, maps=maps, alm=alm, result=result, spin=spin):
            common = {**limits, "spin": spin, "geometry": "GL", "nthreads": threads}
            sht.analysis_2d(map=maps[i], alm=alm[i], **common)
            sht.synthesis_2d(alm=alm[i], map=result[i], **common)

        def each(threads, one=one, result=result):
            for i in range(CHANNELS):
                one(i, threads)
            return result

        def pooled(one=one, result=result):
            list(pool.map(lambda start: [one(i, 1) for i in range(start, CHANNELS, THREADS)], range(THREADS)))
            return result

        def together(maps=maps, alm=alm, result=result, spin=spin):
            flat = (*maps.shape[:2], -1)
            # On Gauss-Legendre nodes the weighted adjoint is the inverse.
            factor = weights[::-1] * (2 * np.pi / nlon)
            sht.adjoint_synthesis(map=maps.reshape(flat), alm=alm, spin=spin, ringfactor=factor, **limits, **rings)
            sht.synthesis(alm=alm, map=result.reshape(flat), spin=spin, **limits, **rings)
            return result

        candidates = {
            "one by one": lambda each=each: each(1),
            "one by one, threads inside": lambda each=each: each(THREADS),
            "one by one in a pool": pooled,
            "all in one call": together,
        }
        errors += [round_trip_error("ducc0", candidate(), nodal) for candidate in candidates.values()]
        form, pairs[kind] = _fastest(candidates)
        forms.append(form)
    return Peer(f"ducc0 {version('ducc0')}, {' / '.join(forms)}", _both(pairs), max(errors))


def dinosaur(band_limit: int) -> Peer:
    """Scalars alone, on the same Gauss-Legendre grid and triangle of degrees and orders below `band_limit`."""
    try:
        import jax
        from dinosaur import spherical_harmonic
    except ImportError as error:
        raise Missing(f"dinosaur: {error}") from None
    nlon = 2 * band_limit
    sine, _ = _gauss(band_limit)
    scalars, _, _ = fields(band_limit, sine, _longitudes(nlon))
    nodal = scalars.transpose(0, 2, 1)
    plain, fast = spherical_harmonic.RealSphericalHarmonics, spherical_harmonic.FastSphericalHarmonics
    harmonics = {
        "real": plain(band_limit, band_limit, nlon, band_limit),
        "fast, matrix products": fast(band_limit, band_limit, nlon, band_limit, fourier_method="matmul"),
        "fast, FFT": fast(
            band_limit, band_limit, nlon, band_limit, fourier_method="fft", stacked_fourier_transforms=False
        ),
    }
    candidates, errors = {}, []
    for name, transform in harmonics.items():
        for form, axis in {"channels first": 0, "channels last": -1}.items():

            def pair(x, transform=transform):
                return transform.inverse_transform(transform.transform(x))

            mapped = jax.jit(pair if axis == 0 else jax.vmap(pair, axis, axis))
            x = jax.device_put(np.moveaxis(nodal, 0, axis).astype(np.float32))
            candidate = candidates[f"{name}, {form}"] = lambda mapped=mapped, x=x: jax.block_until_ready(mapped(x))
            errors.append(round_trip_error("dinosaur", np.moveaxis(candidate(), axis, 0), nodal))
    form, best = _fastest(candidates)
    return Peer(f"dinosaur {version('dinosaur')}, {form}", {"scalars": best}, max(errors))


def torch_block(band_limit: int, batch: int, compiled: bool = False) -> Peer:
    """The residual block of `model.layers` from torch-harmonics' transforms, forward and backward.

    Per-sample norm of scalars and vectors, a real matrix for every degree on the stacked channels, phase collapse and
    gate on the Gauss-Legendre grid, a second such filter, added to the input. Gradients reach parameters and input.
    `pairs` holds it as "block", and its transforms of scalars and vectors without gradients as "both".
    """
    torch, transforms = _torch_transforms(band_limit)
    degree = torch.arange(band_limit, dtype=torch.float64)
    length = torch.sqrt(degree * (degree + 1)).clamp(min=1.0)
    sht, isht, vsht, ivsht = transforms
    # Its tables are rescaled once so that the mean square over the sphere is the sum of squared coefficients.
    with torch.no_grad():
        unit = (4 * torch.pi) ** 0.5
        for table, scale in (
            (sht.weights, torch.full_like(length, 1 / unit)[:, None]),
            (isht.pct, torch.full_like(length, unit)),
            (vsht.weights, (length / unit)[:, None]),
            (ivsht.dpct, unit / length),
        ):
            table.mul_(scale.to(torch.float32))

    def to_nodal(modal):
        vectors = torch.stack([modal[:, CHANNELS : 2 * CHANNELS], modal[:, 2 * CHANNELS :]], dim=2)
        return isht(modal[:, :CHANNELS]), ivsht(vectors)

    def to_modal(scalars, vectors):
        vectors = vsht(vectors)
        return torch.cat([sht(scalars), vectors[:, :, 0], vectors[:, :, 1]], dim=1)

    generator = torch.Generator().manual_seed(1)

    def parameter(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator) * scale).requires_grad_()

    width = 3 * CHANNELS
    gain = torch.ones(2 * CHANNELS, requires_grad=True)
    filters = [parameter(band_limit, width, width, scale=s / width**0.5) for s in (1.0, 0.3)]
    mix, gate = torch.nn.Linear(width, CHANNELS), torch.nn.Linear(CHANNELS, CHANNELS)
    # Order m > 0 stands for m and -m.
    multiplicity = torch.where(torch.arange(band_limit) > 0, 2.0, 1.0)

    def filtered(modal, weight):
        # Vectors have no degree 0.
        weight = torch.cat([torch.nn.functional.pad(weight[:1, :, :CHANNELS], (0, 2 * CHANNELS)), weight[1:]])
        return torch.view_as_complex(torch.einsum("bilmp,lio->bolmp", torch.view_as_real(modal), weight).contiguous())

    def unit_mean_square(modal, components):
        power = (torch.view_as_real(modal).square().sum(-1) * multiplicity).sum((1, 2, 3), keepdim=True)
        return modal * torch.rsqrt(power * (components / modal.shape[1]) + 1e-6)

    def block(modal):
        hidden = torch.cat([unit_mean_square(modal[:, :CHANNELS], 1), unit_mean_square(modal[:, CHANNELS:], 2)], dim=1)
        hidden = hidden * torch.cat([gain, gain[CHANNELS:]])[None, :, None, None]
        scalars, vectors = to_nodal(filtered(hidden, filters[0]))
        moduli = torch.cat([scalars, scalars.abs(), (vectors.square().sum(2) + 1e-6).sqrt()], dim=1)
        scalars = torch.einsum("bcji,oc->boji", moduli, mix.weight) + mix.bias[:, None, None]
        gates = torch.einsum("bcji,oc->boji", scalars, gate.weight) + gate.bias[:, None, None]
        return modal + filtered(to_modal(scalars, vectors * torch.sigmoid(gates)[:, :, None]), filters[1])

    sine, _ = _gauss(band_limit)
    nodal = fields(band_limit, sine[::-1], _longitudes(2 * band_limit))
    scalars, u, v = (torch.from_numpy(np.float32(x)).expand(batch, *x.shape).contiguous() for x in nodal)
    vectors = torch.stack([-v, u], dim=2)
    both = _in_inference_mode(torch, lambda x: to_nodal(to_modal(*x)), (scalars, vectors))
    got = both()
    error = max(round_trip_error("torch-harmonics", x, y) for x, y in zip(got, (scalars, vectors), strict=True))
    with torch.no_grad():
        modal = to_modal(scalars, vectors)
        power = (torch.view_as_real(modal).square().sum(-1) * multiplicity).sum((2, 3))
    # Unit mean square of scalars, and of the two parts of a vector together.
    total = power.numpy()[:, :CHANNELS], power.numpy()[:, CHANNELS : 2 * CHANNELS] + power.numpy()[:, 2 * CHANNELS :]
    for x in total:
        round_trip_error("torch-harmonics, sum of squared coefficients", x, np.ones_like(x))
    modal.requires_grad_()
    cotangent = torch.view_as_complex(torch.randn((*modal.shape, 2), generator=generator))
    leaves = [modal, gain, *filters, *mix.parameters(), *gate.parameters()]
    function = torch.compile(block) if compiled else block

    def step():
        return torch.autograd.grad(function(modal), leaves, cotangent)

    form = "compiled" if compiled else "eager"
    label = f"torch-harmonics {version('torch-harmonics')}, torch {version('torch')}, {form}"
    return Peer(label, {"block": step, "both": both}, error)


PEERS: dict[str, Callable[[int], Peer]] = {
    "torch-harmonics": torch_harmonics,
    "torch-harmonics compiled": lambda band_limit: torch_harmonics(band_limit, compiled=True),
    "s2fft": s2fft,
    "ducc0": ducc0,
    "dinosaur": dinosaur,
}
"""By name: the package's transforms at a band limit. Raise `Missing` where the package is not installed."""

BLOCKS: dict[str, Callable[[int, int], Peer]] = {
    "torch-harmonics": torch_block,
    "torch-harmonics compiled": lambda band_limit, batch: torch_block(band_limit, batch, compiled=True),
}
"""By name: the residual block at a band limit and batch size."""
