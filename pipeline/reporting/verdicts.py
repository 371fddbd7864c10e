"""The result in a few sentences: of one forecast, and of several beside each other."""

from __future__ import annotations

import numpy as np

from pipeline.reporting.fields import Field, duration
from pipeline.reporting.scores import BASELINES, Scores

__all__ = ["USEFUL_ACC", "ranking", "verdict"]

USEFUL_ACC = 0.6
"""Anomaly correlation above which a forecast is called useful (Hollingsworth et al. 1980)."""


def verdict(scores: Scores, forecast: str | None = None) -> list[str]:
    """Return the result of a forecast, the first's by default, in a few sentences, for the headline fields.

    The first is about persistence and anomaly correlation, the second about climatology, where they can be judged.
    """
    forecast = forecast or scores.forecasts[0]
    persistence, *others = (_against(scores, forecast, baseline) for baseline in BASELINES)
    of_acc = (field for field in scores.headline if np.isfinite(scores.curve(forecast, "acc", field)).any())
    field = next(of_acc, None)
    useful = _useful(scores, field, scores.curve(forecast, "acc", field)) if field else None
    first = "; ".join(filter(None, (persistence, useful)))
    sentences = [f"{sentence}." for sentence in (first, *others) if sentence]
    return sentences or ["No score could be compared with a baseline."]


def ranking(scores: Scores) -> str:
    """Return which of several forecasts has the least RMSE how often, over headline fields and leads of the scorecard."""
    leads = scores.scorecard_leads()
    errors = np.array(
        [[scores.curve(name, "rmse", field)[leads] for field in scores.headline] for name in scores.forecasts]
    )
    judged = np.isfinite(errors).all(axis=0)
    if not judged.any():
        return "No score is shared by all forecasts, so none can be called the best."
    least = np.argmin(np.where(judged, errors, 0), axis=0)[judged]
    wins = np.bincount(least, minlength=len(errors))
    order = np.argsort(-wins, kind="stable")
    best, second = order[0], order[1]
    text = (
        f"{scores.forecasts[best]} has the least RMSE in {wins[best]} of {judged.sum()} cells of fields and lead times"
    )
    return f"{text}, {scores.forecasts[second]} in {wins[second]}." if wins[second] else f"{text}."


def _against(scores: Scores, forecast: str, baseline: str) -> str | None:
    reach = {}
    for field in scores.headline:
        other = scores.curve(baseline, "rmse", field)
        judged = (scores.leads > 0) & np.isfinite(other) & (other > 0)
        if judged.any():
            # A lead at which only the model has no score (a forecast that blew up) counts against it.
            reach[field] = _reach(scores.leads[judged], scores.ratio(field, baseline, forecast)[judged] < 1)
            last = scores.leads[judged][-1]
    if not reach:
        return None
    everywhere = [field for field, (_, complete) in reach.items() if complete]
    fields = f"in all {len(reach)} headline fields" if len(reach) > 1 else f"for the {next(iter(reach)).label}"
    if len(everywhere) == len(reach):
        return f"Beats {baseline} at every lead to {duration(last)} {fields}"
    first, *others = {hours for hours, _ in reach.values()}
    if first and not others:
        return f"Beats {baseline} to {duration(first)}, but not at every lead to {duration(last)}, {fields}"
    rest = [
        f"{field.short} {f'to {duration(hours)}' if hours else 'at no lead from the first on'}"
        for field, (hours, complete) in reach.items()
        if not complete
    ]
    if everywhere:
        return (
            f"Beats {baseline} at every lead to {duration(last)} in {len(everywhere)} of {len(reach)} headline fields; "
            f"in the others: {', '.join(rest)}"
        )
    if not any(hours for hours, _ in reach.values()):
        return f"Does not beat {baseline} at the first lead in any headline field"
    return f"Beats {baseline} for a while only: {', '.join(rest)}"


def _useful(scores: Scores, field: Field, acc: np.ndarray) -> str:
    judged = (scores.leads > 0) & np.isfinite(acc)
    leads, acc = scores.leads[judged], acc[judged]
    hours, complete = _reach(leads, acc > USEFUL_ACC)
    if not hours:
        return f"{field.short} has no useful skill (ACC above {USEFUL_ACC:g}) at the first lead"
    if complete:
        return f"{field.short} is useful (ACC above {USEFUL_ACC:g}) to {duration(hours)}, the longest lead scored"
    # Between the last useful lead and the next the correlation is taken to fall evenly.
    after = int(np.searchsorted(leads, hours)) + 1
    fall = (acc[after - 1] - USEFUL_ACC) / (acc[after - 1] - acc[after])
    hours += fall * (leads[after] - hours)
    shown = round(hours) if hours < 24 else 24 * round(hours / 24, 1)
    return f"{field.short} is useful (ACC above {USEFUL_ACC:g}) to {duration(shown)}"


def _reach(leads: np.ndarray, good: np.ndarray) -> tuple[float, bool]:
    """Return the last lead up to which all is good (0 for none), and whether that is the last lead."""
    count = len(good) if good.all() else int(np.argmin(good))
    return (float(leads[count - 1]) if count else 0.0), count == len(good)
