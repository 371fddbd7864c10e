"""What has been scored so far: averages by system, field and statistic, and paired sums by block of initial times.

Tallies of parts of a scoring add up to that of the whole, in any order, and can be kept in a file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transforms.averaging import RunningMean

__all__ = ["Average", "Pair", "Tally"]


class Average(NamedTuple):
    """What an average is of: leads from `lead` on; of one initial time, or of a block of them, or, where both are -1, of all."""

    system: str
    field: str
    statistic: str
    lead: int
    time: int = -1
    block: int = -1


class Pair(NamedTuple):
    """What paired sums are of: a system's score and its baseline's, for leads from `lead` on, over a block."""

    system: str
    baseline: str
    field: str
    statistic: str
    lead: int
    block: int


@dataclass
class Tally:
    """Sums of a part of a scoring.

    Attributes:
        averages: over forecasts, values (region, lead, ...) or (1, lead, [level], latitude, longitude, ...).
        pairs: sums of a score and of its baseline's, (2, region, lead, ...).
    """

    averages: dict[Average, RunningMean] = field(default_factory=dict)
    pairs: dict[Pair, np.ndarray] = field(default_factory=dict)

    def average(self, key: Average, values: RunningMean) -> None:
        """Take in values of an average."""
        if key in self.averages:
            self.averages[key].add(values)
        else:
            self.averages[key] = values

    def pair(self, key: Pair, sums: np.ndarray) -> None:
        """Take in sums of a pair."""
        self.pairs[key] = self.pairs[key] + sums if key in self.pairs else sums

    def add(self, other: Tally) -> None:
        """Take in another part of the scoring."""
        for key, values in other.averages.items():
            self.average(key, values)
        for pair, sums in other.pairs.items():
            self.pair(pair, sums)

    def over_leads(self) -> dict[tuple[str, str, str, int], RunningMean]:
        """Return the averages over all leads, by (system, field, statistic, initial time or -1); those of blocks apart."""
        parts: dict[tuple[str, str, str, int], list[RunningMean]] = {}
        for key in sorted((key for key in self.averages if key.block < 0), key=lambda key: key.lead):
            parts.setdefault((*key[:3], key.time), []).append(self.averages[key])
        return {key: _joined(found) for key, found in parts.items()}

    def blocks_over_leads(self) -> dict[tuple[str, str, str], RunningMean]:
        """Return sums and counts of blocks, each (block, region, lead, ...), by (system, field, statistic)."""
        parts: dict[tuple[str, str, str], dict[int, list[RunningMean]]] = {}
        kept = (key for key in self.averages if key.block >= 0)
        for key in sorted(kept, key=lambda key: (key.block, key.lead)):
            parts.setdefault(key[:3], {}).setdefault(key.block, []).append(self.averages[key])
        found = {key: [_joined(leads) for leads in blocks.values()] for key, blocks in parts.items()}
        return {
            key: RunningMean(np.stack([each.total for each in blocks]), np.stack([each.count for each in blocks]))
            for key, blocks in found.items()
        }

    def pairs_over_leads(self) -> dict[tuple[str, str, str, str], np.ndarray]:
        """Return the paired sums, (block, 2, region, lead, ...), by (system, baseline, field, statistic)."""
        parts: dict[tuple[str, str, str, str], dict[int, list[np.ndarray]]] = {}
        for key in sorted(self.pairs, key=lambda key: (key.block, key.lead)):
            parts.setdefault(key[:4], {}).setdefault(key.block, []).append(self.pairs[key])
        return {
            key: np.stack([np.concatenate(leads, axis=2) for leads in blocks.values()]) for key, blocks in parts.items()
        }

    def save(self, path: Path) -> None:
        """Write the tally to a file that `load` reads, all at once."""
        arrays: dict[str, Any] = {"averages": np.array([json.dumps(key) for key in self.averages], dtype=np.str_)}
        arrays["pairs"] = np.array([json.dumps(key) for key in self.pairs], dtype=np.str_)
        for i, values in enumerate(self.averages.values()):
            arrays |= {f"total{i}": values.total, f"count{i}": values.count}
        arrays |= {f"pair{i}": sums for i, sums in enumerate(self.pairs.values())}
        working = path.with_name(f".{path.name}")
        with working.open("wb") as file:
            np.savez(file, **arrays)
        working.rename(path)

    @classmethod
    def load(cls, path: Path) -> Tally:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            averages = {
                Average(*json.loads(str(key))): RunningMean(arrays[f"total{i}"], arrays[f"count{i}"])
                for i, key in enumerate(arrays["averages"])
            }
            pairs = {Pair(*json.loads(str(key))): arrays[f"pair{i}"] for i, key in enumerate(arrays["pairs"])}
        return cls(averages, pairs)


def _joined(parts: list[RunningMean]) -> RunningMean:
    """Join averages along their leads."""
    return RunningMean(
        *(np.concatenate([getattr(each, name) for each in parts], axis=1) for name in ("total", "count"))
    )
