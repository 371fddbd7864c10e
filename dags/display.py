"""What a person sees while a run works: one live table on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from dags.plan import Step

__all__ = ["Clock", "Display", "LiveDisplay", "PlainDisplay", "as_bytes", "as_duration", "display_for", "plan_table"]

_PLAIN_INTERVAL = 15.0
_STYLES = {
    "running": "bold cyan",
    "waiting": "yellow",
    "done": "green",
    "failed": "bold red",
    "interrupted": "yellow",
    "pending": "dim",
    "skipped": "dim green",
}


class Clock:
    """How far one working stage is, from what it reports through `pipeline.jobs.progress`."""

    def __init__(self, stage: str) -> None:
        self.stage = self.task = stage
        self.started = self._task_started = time.monotonic()
        self._first = self._done = self._total = 0.0
        self.fraction: float | None = None
        self.note = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the stage started."""
        return time.monotonic() - self.started

    def event(self, event: dict[str, Any]) -> None:
        """The stage has got further."""
        done, total = event["done"], event["total"]
        if event["task"] != self.task or self.fraction is None:
            self.task, self._task_started, self._first = event["task"], time.monotonic(), done
        self.fraction = done / total if total > 0 else None
        self.note = event["note"]
        self._total, self._done = total, done

    def remaining(self) -> float | None:
        """Return the seconds left of the current task at its average pace, None while that is not known."""
        elapsed = time.monotonic() - self._task_started
        if not self.fraction or self._done <= self._first or elapsed < 1.0:
            return None
        return elapsed * (self._total - self._done) / (self._done - self._first)


class Display:
    """Follows the stages of one run; the base keeps the clocks and says nothing."""

    def __init__(self, console: Console, steps: list[Step], earlier: Mapping[str, float] | None = None) -> None:
        """Prepare to follow `steps`.

        Args:
            earlier: seconds that stages took before, by name.
        """
        self.console = console
        self.steps = steps
        self.clocks: dict[str, Clock] = {}
        self._earlier = dict(earlier or {})
        self._over = {step.stage.name for step in steps if not step.work}

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def begin(self, step: Step) -> None:
        """`step` starts to work."""
        self.clocks[step.stage.name] = Clock(step.stage.name)

    def event(self, step: Step, event: dict[str, Any]) -> None:
        """The stage of `step` has got further."""
        self.clocks[step.stage.name].event(event)

    def tick(self) -> None:
        """Time has passed."""

    def pause(self, step: Step, seconds: float, reason: str) -> None:
        """`step` has failed and will start again in so many seconds."""
        del self.clocks[step.stage.name]

    def end(self, step: Step, state: str, seconds: float, note: str = "") -> None:
        """`step` has ended in `state`."""
        del self.clocks[step.stage.name]
        self._over.add(step.stage.name)

    def expected(self, name: str) -> float | None:
        """Return the seconds that a waiting or working stage still needs, by its pace or by what it took before."""
        clock, before = self.clocks.get(name), self._earlier.get(name)
        if clock is None:
            return before
        paced = clock.remaining() if clock.task == name else None
        return paced if paced is not None or before is None else max(0.0, before - clock.elapsed)

    def remaining(self) -> float | None:
        """Return the seconds until all are done, where stages wait for nothing but each other; None when not known."""
        until: dict[str, float] = {}
        for step in self.steps:
            name = step.stage.name
            if name in self._over:
                continue
            needed = self.expected(name)
            if needed is None:
                return None
            until[name] = needed + max((until.get(up, 0.0) for up in step.stage.upstream), default=0.0)
        return max(until.values(), default=0.0)


class LiveDisplay(Display):
    """A table with one row a stage, drawn over and over."""

    def __init__(self, console: Console, steps: list[Step], earlier: Mapping[str, float] | None = None) -> None:
        super().__init__(console, steps, earlier)
        self._states = {step.stage.name: ("pending" if step.work else "skipped", 0.0, "") for step in steps}
        self._live = Live(console=console, refresh_per_second=5, get_renderable=self._table)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def begin(self, step: Step) -> None:
        super().begin(step)
        self._states[step.stage.name] = ("running", 0.0, "")

    def pause(self, step: Step, seconds: float, reason: str) -> None:
        super().pause(step, seconds, reason)
        again = time.monotonic() + seconds
        self._states[step.stage.name] = ("waiting", again, f"to start again: {reason.splitlines()[0]}")

    def end(self, step: Step, state: str, seconds: float, note: str = "") -> None:
        super().end(step, state, seconds, note)
        self._states[step.stage.name] = (state, seconds, note)
        self._live.refresh()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=False)
        # On a narrow terminal only the last column, the text, gives way.
        for heading, width in (("stage", 11), ("state", 11), ("", 24), ("time", 7), ("left", 7), ("", None)):
            justify: JustifyMethod = "right" if heading in ("time", "left") else "left"
            table.add_column(heading, justify=justify, no_wrap=True, min_width=width)
        for step in self.steps:
            name = step.stage.name
            state = self._states[name][0]
            shown = "up to date" if state == "skipped" else state
            table.add_row(name, f"[{_STYLES[state]}]{shown}[/]", *self._cells(step))
        left = self.remaining()
        if self.clocks and left is not None:
            done = datetime.now().astimezone() + timedelta(seconds=left)
            table.add_row("", "", "", "", as_duration(left), f"[dim]until all is done, at {done:%H:%M}[/]")
        return table

    def _cells(self, step: Step) -> tuple[Any, str, str, str]:
        """Return bar, time, time left and text of one row."""
        name = step.stage.name
        state, seconds, note = self._states[name]
        if state == "running":
            clock = self.clocks[name]
            pulse = clock.fraction is None
            bar = ProgressBar(total=1.0, completed=clock.fraction or 0.0, width=24, pulse=pulse)
            text = clock.note if clock.task == name else f"{clock.task}  {clock.note}"
            left = clock.remaining() if clock.remaining() is not None else self.expected(name)
            return bar, as_duration(clock.elapsed), as_duration(left), escape(text)
        if state == "waiting":
            return "", "", as_duration(max(0.0, seconds - time.monotonic())), f"[yellow]{escape(note)}[/]"
        if state in ("done", "failed", "interrupted"):
            full = ProgressBar(total=1.0, completed=1.0, width=24) if state == "done" else ""
            return full, as_duration(seconds), "", f"[dim]{escape(note)}[/]"
        if state == "pending":
            return "", "", as_duration(self.expected(name)), f"[dim]{step.stage.summary}[/]"
        return "", "", "", ""


class PlainDisplay(Display):
    """Lines for logs and pipes: each stage's start and end, and between them one line at most every 15 s."""

    def __init__(self, console: Console, steps: list[Step], earlier: Mapping[str, float] | None = None) -> None:
        super().__init__(console, steps, earlier)
        self._said: dict[str, float] = {}

    def begin(self, step: Step) -> None:
        super().begin(step)
        self._said[step.stage.name] = time.monotonic()
        self._say(f"{step.stage.name:<12} started: {step.stage.summary}")

    def tick(self) -> None:
        now = time.monotonic()
        for name, clock in self.clocks.items():
            if now - self._said[name] < _PLAIN_INTERVAL:
                continue
            self._said[name] = now
            parts = [f"{name:<12}" if clock.task == name else f"{name:<12} {clock.task}"]
            if clock.fraction is not None:
                parts.append(f"{100 * clock.fraction:3.0f} %")
            parts.append(f"after {as_duration(clock.elapsed)}")
            left = clock.remaining()
            if left is not None:
                parts.append(f"about {as_duration(left)} left")
            self._say("  ".join([*parts, clock.note] if clock.note else parts))

    def pause(self, step: Step, seconds: float, reason: str) -> None:
        super().pause(step, seconds, reason)
        self._say(f"{step.stage.name:<12} starts again in {as_duration(seconds)}: {reason.splitlines()[0]}")

    def end(self, step: Step, state: str, seconds: float, note: str = "") -> None:
        super().end(step, state, seconds, note)
        self._say(f"{step.stage.name:<12} {state} in {as_duration(seconds)}{f', {note}' if note else ''}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def display_for(console: Console, steps: list[Step], earlier: Mapping[str, float] | None = None) -> Display:
    """Return the display that suits where `console` writes to; `earlier` as for `Display`."""
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(console, steps, earlier)


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
