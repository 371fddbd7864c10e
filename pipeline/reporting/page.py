"""The page: front and sections put together with their styles and scripts in one document."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from pipeline.artefacts import ATTRIBUTE
from pipeline.reporting.elements import Section
from pipeline.reporting.html import Html, data_script, join, tag

__all__ = ["page"]


def page(title: str, front: Html, sections: Sequence[Section], description: dict[str, Any]) -> str:
    """Return the whole document.

    Args:
        title: of the window.
        front: what stands before the sections and their list.
        sections: in the order of the page.
        description: of the report itself, as `pipeline.artefacts.describe` gives it.
    """
    names = [section.name for section in sections]
    styles = [_asset(f"{name}.css") for name in ("base", "front", "charts", *names)]
    version = f"Spherecast {description['spherecast']}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=version),
        tag("title", title),
        data_script(ATTRIBUTE, description),
        tag("style", join(*styles)),
        tag("script", Html("document.documentElement.classList.add('js')")),
    )
    links = tag(
        "nav", *(tag("a", section.link, href=f"#{section.name}") for section in sections), aria_label="Sections"
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href=f"#{names[0]}", class_="skip"),
        tag("header", front, links),
        tag("main", *(section.html() for section in sections)),
        tag("footer", tag("p", f"Written by {version}. Everything on this page is in this one file.")),
        *(data_script(identifier, value) for section in sections for identifier, value in section.data.items()),
        tag("script", _script(names)),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _script(names: list[str]) -> Html:
    """One script of all: what the sections share first, then each in a block of its own, so that no name collides."""
    parts = [_asset(f"{name}.js") for name in ("base", "scores", "charts", "projections")]
    parts += [Html(f"{{\n{code}}}\n") for code in (_asset(f"{name}.js") for name in names) if code]
    return join(Html('"use strict";\n(() => {\n'), *parts, Html("})();\n"))


def _asset(name: str) -> Html:
    """Return the text of an asset, nothing where there is none of that name."""
    path = resources.files("pipeline.reporting") / "assets" / name
    return Html(path.read_text(encoding="utf-8") if path.is_file() else "")
