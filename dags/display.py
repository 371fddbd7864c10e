"""What a person sees while a run works: one live table on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from dags.plan import Step

__all__ = ["Display", "LiveDisplay", "PlainDisplay", "as_bytes", "as_duration", "display_for", "plan_table"]

_PLAIN_INTERVAL = 15.0
_STYLES = {
    "running": "bold cyan",
    "done": "green",
    "failed": "bold red",
    "interrupted": "yellow",
    "pending": "dim",
    "skipped": "dim green",
}


class Display:
    """Follows the stages of one run; the base keeps the clock and says nothing.

    `event` takes what a stage reports through `pipeline.jobs.progress`.
    """

    def __init__(self, console: Console, steps: list[Step]) -> None:
        self.console = console
        self.steps = steps
        self.started = 0.0
        self.task = ""
        self.task_started = 0.0
        self.task_first = 0.0
        self.fraction: float | None = None
        self.note = ""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def begin(self, step: Step) -> None:
        """`step` starts to work."""
        self.started = self.task_started = time.monotonic()
        self.task, self.fraction, self.note, self.task_first = step.stage.name, None, "", 0.0

    def event(self, event: dict[str, Any]) -> None:
        """The running stage has got further."""
        done, total = event["done"], event["total"]
        if event["task"] != self.task or self.fraction is None:
            self.task, self.task_started, self.task_first = event["task"], time.monotonic(), done
        self.fraction = done / total if total > 0 else None
        self.note = event["note"]
        self._total, self._done = total, done

    def tick(self) -> None:
        """Time has passed."""

    def end(self, step: Step, state: str, seconds: float) -> None:
        """`step` has ended in `state`."""

    def remaining(self) -> float | None:
        """Return the seconds left of the current task at its average pace, None while that is not known."""
        elapsed = time.monotonic() - self.task_started
        if not self.fraction or self._done <= self.task_first or elapsed < 1.0:
            return None
        return elapsed * (self._total - self._done) / (self._done - self.task_first)


class LiveDisplay(Display):
    """A table with one row a stage, drawn over and over."""

    def __init__(self, console: Console, steps: list[Step]) -> None:
        super().__init__(console, steps)
        self._states = {step.stage.name: ("pending" if step.work else "skipped", 0.0) for step in steps}
        self._live = Live(console=console, refresh_per_second=5, get_renderable=self._table)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def begin(self, step: Step) -> None:
        super().begin(step)
        self._states[step.stage.name] = ("running", 0.0)

    def end(self, step: Step, state: str, seconds: float) -> None:
        self._states[step.stage.name] = (state, seconds)
        self._live.refresh()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=False)
        # On a narrow terminal only the last column, the text, gives way.
        for heading, width in (("stage", 11), ("state", 11), ("", 24), ("time", 7), ("left", 7), ("", None)):
            justify: JustifyMethod = "right" if heading in ("time", "left") else "left"
            table.add_column(heading, justify=justify, no_wrap=True, min_width=width)
        for step in self.steps:
            name = step.stage.name
            state, seconds = self._states[name]
            style = _STYLES[state]
            shown = "up to date" if state == "skipped" else state
            if state == "running":
                bar: Any = ProgressBar(total=1.0, completed=self.fraction or 0.0, width=24, pulse=self.fraction is None)
                left = self.remaining()
                text = self.note if self.task == name else f"{self.task}  {self.note}"
                cells = (bar, as_duration(time.monotonic() - self.started), as_duration(left), escape(text))
            elif state in ("done", "failed", "interrupted"):
                full = ProgressBar(total=1.0, completed=1.0, width=24)
                cells = (full if state == "done" else "", as_duration(seconds), "", "")
            else:
                cells = ("", "", "", f"[dim]{step.stage.summary}[/]" if state == "pending" else "")
            table.add_row(name, f"[{style}]{shown}[/]", *cells)
        return table


class PlainDisplay(Display):
    """Lines for logs and pipes: each stage's start and end, and between them one line at most every 15 s."""

    def __init__(self, console: Console, steps: list[Step]) -> None:
        super().__init__(console, steps)
        self._last_line = 0.0

    def begin(self, step: Step) -> None:
        super().begin(step)
        self._last_line = self.started
        self._say(f"{step.stage.name:<12} started: {step.stage.summary}")

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._last_line < _PLAIN_INTERVAL:
            return
        self._last_line = now
        parts = [f"{self.task:<12}"]
        if self.fraction is not None:
            parts.append(f"{100 * self.fraction:3.0f} %")
        parts.append(f"after {as_duration(now - self.started)}")
        left = self.remaining()
        if left is not None:
            parts.append(f"about {as_duration(left)} left")
        self._say("  ".join([*parts, self.note] if self.note else parts))

    def end(self, step: Step, state: str, seconds: float) -> None:
        self._say(f"{step.stage.name:<12} {state} in {as_duration(seconds)}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def display_for(console: Console, steps: list[Step]) -> Display:
    """Return the display that suits where `console` writes to."""
    return LiveDisplay(console, steps) if console.is_terminal else PlainDisplay(console, steps)


def plan_table(steps: list[Step]) -> Table:
    """Return a table of what would be done about each stage, and why."""
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "would", "why"):
        table.add_column(heading)
    for step in steps:
        table.add_row(step.stage.name, "[bold cyan]run[/]" if step.work else "[dim]skip[/]", escape(step.why))
    return table


def as_duration(seconds: float | None) -> str:
    """Return e.g. ``3.1 s``, ``1:02`` or ``2:03:04``; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def as_bytes(size: float) -> str:
    """Return e.g. ``12.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
