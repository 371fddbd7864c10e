"""Artefacts: one file or directory that appears all at once and says what it is.

On this machine's disks work happens under a temporary sibling name; only a complete artefact gets its final name, by a
rename. An object store has no rename: there work happens in place, and ``_SUCCESS.json``, written last, makes it complete.
Attributes carry a description (see `describe`) by which a consumer, or the runner, tells whether it is the one it needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.objects import Objects, is_url
from transforms.errors import InputError

__all__ = [
    "ATTRIBUTE",
    "DESCRIPTION_FILE",
    "SCHEMA_VERSION",
    "describe",
    "digest",
    "publishing",
    "read_description",
    "refuse_other",
    "require",
    "source_fingerprint",
    "store_identity",
    "unfinished",
    "working_path",
    "write_description",
]

SCHEMA_VERSION = 1
ATTRIBUTE = "spherecast"
DESCRIPTION_FILE = "_SUCCESS.json"


def digest(value: Any) -> str:
    """Return a short hash of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(kind: str, fingerprint: str = "", inputs: dict[str, str] | None = None, **facts: Any) -> dict[str, Any]:
    """Return the description that every artefact carries.

    Args:
        kind: what it is, e.g. ``training store``.
        fingerprint: hash of the configuration and inputs it was made from.
        inputs: fingerprint of every upstream artefact, by name.
        facts: what a consumer checks or a reader wants: period, grid, levels, time step, simulated or not.
    """
    return {
        "kind": kind,
        "schema": SCHEMA_VERSION,
        "spherecast": version("spherecast"),
        "fingerprint": fingerprint,
        "inputs": inputs or {},
        **facts,
    }


def read_description(path: str | Path) -> dict[str, Any] | None:
    """Return the description of the artefact at `path`, or None where there is none or it cannot be read.

    At an address it is that of a complete artefact only.
    """
    if is_url(path):
        try:
            return json.loads(Objects(str(path)).read(DESCRIPTION_FILE) or b"")
        except (OSError, ValueError):
            return None
    path = Path(path)
    try:
        if path.is_dir():
            if (path / DESCRIPTION_FILE).is_file():
                return json.loads((path / DESCRIPTION_FILE).read_text())
            if (path / ".zattrs").is_file():
                return json.loads((path / ".zattrs").read_text())[ATTRIBUTE]
            return json.loads((path / "zarr.json").read_text())["attributes"][ATTRIBUTE]
        if path.suffix == ".json":
            return json.loads(path.read_text())[ATTRIBUTE]
        if path.suffix == ".nc":
            import netCDF4

            with netCDF4.Dataset(path) as dataset:
                return json.loads(dataset.getncattr(ATTRIBUTE))
        if path.suffix == ".html":
            with path.open(encoding="utf-8") as file:
                head = file.read(20_000)
            match = re.search(rf'<script type="application/json" id="{ATTRIBUTE}">(.*?)</script>', head, re.DOTALL)
            return json.loads(match.group(1)) if match else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return None


def unfinished(objects: Objects) -> dict[str, Any] | None:
    """Return the description of the zarr store among `objects`, complete or not, or None where there is none."""
    return _attributes_at(objects).get(ATTRIBUTE)


def write_description(directory: Path, description: dict[str, Any]) -> None:
    """Write the description of an artefact that is a plain directory."""
    (directory / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")


def working_path(path: str | Path) -> Path:
    """Return the sibling name under which the artefact at the local `path` is built."""
    path = Path(path)
    return path.with_name(f".partial-{path.name}")


@contextlib.contextmanager
def publishing(
    path: str | Path, *, keep_partial: bool = False, storage_options: dict[str, Any] | None = None
) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; give it the final name when the block ends without error.

    Anything already at `path` stays readable until then. A failed attempt's leftovers are removed at the next one, or
    kept for it to go on with when `keep_partial` is set. For an address the address itself is yielded, as text: what
    was there is gone or, with `keep_partial`, no longer complete, and ``_SUCCESS.json`` is written at the end.

    Args:
        storage_options: passed to fsspec for addresses.

    Raises:
        InputError: the folder cannot be written to.
    """
    if is_url(path):
        yield from _publishing_in_place(str(path), keep_partial, storage_options or {})  # type: ignore[misc]  # as text
        return
    path = Path(path)
    partial = working_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not keep_partial:
            _remove(partial)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}). Choose a folder you can write to.") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: cannot write there (read-only folder). Choose a folder you can write to.")
    yield partial
    if not partial.exists():
        raise RuntimeError(f"{path}: nothing was written to {partial}")
    retired = path.with_name(f".retired-{path.name}")
    _remove(retired)
    if path.exists():
        path.rename(retired)
    partial.rename(path)
    _remove(retired)


def refuse_other(path: str | Path, fingerprint: str, *, overwrite: bool) -> bool:
    """Return whether `path` already holds the artefact with this fingerprint, so that no work is needed.

    Raises:
        InputError: something else is there and `overwrite` is not set.
    """
    description = read_description(path)
    if is_url(path):
        if description is None:
            objects = Objects(str(path))
            description = unfinished(objects) or ({} if objects.find() else None)
            if description is None or description.get("fingerprint") == fingerprint:
                return False
    elif not Path(path).exists():
        return False
    if description is not None and description.get("fingerprint") == fingerprint:
        return True
    if overwrite:
        return False
    found = f"made from other settings or inputs ({description.get('fingerprint')})" if description else "not ours"
    raise InputError(
        f"{path}: exists and is {found}; expected {fingerprint}. Choose another path, or give --overwrite."
    )


def require(path: str | Path, kind: str, mend: str) -> dict[str, Any]:
    """Return the description of an artefact that a stage needs.

    Args:
        mend: what to do when it is missing, e.g. ``run `spherecast preprocess` first``.

    Raises:
        InputError: it is missing, of another kind, or of another schema version.
    """
    description = read_description(path)
    if description is None and (is_url(path) or not Path(path).exists()):
        raise InputError(f"{path}: the {kind} is missing{' or incomplete' if is_url(path) else ''}; {mend}.")
    if description is None:
        raise InputError(f"{path}: expected a {kind}, but it carries no description of itself; {mend}.")
    if description.get("kind") != kind:
        raise InputError(f"{path}: expected a {kind}, got a {description.get('kind')}; {mend}.")
    if description.get("schema") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: has schema version {description.get('schema')}, expected {SCHEMA_VERSION}; make it again."
        )
    return description


def source_fingerprint(path: str, storage_options: dict[str, Any] | None = None) -> str:
    """Return a hash that changes when the source does.

    A local file or store is told by names, sizes and modification times; a remote one by its metadata documents.

    Raises:
        InputError: nothing is at `path`.
    """
    if "://" not in path:
        root = Path(path)
        if not root.exists():
            raise InputError(f"source.path: nothing is at {path}. Give the path of a zarr, netCDF or GRIB source.")
        files = [root] if root.is_file() else sorted(entry for entry in root.rglob("*") if entry.is_file())
        return digest([(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in files])
    import fsspec

    mapper = fsspec.get_mapper(path, **(storage_options or {}))
    documents = {name: mapper[name].hex() for name in ("zarr.json", ".zmetadata", ".zattrs") if name in mapper}
    return digest([path, documents])


def store_identity(path: str | Path) -> Any:
    """Return what tells a store from others: what it says it was made from, or where it is and what its files are.

    Raises:
        InputError: nothing is at `path`.
    """
    made_from = None if is_url(path) else (read_description(path) or {}).get("fingerprint")
    return made_from or [str(path), source_fingerprint(str(path))]


def _publishing_in_place(url: str, keep_partial: bool, options: dict[str, Any]) -> Iterator[str]:
    objects = Objects(url, options)
    try:
        if keep_partial:
            objects.remove(DESCRIPTION_FILE)
        else:
            objects.remove()
    except Exception as error:
        # Remote file systems raise classes of their own (aiohttp, botocore, gcsfs), which need not be installed.
        raise InputError(
            f"{url}: cannot write there ({type(error).__name__}: {error}). Choose a place you can write to."
        ) from error
    yield url
    description = unfinished(objects)
    if description is None:
        raise RuntimeError(f"{url}: nothing with a description was written there")
    objects.write(DESCRIPTION_FILE, (json.dumps(description, indent=1) + "\n").encode())


def _attributes_at(objects: Objects) -> dict[str, Any]:
    try:
        plain = objects.read(".zattrs")
        return json.loads(plain) if plain else json.loads(objects.read("zarr.json") or b"{}").get("attributes", {})
    except ValueError:
        return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
