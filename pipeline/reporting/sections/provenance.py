"""The provenance: how to do it again, notes on the data, stages, warnings, files, software and configuration."""

from __future__ import annotations

from typing import Any

from pipeline.config import Config
from pipeline.reporting.elements import Section, scroll, table
from pipeline.reporting.facts import library_versions, public_config, reproduce
from pipeline.reporting.fields import clock
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.subjects import Subject

__all__ = ["provenance_section"]


def provenance_section(subjects: list[Subject], description: dict[str, Any]) -> Section:
    """Return the provenance of every run; `description` is that of the report itself."""
    alone = len(subjects) == 1
    parts = [
        _of_run(subject)
        if alone
        else tag(
            "details", tag("summary", tag("h3", subject.name)), _of_run(subject, level="h4"), class_="run-provenance"
        )
        for subject in subjects
    ]
    software = table(
        "Versions of the software that wrote this page", ("Package", "Version"), library_versions(), "mono"
    )
    mark = description["fingerprint"] or "none: it was asked for by hand"
    about = tag("p", f"Fingerprint of this report: {mark}.", class_="note")
    return Section(
        "provenance",
        "Provenance",
        "Provenance",
        join(*parts, tag("details", tag("summary", "Software"), about, scroll(software, "Software"))),
    )


def _of_run(subject: Subject, level: str = "h3") -> Html:
    config = public_config(subject.run.config)
    notes = subject.notes
    return join(
        tag(level, "Do it again"),
        _again(config, subject),
        tag(level, "Notes on the data"),
        tag("ul", *(tag("li", note) for note in notes)) if notes else tag("p", "Validation found nothing to note."),
        tag(level, "Stages"),
        _stages(subject),
        _hardware(subject),
        tag(level, "Warnings"),
        _warnings(subject),
        tag("details", tag("summary", "Valid samples by lead time"), _samples(subject)),
        tag("details", tag("summary", "Files and fingerprints"), _files(subject)),
        tag(
            "details",
            tag("summary", "Resolved configuration"),
            tag(
                "pre",
                tag("code", config.to_yaml(shown=True)),
                tabindex="0",
                aria_label=f"Configuration of {subject.name}",
            ),
        ),
    )


def _again(config: Config, subject: Subject) -> Html:
    command = reproduce(config)
    label = f"Command that repeats {subject.name}"
    if command:
        return tag("pre", tag("code", command), tabindex="0", aria_label=label)
    return join(
        tag("p", "Save the resolved configuration below as a file, then:"),
        tag("pre", tag("code", f"spherecast run {config.name}.yaml"), tabindex="0", aria_label=label),
    )


def _stages(subject: Subject) -> Html:
    stages = subject.history.stages
    if not stages:
        return tag("p", "The run has no record of its stages.", class_="note")
    rows = [
        (
            stage.name,
            f"{stage.state}{', older than its inputs' if stage.stale else ''}",
            clock(stage.started),
            "–" if stage.seconds is None else _time(stage.seconds),
            "–" if stage.size is None else _size(stage.size),
        )
        for stage in stages
    ]
    spent = sum(stage.seconds or 0 for stage in stages)
    caption = f"What each stage took, {_time(spent)} in all, each in its last run"
    columns = ("Stage", "State", "Started, UTC", "Time", "On disk")
    return scroll(table(caption, columns, rows, "stages"), f"Stages of {subject.name}")


def _hardware(subject: Subject) -> Html:
    hardware = subject.history.hardware
    if not hardware:
        return tag("p", "On which hardware it was trained is not recorded.", class_="note")
    return tag("p", "Trained on ", ", ".join(map(str, hardware.values())), ".", class_="note")


def _warnings(subject: Subject) -> Html:
    warnings, beyond = subject.history.warnings, subject.history.beyond
    if not warnings:
        return tag("p", "The logs hold no warning.", class_="note")
    rows = [(stage, when, text) for stage, when, text in warnings]
    count = len(warnings) + beyond
    caption = f"{count} warning{'' if count == 1 else 's'} in the logs" + (
        f", the first {len(warnings)}" if beyond else ""
    )
    return scroll(table(caption, ("Stage", "When", "Text"), rows, "warnings"), f"Warnings of {subject.name}")


def _samples(subject: Subject) -> Html:
    if not subject.lines or "valid_samples" not in subject.lines[0].data:
        return tag("p", "The metrics do not say how many forecasts entered.", class_="note")
    counts = subject.lines[0].data["valid_samples"]
    counts = counts.min([dim for dim in counts.dims if dim != "lead_time"])
    rows = [
        (f"{lead:g} h", f"{int(count):,}")
        for lead, count in zip(counts["lead_time"].values, counts.values, strict=True)
    ]
    caption = "Forecasts with a truth at their valid time"
    return scroll(table(caption, ("Lead time", "Forecasts"), rows, "mono"), f"Valid samples of {subject.name}")


def _files(subject: Subject) -> Html:
    rows = [
        (path, about.get("kind", ""), about.get("fingerprint", ""), about.get("spherecast", ""))
        for path, about in subject.upstream
    ]
    caption = "What this page was made from. A fingerprint is a hash of all that a file depends on."
    columns = ("File", "Kind", "Fingerprint", "Spherecast")
    return scroll(table(caption, columns, rows, "mono"), f"Files of {subject.name}")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
