"""The report: one self-contained HTML file that says what was forecast, how well, and on which data.

The parts are in `pipeline.reporting`; here they are read together and published.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.artefacts import describe, publishing, require
from pipeline.jobs.progress import progress
from pipeline.reporting.cases import MapCase, choose_case
from pipeline.reporting.elements import Section
from pipeline.reporting.error_maps import read_error_maps
from pipeline.reporting.lines import Line, read_line
from pipeline.reporting.page import page
from pipeline.reporting.scores import MODEL, Scores, compare
from pipeline.reporting.sections.curves import curves_section
from pipeline.reporting.sections.front import front, page_title
from pipeline.reporting.sections.maps import maps_section
from pipeline.reporting.sections.provenance import provenance_section
from pipeline.reporting.sections.scorecard import scorecard_section
from pipeline.reporting.sections.spectra import spectra_section
from pipeline.reporting.sections.training import training_section
from pipeline.reporting.spectra import read_spectra
from pipeline.reporting.subjects import Subject, read_subject
from pipeline.runs import Run
from transforms.errors import InputError

__all__ = ["FORMATS", "run_stage", "write_figures", "write_report"]

FORMATS = ("png", "pdf")
"""Of figures."""

_log = logging.getLogger(__name__)


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write the report of `run`.

    Raises:
        InputError: forecast, truth or the model's metrics are missing.
    """
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    require(run.forecast, "forecast", "run `spherecast forecast` first")
    metrics = run.metrics / f"{MODEL}.nc"
    if not metrics.is_file():
        raise InputError(f"{metrics}: the model's metrics are missing; run `spherecast evaluate` first.")
    write_report(run.report, [run], fingerprint=fingerprint, inputs=inputs)


def write_report(
    destination: str | Path,
    runs: Sequence[Run],
    against: Sequence[str | Path] = (),
    *,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> list[str]:
    """Write the report of one run, or of several beside each other, as one HTML file that loads nothing.

    The same inputs give the same file, byte for byte. What a run lacks, the page says first.

    Args:
        destination: path of the file.
        runs: at least one; the first is the page's own, whose forecast is on the maps.
        against: netCDF files of results in WeatherBench 2's layout, as further lines.
        fingerprint, inputs: for the description of the artefact.

    Returns:
        What is missing, in sentences; empty where nothing is.

    Raises:
        InputError: a file of `against` cannot be read, a headline field of a run alone has no scores, or runs have
            nothing in common.
    """
    with progress("report", 3) as bar:
        names = _distinct([run.directory.resolve().name for run in runs])
        subjects = [read_subject(run, name, alone=len(runs) == 1) for run, name in zip(runs, names, strict=True)]
        scores = _scores(subjects, against)
        bar.advance(note="maps")
        case = _case(subjects[0], scores)
        config, simulated = runs[0].config, any(subject.facts.simulated for subject in subjects)
        description = describe(
            "report",
            fingerprint,
            inputs,
            configuration=config.name,
            simulated=simulated,
            fields=len(scores.fields) if scores else 0,
        )
        document = page(
            f"{page_title(subjects)}{' (simulated data)' if simulated else ''}",
            front(subjects, scores, case),
            _sections(subjects, scores, case, description),
            description,
        )
        bar.advance(note="writing")
        with publishing(destination) as partial:
            partial.write_text(document, encoding="utf-8")
        bar.advance()
    _log.info("%s: %.0f kB", destination, len(document.encode()) / 1000)
    return [f"{subject.name}: {sentence}" for subject in subjects for sentence in subject.missing]


def write_figures(
    directory: str | Path, runs: Sequence[Run], against: Sequence[str | Path] = (), *, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write the figures of the report of `runs` for papers, each a file; see `pipeline.reporting.figures.writing`.

    Args:
        directory: of the files, made where it is not there.
        runs, against: as of `write_report`.
        formats: of `FORMATS`.

    Returns:
        Paths written.

    Raises:
        InputError: matplotlib is not installed, a format is unknown, or `write_report` would raise one.
    """
    unknown = [kind for kind in formats if kind not in FORMATS]
    if unknown or not formats:
        raise InputError(f"--format: expected some of {', '.join(FORMATS)}, got {', '.join(unknown) or 'nothing'}.")
    try:
        from pipeline.reporting.figures.writing import save_figures
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("matplotlib", "cycler"):
            raise
        raise InputError(
            "--figures: matplotlib is not installed. Install it with `pip install 'spherecast[figures]'`."
        ) from error
    names = _distinct([run.directory.resolve().name for run in runs])
    subjects = [read_subject(run, name, alone=len(runs) == 1) for run, name in zip(runs, names, strict=True)]
    scores = _scores(subjects, against)
    metrics, headline = subjects[0].run.metrics, scores.headline if scores else ()
    return save_figures(
        Path(directory),
        tuple(dict.fromkeys(formats)),
        scores=scores,
        case=_case(subjects[0], scores),
        errors=read_error_maps(metrics / "maps.nc", headline),
        spectra=read_spectra(metrics / "spectra.nc", headline),
        trained=subjects[0].training,
    )


def _sections(subjects: list[Subject], scores: Scores | None, case: MapCase | None, description: dict) -> list[Section]:
    """Return the sections in the order of the page."""
    metrics, headline = subjects[0].run.metrics, scores.headline if scores else ()
    first = subjects[0].name if len(subjects) > 1 else None
    return [
        scorecard_section(scores),
        curves_section(scores),
        maps_section(case, read_error_maps(metrics / "maps.nc", headline), of=first),
        spectra_section(read_spectra(metrics / "spectra.nc", headline), of=first),
        training_section(subjects),
        provenance_section(subjects, description),
    ]


def _scores(subjects: list[Subject], against: Sequence[str | Path]) -> Scores | None:
    """Put all lines beside each other; None where no run has scores."""
    scored = [subject for subject in subjects if subject.lines]
    if not scored:
        return None
    lines: list[Line] = [line for subject in scored for line in subject.lines if line.kind == "forecast"]
    lines += [line for line in scored[0].lines if line.kind == "baseline"]
    files = [Path(path) for path in against]
    taken = [line.name for line in lines]
    labels = _distinct([*taken, *(path.stem for path in files)])[len(taken) :]
    lines += [read_line(label, "other", path) for label, path in zip(labels, files, strict=True)]
    return compare(lines, scored[0].run.config.report.headline if len(subjects) == 1 else ())


def _case(subject: Subject, scores: Scores | None) -> MapCase | None:
    """Return the forecast that is drawn, None where there is none."""
    if subject.forecast is None or subject.truth is None or scores is None:
        return None
    return choose_case(subject.forecast, subject.truth, scores.headline, scores.fields)


def _distinct(names: list[str]) -> list[str]:
    """Return names of which no two are the same: later ones are numbered."""
    found: list[str] = []
    for name in names:
        number, shown = 2, name
        while shown in found:
            number, shown = number + 1, f"{name} ({number})"
        found.append(shown)
    return found
