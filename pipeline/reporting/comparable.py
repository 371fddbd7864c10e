"""What must be said before lines are compared: that they are scored on other data, periods or forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.reporting.lines import Line

__all__ = ["differences", "mixed_worlds"]

_SAID = (
    ("grid", "on different grids"),
    ("period", "over different periods"),
    ("initial_times", "from different numbers of forecasts"),
    ("skipna", "with different rules for missing values"),
)


def mixed_worlds(lines: Sequence[Line]) -> str | None:
    """Return the statement that stands above all else where a simulated atmosphere meets anything else."""
    of_truth = {kind: [line.name for line in lines if line.simulated is kind] for kind in (True, False, None)}
    if not of_truth[True] or not (of_truth[False] or of_truth[None]):
        return None
    parts = [f"{_names(of_truth[True])} {_is(of_truth[True])} scored against a simulated atmosphere"]
    if of_truth[False]:
        parts.append(f"{_names(of_truth[False])} against observed or analysed weather")
    if of_truth[None]:
        parts.append(f"{_names(of_truth[None])} {_does(of_truth[None])} not say against what")
    return f"Not comparable: {', '.join(parts)}. Numbers beside each other on this page do not rank them."


def differences(lines: Sequence[Line]) -> list[str]:
    """Return a sentence for each way in which forecasts and other results were scored unlike the first."""
    first, *others = [line for line in lines if line.kind != "baseline"]
    found = []
    truth = [line for line in others if _differ(_truth(first), _truth(line))]
    if truth:
        found.append(f"{_names([line.name for line in truth])}: scored against another truth than {first.name}.")
    for key, words in _SAID:
        unlike = [line for line in others if _differ(first.about.get(key), line.about.get(key))]
        if unlike:
            own = _value(first.about[key])
            rest = ", ".join(f"{line.name}: {_value(line.about[key])}" for line in unlike)
            found.append(f"Scored {words}: {first.name}: {own}; {rest}.")
    silent = [line.name for line in [first, *others] if not line.about]
    if others and silent:
        found.append(
            f"{_names(silent)}: the file does not say on which data, period and grid it was scored. "
            "Make sure yourself that they are the same."
        )
    return found


def _truth(line: Line) -> Any:
    return line.about.get("inputs", {}).get("regrid")


def _differ(one: Any, two: Any) -> bool:
    return one is not None and two is not None and one != two


def _value(value: Any) -> str:
    return " to ".join(str(part)[:10] for part in value) if isinstance(value, list) else str(value)


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _does(names: list[str]) -> str:
    return "does" if len(names) == 1 else "do"
