"""Configurations as files: those shipped, the user's own or a run's, with ``a.b=c`` overrides, checked key by key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import Config
from pipeline.redaction import redact, remember
from transforms.errors import InputError

__all__ = ["apply_override", "list_configs", "load_config", "names_run", "parse_config"]


def list_configs() -> dict[str, str]:
    """Return the shipped configurations: name and its one-line description."""
    folder = resources.files("pipeline") / "configs"
    return {name: yaml.safe_load((folder / f"{name}.yaml").read_text())["description"] for name in _shipped()}


def _shipped() -> list[str]:
    """Return the names of the shipped configurations; reading them all would take longer than all else at the start."""
    folder = resources.files("pipeline") / "configs"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def names_run(config: str | Path) -> bool:
    """Whether `config` means a run directory; the bare name of a shipped configuration means that configuration."""
    return (Path(config) / "config.yaml").is_file() and str(config) not in _shipped()


def load_config(config: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration and apply overrides.

    Args:
        config: name of a shipped configuration, path of a YAML file, or a run directory (its ``config.yaml`` is read).
        overrides: ``a.b=value`` strings; values are YAML, list entries are addressed by their index.

    Raises:
        InputError: no such configuration, or a key or value that does not fit; every fault is listed.
    """
    path = Path(config)
    if names_run(config):
        text, origin = (path / "config.yaml").read_text(), str(path / "config.yaml")
    elif path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise InputError(f"configuration {str(config)!r}: no such file.")
        text, origin = path.read_text(), str(path)
    else:
        shipped = _shipped()
        if str(config) not in shipped:
            close = difflib.get_close_matches(str(config), shipped, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(
                f"configuration {str(config)!r}: neither a YAML file, a run directory nor a shipped configuration "
                f"({', '.join(shipped)}).{hint}"
            )
        text, origin = (resources.files("pipeline") / "configs" / f"{config}.yaml").read_text(), str(config)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{origin}: expected a mapping of sections, got {type(values).__name__}.")
    return parse_config(values, origin, overrides)


def parse_config(values: dict[str, Any], origin: str, overrides: Iterable[str] = ()) -> Config:
    """Validate `values` after applying overrides (see `load_config`) to them, naming `origin` in errors.

    Raises:
        InputError: one line for every fault, with the key, what was got and what was expected.
    """
    for override in overrides:
        apply_override(values, override)
    try:
        config = Config.model_validate(values)
        remember(config.source.storage_options)
        return config
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise InputError(f"configuration {origin}:\n{faults}") from error


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value of an unchecked configuration; see `load_config`.

    Raises:
        InputError: the override is not of the form ``a.b=value``, or runs through something that is not a section.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"override {override!r}: expected section.key=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}: the value is not valid YAML.") from error
    node: Any = values
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[_index(node, part, override)]
            continue
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict | list):
            raise InputError(f"override {override!r}: {part} is a value, not a section.")
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _index(node: list, part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise InputError(f"override {override!r}: {part} is not an index of a list of {len(node)}.")
    return int(part)


def _explain(fault: Mapping[str, Any]) -> str:
    location = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        for part in fault["loc"][:-1]:
            section = _field_type(section, part)
        fields = list(getattr(section, "model_fields", {}))
        close = difflib.get_close_matches(str(fault["loc"][-1]), fields, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(fields)}."
        return f"{location}: unknown key. {hint}"
    if fault["type"] == "missing":
        return f"{location}: missing, and it has no default."
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{location}: {message}" if location else message
    if location.startswith("source.storage_options"):  # What was got may be a credential.
        return f"{location}: {message}."
    return f"{location}: {message}, got {redact(repr(fault['input']))}."


def _field_type(section: Any, part: Any) -> Any:
    if isinstance(part, int):
        return section
    annotation = section.model_fields[part].annotation if hasattr(section, "model_fields") else None
    arguments = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
    return arguments[0] if arguments else annotation
