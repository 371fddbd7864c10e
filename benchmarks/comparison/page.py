"""The page of skill: tables and curves of all results that there are, by budget."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.lines import ABLATIONS, LEADS, LINES, OURS

__all__ = ["write_page"]

_TITLES = {"geopotential@500": "Z500", "temperature@850": "T850", "wind_vector@850": "850 hPa wind"}
_COLUMNS = (
    (24, "persistence", "1 day"),
    (72, "climatology", "3 days"),
    (120, "climatology", "5 days"),
    (240, "climatology", "10 days"),
)
_INTRODUCTION = """# Forecast skill on a simulated atmosphere

Everything on this page is measured on simulated data: six years of SPEEDY at T31 (`benchmarks/comparison/t31.yaml`), 6 variables on 5
levels of a 49 x 96 grid, trained on 2001 to 2005, tested on 61 initial times of the year after. Scores of simulated data say
which network learns more; they are not to be set beside scores of ERA5, whose published figures [recipes.md](recipes.md) lists.

All lines see the same windows through the same loader, with the same normalisation, loss, schedule (warm-up and cosine, four fifths
of the budget for single steps, the rest for rollouts of 8, at a third of the rate for the network of this project and at a quarter
for rivals), gradient clipping and average of parameters, and train for the same CPU seconds, each on one core. Of the fields in the
loss humidity has three tenths of the others' weight. Settings of learning rate, batch and width are chosen by trials a quarter as
long, judged on a month between training and test; a table says how many each line had, and 0 means that none was as long: the setting
is the first, or the best of shorter trials. What is not in a setting (filters of 16 knots, rollouts of 8 and their rate, humidity's
weight) shorter experiments with this project's network favoured. Compilation is not in the budget of those that compile. A rival's
network is its authors' code where a package has it. What CPU seconds buy depends on the processor, so the tables hold the updates.
Sections of a third of the speed are of another one, on its own weather: there LSNO and the spherical transformer were trained, and
this project's network once more. An update of either takes some 15 times as long as one of this project's network, so that a budget
buys them few. Of a wind as a vector WeatherBench 2 defines no ACC. Tables are of the mean over seeds, and are made by

    python benchmarks/skill.py --runs-dir runs --minutes MINUTES --seeds SEEDS --trials TRIALS --lines LINES
    python benchmarks/skill.py --page docs/skill.md

The first makes the data (half an hour), then each training that `benchmarks/comparison/results` does not hold; with `--results` of an empty
folder all of them. A folder within, such as `--results benchmarks/comparison/results/a-third-of-the-speed`, is for another processor, and
has sections of its own. The number of updates that a budget buys is measured once and written down (`costs/`), so that a repeated training gives
the same forecasts bit for bit on the same machine: `digest` in its result tells. Another processor rounds differently, and in six years
that makes other weather of the same climate: where lines of a table were tested on different weather, letters tell, and differences of a
few parts in a hundred between them say nothing.

Data rotated about the pole would be no augmentation here: the network commutes with such rotations, so statics and forcings turned along
with the states give the same loss and the same gradient to rounding (`pytest tests/model/test_network.py -k rotation`); turned without
them, mountains stand where they do not belong.
"""

_AFTER = """## Sixty days

`python benchmarks/long_rollout.py --checkpoints CHECKPOINTS --store TRAINING_STORE`, with the checkpoints that training leaves in
`skill-work/`: forecasts of 60 days from 17 dates of 2006 by a network of 20 CPU minutes (the first seed above). None runs away.
Over windows of ten days, power by degree (in three bands) and the zonal mean (its error relative to the zonal mean's own spread)
depart from the truth's by at most this, and first by more than 10 % after so many days. Beyond two weeks a forecast is another draw of
the same climate, and so is the truth of the year before, whose departure stands beside:

| field | power by degree | of the year before | zonal mean | of the year before |
|---|---|---|---|---|
| Z500 | 9 % | 5 % | 9 % | 4 % |
| T850 | 15 %, after 40 days | 5 % | 8 % | 1 % |
| zonal wind at 250 hPa | 14 %, after 40 days | 6 % | 22 %, after 20 days | 10 % |
"""


def write_page(results: Path, target: Path) -> None:
    """Write the page and its figure, ``images/skill.svg`` beside it.

    Args:
        results: folder of what was done on one processor; a folder in it, other than ``costs``, is of another processor,
            which headings call by the folder's name.
        target: the page.
    """
    others = sorted(path for path in results.iterdir() if path.is_dir() and path.name != "costs")
    processors = {"": _read(results), **{f", {path.name.replace('-', ' ')}": _read(path) for path in others}}
    parts = [_INTRODUCTION, *(part for name, done in processors.items() for part in _sections(name, done)), _AFTER]
    figure = target.parent / "images" / "skill.svg"
    # Without matplotlib the figure that is there stays.
    if _draw(processors, figure) or figure.is_file():
        parts.append(f"![RMSE over climatology's against lead, by network](images/{figure.name})\n")
    target.write_text("\n".join(parts))


def _read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _tests(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in done if result["period"] == "test"]


def _sections(processor: str, done: Sequence[dict[str, Any]]) -> list[str]:
    """Return the sections of one processor: of each budget, networks and ablations."""
    tests = _tests(done)
    parts = []
    for minutes in sorted({result["minutes"] for result in tests}, reverse=True):
        own = [result for result in tests if result["minutes"] == minutes]
        parts.append(f"## {minutes:g} CPU minutes{processor}\n")
        for title, lines in (("Networks", LINES), ("Ablations", ABLATIONS)):
            groups = {name: [result for result in own if result["line"] == name] for name in lines}
            groups = {name: group for name, group in groups.items() if group}
            if not groups:
                continue
            if title == "Ablations" and (ours := [result for result in own if result["line"] == OURS]):
                groups = {OURS: ours, **groups}
            # A trial is a quarter as long as what it was for.
            tried = [result for result in done if result["period"] == "validation" and 4 * result["minutes"] == minutes]
            trials = Counter(result["line"] for result in tried)
            parts += [f"### {title}\n", _skill(groups), _cost(groups, trials)]
            if title == "Networks":
                parts += [_correlation(groups), *_gain(groups)]
    return parts


def _mean(group: Sequence[dict[str, Any]], system: str, metric: str, field: str, lead: int) -> float:
    values = [result["scores"][system][metric][field][LEADS.index(lead)] for result in group]
    return float("nan") if None in values else sum(values) / len(values)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _heads() -> list[str]:
    return ["", *(f"{label}, of {baseline}" for _, baseline, label in _COLUMNS)]


def _ratios(group: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Return RMSE over a baseline's, for each of the columns and of the fields."""
    return [
        [_mean(group, "model", "rmse", field, lead) / _mean(group, baseline, "rmse", field, lead) for field in _TITLES]
        for lead, baseline, _ in _COLUMNS
    ]


def _cell(ratios: Sequence[float]) -> str:
    return " / ".join("-" if math.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios)


def _skill(groups: dict[str, list[dict[str, Any]]]) -> str:
    fields = " / ".join(_TITLES.values())
    head = ["", "seeds", *_heads()[1:]]
    rows = []
    simulations = list(dict.fromkeys(_simulation(group) for group in groups.values()))
    for group in groups.values():
        rows.append([group[0]["title"], str(len(group)), *map(_cell, _ratios(group))])
        if len(simulations) > 1:
            rows[-1].append("ABCDEFGH"[simulations.index(_simulation(group))])
    if len(simulations) > 1:
        head.append("simulation")
    return f"RMSE of {fields} over a baseline's:\n\n" + _table(head, rows)


def _simulation(group: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """Return what tells the weather that a group was tested on: rounding makes another of it on another processor."""
    return tuple(sorted({result["scores"]["persistence"]["rmse"]["geopotential@500"][0] for result in group}))


def _gain(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a table of errors at the end of single steps, and of what the rollouts after that take off."""
    rows = []
    for group in groups.values():
        if not all("scores_before_rollouts" in result for result in group):
            continue
        before = [{**result, "scores": result["scores_before_rollouts"]} for result in group]
        earlier, later = _ratios(before), _ratios(group)
        gains = [[1 - b / a for a, b in zip(*pair, strict=True)] for pair in zip(earlier, later, strict=True)]
        rows.append([f"{group[0]['title']}, single steps alone", *(_cell(ratios) for ratios in earlier)])
        rows.append(["taken off by rollouts", *(" / ".join(f"{gain:.1%}" for gain in row) for row in gains)])
    if not rows:
        return []
    return ["What rollouts add, at one and the same training's end of single steps:\n", _table(_heads(), rows)]


def _correlation(groups: dict[str, list[dict[str, Any]]]) -> str:
    head = ["ACC of Z500 / T850", *(f"{lead // 24} days" if lead > 24 else f"{lead} h" for lead in LEADS)]
    rows = []
    for group in groups.values():
        cells = []
        for lead in LEADS:
            # WeatherBench 2 defines none for a wind as a vector.
            values = [_mean(group, "model", "acc", field, lead) for field in list(_TITLES)[:2]]
            cells.append(" / ".join("-" if math.isnan(value) else f"{value:.3f}" for value in values))
        rows.append([group[0]["title"], *cells])
    return _table(head, rows)


def _cost(groups: dict[str, list[dict[str, Any]]], trials: Mapping[str, int]) -> str:
    head = [
        "",
        "trials",
        "setting",
        "updates",
        "training and compiling, CPU s",
        "samples a CPU s",
        "parameters",
        "memory",
        "small scales, 5 days",
    ]
    rows = []
    for group in groups.values():
        first, count = group[0], len(group)
        chosen = first["chosen"]
        seconds = sum(result["train_cpu_seconds"] for result in group) / count
        power = [result["power_ratio"]["geopotential@500"][1] for result in group if "power_ratio" in result]
        small = [sum(row[20:31]) / 11 for row in power]
        rows.append(
            [
                first["title"],
                str(trials.get(OURS if first["line"] in ABLATIONS else first["line"], 0)),
                f"rate {chosen['learning_rate']:g}, batch {chosen['batch']}, width {chosen['width']}",
                " + ".join(f"{updates} of {steps} steps" for steps, updates in first["updates"].items()),
                f"{seconds:.0f}",
                f"{first['samples_per_cpu_second']:.1f}",
                f"{first['parameters'] / 1e6:.2f} M",
                f"{max(result['memory_gb'] for result in group):.1f} GB",
                f"{sum(small) / len(small):.2f}" if small else "-",
            ]
        )
    note = "Small scales: power of Z500 at degrees 20 to 30 over that of the truth.\n"
    return _table(head, rows) + "\n" + note


def _draw(processors: Mapping[str, Sequence[dict[str, Any]]], target: Path) -> bool:
    """Draw RMSE over climatology's against lead, a row for each processor that networks were trained on.

    Returns:
        Whether there was something to draw, and matplotlib to draw it.
    """
    budgets = {name: _networks(done) for name, done in processors.items()}
    # Of each processor the budget that most networks had, and of those the longest.
    drawn = {name: max(own.items(), key=lambda item: (len(item[1]), item[0])) for name, own in budgets.items() if own}
    if not drawn:
        return False
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return False
    mpl.rcParams["svg.hashsalt"] = "skill"
    figure = Figure(figsize=(9, 0.8 + 2.8 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), len(_TITLES), sharex=True, sharey=True, squeeze=False)
    colors = {name: f"C{index}" for index, name in enumerate(LINES)}
    handles: dict[str, Any] = {}
    for row, (processor, (minutes, groups)) in zip(rows, drawn.items(), strict=True):
        for axis, (field, title) in zip(row, _TITLES.items(), strict=True):
            for name, group in groups.items():
                ratios = [
                    _mean(group, "model", "rmse", field, lead) / _mean(group, "climatology", "rmse", field, lead)
                    for lead in LEADS
                ]
                days, width = [lead / 24 for lead in LEADS], 2 if name == OURS else 1
                (handles[name],) = axis.plot(days, ratios, color=colors[name], marker="o", ms=3, lw=width)
            axis.axhline(1.0, color="0.6", lw=0.8)
            axis.set(title=title, ylim=(0, 1.6))
        row[0].set_ylabel(f"RMSE / climatology's\n{minutes:g} CPU min{processor}")
    for axis in rows[-1]:
        axis.set_xlabel("lead, days")
    known = [name for name in LINES if name in handles]
    labels = [LINES[name].title for name in known]
    columns = {"loc": "outside lower center", "ncols": 3, "fontsize": 8, "frameon": False}
    figure.legend([handles[name] for name in known], labels, **columns)
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    return True


def _networks(done: Sequence[dict[str, Any]]) -> dict[float, dict[str, list[dict[str, Any]]]]:
    """Return the tests of networks, no ablations, by budget and line."""
    networks: dict[float, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in _tests(done):
        if result["line"] in LINES:
            networks[result["minutes"]][result["line"]].append(result)
    return networks
