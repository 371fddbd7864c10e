"""What works of this installation and machine, what is missing, and what mends it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dags.display import as_bytes
from dags.machine import available_memory, cores
from pipeline.config_files import list_configs

__all__ = ["Finding", "examine", "fault", "note", "sound"]

_DISTRIBUTION = "spherecast"
_EXTRAS = {
    "simulate": "a simulated atmosphere as a source",
    "gcs": "sources at gs:// addresses",
    "s3": "sources at s3:// addresses",
    "grib": "sources in GRIB",
    "tpu": "plans for TPU slices, and TPUs",
    "airflow": "the DAGs on Apache Airflow",
}
"""Extras that a user may want, and what they add."""
_LEAST_MEMORY, _LEAST_DISK, _LEAST_FILES = 2e9, 5e9, 512
_PATIENCE = 120.0
_PROBE = """
import json, jax, jax.numpy as jnp
assert float(jnp.ones((8, 8)).sum()) == 64.0
devices = [[device.platform, device.device_kind] for device in jax.devices()]
print("devices:" + json.dumps(devices))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        group: what it belongs to.
        level: ``fault`` where something will fail, ``note`` where something is absent that not everyone needs.
        mend: what to do, empty where nothing has to be done.
    """

    group: str
    name: str
    level: Literal["sound", "note", "fault"]
    found: str
    mend: str = ""


def sound(group: str, name: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(group, name, "sound", found)


def note(group: str, name: str, found: str, mend: str) -> Finding:
    """Return a finding that something is absent which not everyone needs."""
    return Finding(group, name, "note", found, mend)


def fault(group: str, name: str, found: str, mend: str) -> Finding:
    """Return a finding that something will fail."""
    return Finding(group, name, "fault", found, mend)


def examine(folder: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found of the installation and the machine.

    Args:
        folder: where runs are written, or will be.
        environment: variables that tell of credentials, of which only the presence is said.
    """
    yield from _versions()
    yield from _extras()
    yield from _devices()
    yield from _machine()
    yield from _folder("runs", folder)
    yield from _folder("temporary files", Path(tempfile.gettempdir()))
    yield from _credentials(environment)


def _versions() -> Iterator[Finding]:
    group, python = "Installation", platform.python_version()
    about = metadata.metadata(_DISTRIBUTION)
    wanted = about["Requires-Python"] or ">=3.11"
    if SpecifierSet(wanted).contains(python):
        yield sound(group, "Python", python)
    else:
        yield fault(group, "Python", f"{python}, expected {wanted}", "make a virtual environment with another Python")
    yield sound(group, _DISTRIBUTION, about["Version"])
    required = [requirement for requirement, extra in _requirements() if extra is None]
    faults = [(requirement, found) for requirement in required if (found := _mismatch(requirement)) is not None]
    for requirement, found in faults:
        yield fault(group, requirement.name, found, f"pip install '{requirement}'")
    if not faults:
        yield sound(group, "packages", f"{len(required)} required ones at or above their floors")
    try:
        yield sound(group, "data files", f"{len(list_configs())} configurations")
    except (OSError, KeyError) as error:
        yield fault(group, "data files", f"unreadable: {error}", f"pip install --force-reinstall {_DISTRIBUTION}")


def _extras() -> Iterator[Finding]:
    offered = set(metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or ())
    for extra, purpose in _EXTRAS.items():
        if extra not in offered:
            continue
        wrong = [found for requirement, name in _requirements() if name == extra and (found := _mismatch(requirement))]
        if wrong:
            mend = f"for {purpose}: pip install '{_DISTRIBUTION}[{extra}]'"
            yield note("Extras", extra, "; ".join(wrong), mend)
        else:
            yield sound("Extras", extra, purpose)


def _requirements() -> Iterator[tuple[Requirement, str | None]]:
    """Yield each requirement of this platform, without its marker, and the extra it is of."""
    for text in metadata.requires(_DISTRIBUTION) or ():
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if marker is None or marker.evaluate({"extra": ""}):
            yield requirement, None
            continue
        for extra in metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or ():
            if marker.evaluate({"extra": extra}):
                yield requirement, extra


def _mismatch(requirement: Requirement) -> str | None:
    """Return what is wrong with an installed package, None where it fits."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found}, expected {requirement.specifier}"


def _devices() -> Iterator[Finding]:
    """Compute on JAX's devices in a process of its own: a driver that is at fault may hang, or end the process."""
    group = "Devices"
    try:
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        mend = "another process may hold the accelerator; JAX_PLATFORMS=cpu leaves it alone"
        yield fault(group, "JAX", f"does not answer within {_PATIENCE:g} s", mend)
        return
    lines = [line for line in probe.stdout.splitlines() if line.startswith("devices:")]
    if probe.returncode or not lines:
        last = (probe.stderr.strip().splitlines() or [f"ended with status {probe.returncode}"])[-1]
        yield fault(group, "JAX", last, "pip install --upgrade jax jaxlib, or set JAX_PLATFORMS=cpu")
        return
    devices = json.loads(lines[-1].removeprefix("devices:"))
    platforms = {platform for platform, _ in devices}
    yield sound(group, "JAX", f"{', '.join(sorted(platforms))}: {len(devices)} x {devices[0][1]}")
    if platforms == {"cpu"} and shutil.which("nvidia-smi"):
        yield note(group, "GPU", "there is one that JAX does not see", "pip install 'jax[cuda12]'")


def _machine() -> Iterator[Finding]:
    group, memory = "Machine", available_memory()
    yield sound(group, "cores", str(cores()))
    if memory is None:
        yield note(group, "memory", "not told by this system", "leave 2 GB to a run")
    elif memory < _LEAST_MEMORY:
        yield note(group, "memory", f"{as_bytes(memory)} to be had", "leave 2 GB to a run; end other programs")
    else:
        yield sound(group, "memory", f"{as_bytes(memory)} to be had")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < _LEAST_FILES:
        yield note(group, "open files", f"at most {files}", f"ulimit -n {2 * _LEAST_FILES}")
    else:
        yield sound(group, "open files", f"at most {files}" if files >= 0 else "no limit")


def _folder(name: str, folder: Path) -> Iterator[Finding]:
    """Try what runs do in a folder, or where it will be made: write, lock, link."""
    group, place = "Disk", folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".spherecast-", dir=place) as trial:
            _try_writing(Path(trial))
            linked = _succeeds(lambda: os.link(Path(trial, "file"), Path(trial, "link")))
    except OSError as error:
        reason = error.strerror or str(error)
        yield fault(group, name, f"{place}: cannot write and lock there ({reason})", "choose another folder")
        return
    free = shutil.disk_usage(place).free
    found = f"{place}: {as_bytes(free)} free"
    if free < _LEAST_DISK:
        yield note(group, name, found, "a run of quickstart needs 1 GB, ERA5 far more: free some space")
    else:
        yield sound(group, name, found)
    if not linked:
        yield note(group, name, "no hard links there", "runs of one folder do not share results there")


def _try_writing(folder: Path) -> None:
    with (folder / "file").open("wb") as stream:
        stream.write(bytes(4096))
        os.fsync(stream.fileno())
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _succeeds(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return False
    return True


def _credentials(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Say whether credentials are there, and nothing of what they are."""
    home = Path(environment.get("HOME", "/"))
    google = (
        "GOOGLE_APPLICATION_CREDENTIALS" in environment
        or (home / ".config" / "gcloud" / "application_default_credentials.json").is_file()
    )
    amazon = "AWS_ACCESS_KEY_ID" in environment or (home / ".aws" / "credentials").is_file()
    for name, present, address in (("Google Cloud", google, "gs://"), ("Amazon S3", amazon, "s3://")):
        if present:
            yield sound("Credentials", name, "present")
        else:
            mend = f"public {address} sources need none: source.storage_options, or source.preset, says so"
            yield note("Credentials", name, "absent", mend)
