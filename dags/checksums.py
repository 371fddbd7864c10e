"""Checksums of artefacts, and what tells at little cost that one has changed; `dags.damage` compares them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipeline.artefacts import DESCRIPTION_FILE, digest

__all__ = ["METADATA", "checksums", "is_zarr", "stamp"]

_BLOCK = 1 << 20
METADATA = "metadata"
"""Name under which the metadata documents of a zarr store count together."""
_ARRAYS = ("zarr.json", ".zarray")
_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def checksums(artefact: Path) -> dict[str, str]:
    """Return SHA-256 sums of an artefact: of a file, or of each entry of a folder with all that is below it.

    Of a zarr store the metadata documents count together, and each array whose objects hold no checksums of their own,
    as those that training and forecasts read do: reading a large store takes long.
    """
    if artefact.is_file():
        return {artefact.name: _sum_of([artefact], artefact.parent)}
    if is_zarr(artefact):
        documents = sorted(path for path in artefact.rglob("*") if path.name in _DOCUMENTS)
        bare = {path.parent for path in documents if path.name in _ARRAYS and not _checks_itself(path)} - {artefact}
        sums = {str(path.relative_to(artefact)): _sum_of(sorted(path.rglob("*")), artefact) for path in sorted(bare)}
        return {METADATA: _sum_of(documents, artefact), **sums}
    return {
        entry.name: _sum_of([entry] if entry.is_file() else sorted(entry.rglob("*")), artefact)
        for entry in sorted(artefact.iterdir())
    }


def stamp(artefact: Path) -> str:
    """Return a hash of the names, sizes and times of change of all files of an artefact, none of which is read."""
    files = [artefact] if artefact.is_file() else sorted(path for path in artefact.rglob("*") if path.is_file())
    facts = [(str(path.relative_to(artefact)), path.stat()) for path in files]
    return digest([(name, about.st_size, about.st_mtime_ns) for name, about in facts])


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr store."""
    return not (folder / DESCRIPTION_FILE).is_file() and any((folder / name).is_file() for name in _DOCUMENTS)


def _checks_itself(document: Path) -> bool:
    """Whether the array that a metadata document describes has a codec that adds a checksum to all its values."""
    try:
        metadata = json.loads(document.read_text())
        codecs = metadata.get("codecs") or [{"name": "", "configuration": metadata["compressor"]}]
        if codecs[0].get("name") == "sharding_indexed":  # Its index has a checksum in any case.
            codecs = codecs[0]["configuration"]["codecs"]
        return any(codec["name"] == "crc32c" or codec.get("configuration", {}).get("checksum") for codec in codecs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sum_of(paths: list[Path], root: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        if path.is_file():
            total.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    total.update(block)
    return total.hexdigest()
