"""docs/configuration.md, written from the classes of `pipeline.config`: every key with type, default, bounds and meaning.

``python -m pipeline.config_reference > docs/configuration.md`` writes the page anew.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from pipeline.config import Config
from pipeline.config_data import Period, Section

__all__ = ["keys", "reference"]

_TOP = """\
# Configuration

Every key of a configuration, as `pipeline/config.py` and `pipeline/config_data.py` define it. This page is written by
`python -m pipeline.config_reference > docs/configuration.md`; change the descriptions there, not here.

A configuration is one YAML file with the sections below. Any value can be changed on the command line, `a.b=c`; the entry of
a list is named by its index, `training.stages.0.updates=500`. Unknown keys and values that do not fit are refused before any
work starts. `spherecast configs` lists the configurations that are shipped.
"""

_BOUNDS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}"}


def keys(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key below a section with its field; entries of lists of sections are called ``key[]``."""
    for name, field in section.model_fields.items():
        yield prefix + name, field
        inner, several = _section_in(field)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}{'[]' if several else ''}.")


def reference() -> str:
    """Return the page."""
    return _TOP + "".join(_part(Config, ""))


def _part(section: type[Section], path: str) -> Iterator[str]:
    nested = {name: _section_in(field) for name, field in section.model_fields.items()}
    if path:
        yield f"\n## {path}\n\n{_one_line(section.__doc__)}\n"
    rows = [
        _row(name, field) for name, field in section.model_fields.items() if nested[name][0] is None or nested[name][1]
    ]
    if rows:
        yield "\n| key | type | default | meaning |\n|---|---|---|---|\n"
        yield from rows
    for name, (inner, several) in nested.items():
        if inner is not None:
            yield from _part(inner, ".".join(filter(None, (path, name))) + ("[]" if several else ""))
            # Sections of one class differ in their defaults, which only the field that holds them knows.
            default = section.model_fields[name].default
            if isinstance(default, Section) and default != _bare(inner):
                yield f"\nBy default {_yaml(default.model_dump(mode='json', exclude_defaults=True))}.\n"


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name}`", _type(field.annotation, field.metadata), _default(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _section_in(field: FieldInfo) -> tuple[type[Section] | None, bool]:
    """Return the section that a field holds, if any, and whether it holds a list of them."""
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    for inner in get_args(annotation):
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner, True
    return None, False


def _bare(section: type[Section]) -> Section | None:
    """Return a section of defaults alone, None where it needs values."""
    needs = any(field.is_required() for field in section.model_fields.values())
    return None if needs else section()


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    bounds = ", ".join(filter(None, map(_bound, metadata)))
    return _plain_type(annotation) + (f", {bounds}" if bounds else "")


def _plain_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if annotation == get_args(Period)[0]:
        return "two dates"
    if origin is Annotated:
        return _type(arguments[0], list(arguments[1:]))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_plain_type(argument) for argument in arguments)
    if origin is list:
        return f"list of {_plain_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_plain_type(arguments[0])} to {_plain_type(arguments[1])}"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any value"}
    if annotation in words:
        return words[annotation]
    return "date" if issubclass(annotation, date) else "section"


def _bound(constraint: Any) -> str:
    found = [text.format(f"{getattr(constraint, key):g}") for key, text in _BOUNDS.items() if _has(constraint, key)]
    if _has(constraint, "min_length"):
        found.append("not empty")
    if _has(constraint, "pattern"):
        found.append(f"matches `{constraint.pattern}`")
    if _has(constraint, "metadata"):
        found += filter(None, map(_bound, constraint.metadata))
    return ", ".join(found)


def _has(constraint: Any, key: str) -> bool:
    return getattr(constraint, key, None) is not None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return _yaml(value.isoformat() if isinstance(value, date) else value)


def _yaml(value: Any) -> str:
    if value == "":
        return "empty"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return f"`{text.removesuffix('...').strip()}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
