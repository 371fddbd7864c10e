"""The pages of `spherecast view`, in the dress of the report; what changes on them is drawn by their scripts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from dags.viewing.library import address_of
from pipeline.reporting.elements import scroll
from pipeline.reporting.html import Html, data_script, join, tag

__all__ = ["ASSETS", "asset", "index", "problem", "run", "waiting"]

ASSETS = {
    "view.css": "text/css; charset=utf-8",
    "index.js": "text/javascript; charset=utf-8",
    "run.js": "text/javascript; charset=utf-8",
}
"""Type of each style and script that pages load."""


_STAGES = "Arrows lead to the stages that wait for one, thin ones to others that read its results."


def index(library: dict[str, Any]) -> bytes:
    """Return the page of all runs.

    Args:
        library: what `Library.index` returns.
    """
    empty = tag(
        "p",
        "There are no runs here yet. ",
        tag("code", "spherecast run quickstart"),
        " makes the first one; it appears here by itself.",
        class_="empty",
        id="none",
        hidden=bool(library["runs"]),
    )
    table = tag(
        "table",
        tag("caption", "Press a heading to sort. Choose runs to see them side by side.", class_="hidden"),
        tag("thead", role="rowgroup"),
        tag("tbody", role="rowgroup"),
        class_="runs",
        role="table",
    )
    leads = tag("label", tag("span", "Lead time"), tag("select", id="lead"))
    show = tag("label", tag("span", "Scores"), tag("select", id="measure"))
    find = tag("label", tag("span", "Find"), tag("input", type="search", id="find", autocomplete="off"))
    controls = tag("div", find, leads, show, class_="controls")
    compare = tag(
        "p",
        tag("button", "Compare", type="submit", id="compare", disabled=True),
        tag("span", "Choose two or more runs to see them side by side.", id="chosen", role="status", class_="said"),
        class_="compare",
    )
    form = tag("form", controls, scroll(table, "Runs"), compare, action="/compare", method="get", id="runs")
    heading = tag("div", tag("h1", "Runs"), tag("p", id="tally", class_="description"), class_="head")
    return _page(
        "Runs",
        tag("header", _brand(), heading),
        tag("main", tag("section", empty, form, aria_label="All runs")),
        "index.js",
        data_script("library", library),
    )


def run(name: str, status: dict[str, Any]) -> bytes:
    """Return the page of one run.

    Args:
        status: what `Library.status` returns.
    """
    address = address_of(name)
    header = tag(
        "header",
        _brand(),
        tag(
            "nav",
            tag("a", "All runs", href="/"),
            tag("a", "Report", href=f"{address}report.html", id="report", hidden=not status["report"]),
            aria_label="Pages",
        ),
        tag("p", "Simulated data", class_="badge") if status["simulated"] else None,
        tag("h1", name),
        tag("p", status["description"], class_="description") if status["description"] else None,
        tag(
            "div",
            tag("p", id="state"),
            tag("p", id="now", class_="now", role="status"),
            tag("p", id="times", class_="times"),
            class_="state-line",
        ),
        tag("p", id="stale", class_="notice", hidden=True),
    )
    sections = [
        tag("section", tag("h2", "Not done", id="problem-heading"), tag("div", id="problem"), hidden=True),
        tag(
            "section",
            tag("h2", "Stages", id="stages-heading"),
            tag("p", _STAGES, class_="note"),
            tag("div", tag("ol", id="stages", class_="graph"), class_="graph-holder"),
        ),
        tag("section", tag("h2", "At work", id="work-heading"), tag("div", id="work", class_="cards"), hidden=True),
        tag(
            "section",
            tag("h2", "Loss", id="loss-heading"),
            tag("div", tag("div", class_="plots", id="loss"), class_="card"),
            hidden=True,
        ),
        tag(
            "section",
            tag("h2", "Last lines of the log", id="log-heading"),
            tag("pre", id="log", tabindex="0", role="region", aria_labelledby="log-heading"),
            hidden=True,
        ),
    ]
    return _page(
        name,
        header,
        tag("main", *sections, data_address=address),
        "run.js",
        data_script("status", status),
    )


def waiting(names: Sequence[str]) -> bytes:
    """Return the page that stands for a comparison of runs while it is written; the server has it asked for again."""
    text = f"{', '.join(names)}: this page turns into their report by itself, in a few seconds."
    content = tag("section", tag("h1", "Writing the comparison"), tag("p", text, class_="description", role="status"))
    back = tag("p", tag("a", "All runs", href="/"))
    return _page("Writing the comparison", tag("header", _brand()), tag("main", content, back))


def problem(heading: str, text: str) -> bytes:
    """Return the page of what cannot be answered."""
    content = tag("section", tag("h1", heading), tag("p", text, class_="description problem-text"))
    back = tag("p", tag("a", "All runs", href="/"))
    return _page(heading, tag("header", _brand()), tag("main", content, back))


def asset(name: str) -> bytes:
    """Return a style or script of `ASSETS`; styles begin with those of the report, scripts with its helpers."""
    if name == "view.css":
        return "".join([*(_reported(f"{part}.css") for part in ("base", "front", "charts")), _own(name)]).encode()
    shared = [_reported("base.js"), _own("shared.js")]
    if name == "run.js":
        shared += [_reported("charts.js"), _own("graph.js")]
    return "".join(['"use strict";\n(() => {\n', *shared, _own(name), "})();\n"]).encode()


def _page(title: str, header: Html, main: Html, script: str | None = None, data: Html | None = None) -> bytes:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · Spherecast"),
        tag("link", rel="icon", href="data:,"),
        tag("link", rel="stylesheet", href="/assets/view.css"),
    )
    plain = tag("noscript", tag("p", "This page needs JavaScript; reports show their tables without.", class_="notice"))
    loaded = tag("script", src=f"/assets/{script}") if script else None
    footer = tag("footer", tag("p", "Served by ", tag("code", "spherecast view"), "."))
    body = tag("body", header, plain if script else None, main, footer, data, loaded)
    # Names of files may hold bytes that are no text.
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'.encode(errors="replace")


def _brand() -> Html:
    return tag("p", join("Spherecast ", tag("span", "runs")), class_="brand")


def _reported(name: str) -> str:
    return (resources.files("pipeline.reporting") / "assets" / name).read_text(encoding="utf-8")


def _own(name: str) -> str:
    return (resources.files("dags.viewing") / "assets" / name).read_text(encoding="utf-8")
