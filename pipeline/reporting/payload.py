"""All scores as data of the page: names as JSON, numbers as float32 in base64, which is smaller and more exact than text."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from pipeline.reporting.pairs import FEW_BLOCKS, Pair
from pipeline.reporting.scores import Scores
from transforms.metrics import METRICS

__all__ = ["decode", "scores_payload"]


def scores_payload(scores: Scores, pairs: list[Pair]) -> dict[str, Any]:
    """Return the scores for the page's script.

    Arrays are little-endian float32 in base64, NaN where there is no score. ``lines[i].values`` is (metric, region, field,
    lead), ``lines[i].lower`` and ``upper`` likewise or None; ``pairs[i].lower`` and ``upper`` are (region, field, lead of
    the scorecard); ``few`` and ``limited`` say why a cell of a pair has no interval where others have.
    """
    index = {name: i for i, name in enumerate(scores.names)}
    return {
        "leads": [float(lead) for lead in scores.leads],
        "cardLeads": scores.scorecard_leads(),
        "regions": scores.regions,
        "region": scores.regions.index(scores.region),
        "metrics": scores.metrics,
        "titles": [METRICS[name].title for name in scores.metrics],
        "dimensionless": [METRICS[name].dimensionless for name in scores.metrics],
        "fields": [
            {"id": f.identifier, "short": f.short, "label": f.label, "group": f.group, "units": f.units}
            for f in scores.fields
        ],
        "headline": [scores.fields.index(field) for field in scores.headline],
        "lines": [
            {
                "name": line.name,
                "kind": line.kind,
                "values": _encode(_stacked(scores, line.name)),
                **_ends(scores, line.name),
            }
            for line in scores.lines
        ],
        "few": FEW_BLOCKS,
        "limited": next((pair.limited for pair in pairs), ""),
        "pairs": [
            {"forecast": index[pair.forecast], "other": index[pair.other], "without": pair.without}
            | ({} if pair.without else {"lower": _encode(pair.lower), "upper": _encode(pair.upper)})
            for pair in pairs
        ],
    }


def decode(text: str, *shape: int) -> np.ndarray:
    """Return an array of the payload."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(shape)


def _stacked(scores: Scores, line: str) -> np.ndarray:
    """Return the scores of a line, shape (metric, region, field, lead)."""
    return np.stack([scores.values[line, field] for field in scores.fields], axis=2)


def _ends(scores: Scores, line: str) -> dict[str, str | None]:
    shape = (2, len(scores.metrics), len(scores.regions), len(scores.leads))
    if not any((line, field) in scores.bands for field in scores.fields):
        return {"lower": None, "upper": None}
    missing = np.full(shape, np.nan)
    bands = np.stack([scores.bands.get((line, field), missing) for field in scores.fields], axis=3)
    return {"lower": _encode(bands[0]), "upper": _encode(bands[1])}


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()
