"""What every stage of a configuration must be made from: one fingerprint per stage.

A fingerprint hashes the sections of the configuration that the stage reads, the fingerprints of what it runs after and,
where the data is given rather than simulated, what the source holds. The pieces are kept apart until the end so that a
plan can say which of them changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dags.stages import STAGES, Stage, order
from pipeline.artefacts import SCHEMA_VERSION, digest, source_fingerprint
from pipeline.config import Config
from pipeline.config_data import SourceConfig
from pipeline.redaction import redact
from transforms.errors import InputError

__all__ = ["Expectation", "expectations", "graph", "source_contents"]

SOURCE_CONTENTS = "what source.path holds"
_SIMULATE = "simulate"
_SOURCE_READERS = ("validate", "regrid")
_HOW = {
    # How a source is reached (tokens, endpoints) is not what it holds, and credentials belong in no record.
    "source": ("storage_options",),
    # Over which devices a training is split, and what it keeps, is not what it computes: it goes on when these change.
    "training": (
        *("sphere", "accumulate", "keep_checkpoints", "keep_every", "keep_best", "validation_forecasts"),
        *("rollback_after", "rollback_limit", "skip_limit"),
    ),
}
"""Keys that change no result, by section."""


@dataclass(frozen=True)
class Expectation:
    """What one stage's artefacts must be made from.

    Attributes:
        parts: hash of each thing that determines the result, by what a person calls it.
        inputs: fingerprints of the upstream stages it reads, by name.
        fingerprint: hash of all of it, which the artefacts carry.
    """

    parts: dict[str, str]
    inputs: dict[str, str]
    fingerprint: str


def graph(config: Config, stages: dict[str, Stage] = STAGES) -> dict[str, Stage]:
    """Return the stages of this configuration in running order; data that is given needs no ``simulate``."""
    left_out = {_SIMULATE} if config.source.kind == "store" else set()
    return {
        name: replace(stages[name], upstream=tuple(up for up in stages[name].upstream if up not in left_out))
        for name in order(stages)
        if name not in left_out
    }


def expectations(config: Config, contents: str | None, stages: dict[str, Stage] = STAGES) -> dict[str, Expectation]:
    """Return what each stage of `config` must be made from, in running order.

    Args:
        contents: fingerprint of the data at ``source.path`` (see `source_contents`), None for a source of another kind.
    """
    values = config.model_dump(mode="json")
    for section, keys in _HOW.items():
        for key in keys:
            values[section].pop(key)
    found: dict[str, Expectation] = {}
    for name, stage in graph(config, stages).items():
        inputs = {up: found[up].fingerprint for up in stage.upstream if up not in stage.gates}
        parts = {key: digest(_value(values, key)) for key in stage.reads}
        if contents is not None and name in _SOURCE_READERS:
            parts[SOURCE_CONTENTS] = contents
        found[name] = Expectation(parts, inputs, digest([name, SCHEMA_VERSION, parts, inputs]))
    return found


def source_contents(source: SourceConfig) -> str | None:
    """Return a fingerprint of the data at ``source.path``, or None where the data is made by the run itself.

    Raises:
        InputError: the path is not set, nothing is there, or it cannot be reached.
    """
    if source.kind != "store":
        return None
    if source.path is None:
        raise InputError(
            "source.path: not set. Say where the raw data is, e.g. source.path=/data/era5.zarr on the command line."
        )
    path, options = source.access()
    try:
        return source_fingerprint(str(path), options)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"source.path: {redact(source.path)} needs a package that is not installed ({error}). "
            "For gs:// addresses install spherecast[gcs]."
        ) from error
    except Exception as error:  # Every file system raises its own kinds; all mean the same to the user.
        raise InputError(
            f"source.path: {redact(source.path)} cannot be read ({type(error).__name__}: {redact(str(error))}). "
            "Check the address, the network and source.storage_options."
        ) from error


def _value(values: dict[str, Any], key: str) -> Any:
    node: Any = values
    for part in key.split("."):
        node = node[part]
    return node
