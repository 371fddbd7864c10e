"""Which stage may start when: after those it needs, so many at once, and again after what passes by itself."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from dags.plan import Step

__all__ = ["Patience", "Schedule"]


@dataclass(frozen=True)
class Patience:
    """How often and after what time a stage that failed for a reason that passes is tried again.

    The wait before the second attempt is `pause` seconds, four times as long before each further one, and drawn evenly
    between half of that and the whole, so that runs which failed together do not come back together.

    Attributes:
        retries: attempts after the first.
    """

    retries: int = 2
    pause: float = 10.0

    def wait(self, attempt: int) -> float | None:
        """Return the seconds to wait after failed attempt number `attempt`, from 1; None where it was the last."""
        return None if attempt > self.retries else self.pause * 4 ** (attempt - 1) * random.uniform(0.5, 1.0)


class Schedule:
    """The stages that have to work, and where each stands."""

    def __init__(self, steps: Iterable[Step], jobs: int) -> None:
        """Take the steps that have to work, in running order.

        Args:
            jobs: most stages that work at once.
        """
        self._jobs = jobs
        self._waiting = {step.stage.name: step for step in steps}
        self._working: dict[str, Step] = {}
        self._not_before: dict[str, float] = {}
        self._alone: set[str] = set()

    @property
    def working(self) -> list[Step]:
        return list(self._working.values())

    @property
    def waiting(self) -> list[Step]:
        return list(self._waiting.values())

    def start_next(self, now: float) -> Step | None:
        """Return a stage that is to start now, which then counts as working; None where none can.

        Of the stages that compute on the accelerator only one works at a time.
        """
        if len(self._working) >= self._jobs or self._alone & self._working.keys():
            return None
        taken = any(step.stage.accelerator for step in self._working.values())
        open_stages = self._waiting.keys() | self._working.keys()
        for name, step in self._waiting.items():
            blocked = (
                open_stages & set(step.stage.upstream)
                or (step.stage.accelerator and taken)
                or now < self._not_before.get(name, now)
                or (name in self._alone and self._working)
            )
            if not blocked:
                self._working[name] = self._waiting.pop(name)
                return step
        return None

    def end(self, step: Step) -> None:
        """`step` has ended for good."""
        del self._working[step.stage.name]

    def put_back(self, step: Step, not_before: float, *, alone: bool) -> None:
        """`step` is to start again, not before a time and, where `alone` is set, beside nothing else."""
        name = step.stage.name
        del self._working[name]
        # First in line: what comes after it waits anyway.
        self._waiting = {name: step, **self._waiting}
        self._not_before[name] = not_before
        if alone:
            self._alone.add(name)
