"""The report: one self-contained HTML file that says what was forecast, how well, and on which data.

The parts are in `pipeline.reporting`; here they are read together and published.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pipeline.artefacts import describe, publishing, read_description
from pipeline.config import Config
from pipeline.jobs.progress import progress
from pipeline.reporting.cases import choose_case
from pipeline.reporting.facts import data_notes, gather_facts, training_curve
from pipeline.reporting.page import page
from pipeline.reporting.scores import LINES, read_scores
from pipeline.reporting.sections.curves import curves_section
from pipeline.reporting.sections.front import front, page_title
from pipeline.reporting.sections.maps import maps_section
from pipeline.reporting.sections.provenance import provenance_section
from pipeline.reporting.sections.scorecard import scorecard_section
from pipeline.reporting.sections.training import training_section
from pipeline.runs import Run
from pipeline.stores.reading import open_store
from transforms.errors import InputError

__all__ = ["run_stage", "write_report"]

_log = logging.getLogger(__name__)


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write the report of `run`.

    Raises:
        InputError: forecast, truth or the model's metrics are missing.
    """
    write_report(
        run.report,
        config=run.config,
        training_store=run.training_store,
        forecast=run.forecast,
        metrics={line: run.metrics / f"{line}.nc" for line in LINES},
        training_log=run.checkpoints / "training.jsonl",
        validation_record=run.validation_record,
        fingerprint=fingerprint,
        inputs=inputs,
    )


def write_report(
    destination: str | Path,
    *,
    config: Config,
    training_store: Path,
    forecast: Path,
    metrics: dict[str, Path],
    training_log: Path | None = None,
    validation_record: Path | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write the report as one HTML file that loads nothing.

    The same inputs give the same file, byte for byte.

    Args:
        destination: path of the file.
        config: the run's configuration.
        training_store: truth, dims (time, [level], latitude, longitude).
        forecast: dims (time, prediction_timedelta, [level], latitude, longitude).
        metrics: metrics file by line (``model``, ``persistence``, ``climatology``); a missing baseline is left out.
        training_log: JSON lines of the training; the page says so when it is missing.
        validation_record: what validation noted of the data, likewise.
        fingerprint, inputs: for the description of the artefact.

    Raises:
        InputError: forecast, truth or the model's metrics are missing, or a headline field has no scores.
    """
    if not metrics["model"].is_file():
        raise InputError(f"{metrics['model']}: the model's metrics are missing; run `spherecast evaluate` first.")
    with progress("report", 3) as bar:
        scores = read_scores(metrics, config.report.headline)
        truth, predicted = open_store(training_store, "truth"), open_store(forecast, "forecast")
        facts = gather_facts(config, truth, predicted, scores)
        bar.advance(note="maps")
        case = choose_case(predicted, truth, scores.headline)
        description = describe(
            "report",
            fingerprint,
            inputs,
            configuration=config.name,
            simulated=facts.simulated,
            fields=len(scores.fields),
        )
        sections = [
            scorecard_section(scores),
            curves_section(scores),
            maps_section(case),
            training_section(training_curve(training_log)),
            provenance_section(
                config,
                data_notes(validation_record),
                description,
                _upstream([training_store, forecast, *metrics.values()]),
            ),
        ]
        title = f"{page_title(config)}{' (simulated data)' if facts.simulated else ''}"
        document = page(title, front(config, facts, scores, case), sections, description)
        bar.advance(note="writing")
        with publishing(destination) as partial:
            partial.write_text(document, encoding="utf-8")
        bar.advance()
    _log.info("%s: %.0f kB", destination, len(document.encode()) / 1000)


def _upstream(paths: list[Path]) -> list[tuple[str, dict[str, Any]]]:
    found = [(path, read_description(path)) for path in paths]
    return [
        (str(Path(*path.parts[-2:])) if path.suffix == ".nc" else path.name, about) for path, about in found if about
    ]
