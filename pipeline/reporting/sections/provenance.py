"""The provenance: how to do it again, notes on the data, files, software and configuration."""

from __future__ import annotations

from typing import Any

from pipeline.config import Config
from pipeline.reporting.elements import Section, scroll, table
from pipeline.reporting.facts import library_versions, reproduce
from pipeline.reporting.html import Html, join, tag

__all__ = ["provenance_section"]


def provenance_section(
    config: Config,
    notes: list[str],
    description: dict[str, Any],
    upstream: list[tuple[str, dict[str, Any]]],
) -> Section:
    """Return the provenance.

    Args:
        notes: what validation recorded about the data.
        description: of the report itself.
        upstream: file name and description of every artefact it was made from.
    """
    return Section("provenance", "Provenance", "Provenance", _content(config, notes, description, upstream))


def _content(
    config: Config,
    notes: list[str],
    description: dict[str, Any],
    upstream: list[tuple[str, dict[str, Any]]],
) -> Html:
    command = reproduce(config)
    if command:
        again = tag("pre", tag("code", command), tabindex="0", aria_label="Command")
    else:
        again = join(
            tag("p", "Save the resolved configuration below as a file, then:"),
            tag("pre", tag("code", f"spherecast run {config.name}.yaml"), tabindex="0", aria_label="Command"),
        )
    rows = [(path, about) for path, about in upstream] + [("report.html", description)]
    artefacts = table(
        "What this page was made from. A fingerprint is a hash of all that a file depends on.",
        ("File", "Kind", "Fingerprint", "Spherecast"),
        [
            (path, about.get("kind", ""), about.get("fingerprint", ""), about.get("spherecast", ""))
            for path, about in rows
        ],
        "mono",
    )
    software = table("Versions of the software", ("Package", "Version"), library_versions(), "mono")
    return join(
        tag("h3", "Do it again"),
        again,
        tag("h3", "Notes on the data"),
        tag("ul", *(tag("li", note) for note in notes)) if notes else tag("p", "Validation found nothing to note."),
        tag("details", tag("summary", "Files and fingerprints"), scroll(artefacts, "Files and fingerprints")),
        tag("details", tag("summary", "Software"), scroll(software, "Software")),
        tag(
            "details",
            tag("summary", "Resolved configuration"),
            tag("pre", tag("code", config.to_yaml()), tabindex="0", aria_label="Configuration"),
        ),
    )
