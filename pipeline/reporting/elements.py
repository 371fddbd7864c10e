"""What sections of the page are made of: headings, tables, controls, and a section itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.reporting.html import Html, tag

__all__ = ["Section", "empty", "first_run", "scroll", "select", "short_duration", "table"]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its address on the page, and the name of ``assets/NAME.js`` and ``assets/NAME.css``, either of which may be
            missing.
        link: its name in the list of sections.
        heading: its heading.
        content: what is below the heading.
        data: what its script reads, JSON values by the id of the element that holds each (``read(id)``).
    """

    name: str
    link: str
    heading: str
    content: Html
    data: dict[str, Any] = field(default_factory=dict)

    def html(self) -> Html:
        """Return the section with its heading."""
        heading = f"{self.name}-heading"
        return tag("section", tag("h2", self.heading, id=heading), self.content, id=self.name, aria_labelledby=heading)


def empty(text: str) -> Html:
    """Return the sentence that stands where there is nothing to show."""
    return tag("p", text, class_="empty")


def first_run(name: str | None) -> Html | None:
    """Return the sentence that says whose what follows is, on a page of several runs; None without a name."""
    return None if name is None else tag("p", "Of ", tag("b", name), ", the first of the runs.")


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], kind: str) -> Html:
    """Return a table whose first column names the rows."""
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns))),
        tag(
            "tbody",
            *(tag("tr", tag("th", row[0], scope="row"), *(tag("td", value) for value in row[1:])) for row in rows),
        ),
        class_=kind,
    )


def scroll(content: Html, label: str) -> Html:
    """Return `content` in a region of its own that scrolls sideways where the page is too narrow."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def select(label: str, identifier: str, options: Sequence[str | Html]) -> Html:
    """Return a labelled choice; texts become options whose values count from 0, `Html` is taken as it is."""
    choices = [text if isinstance(text, Html) else tag("option", text, value=i) for i, text in enumerate(options)]
    return tag("label", tag("span", label), tag("select", *choices, id=identifier))


def short_duration(hours: float) -> str:
    """Return a lead time for the head of a column: 18 h, 1.5 d."""
    return f"{hours / 24:g} d" if hours >= 24 else f"{hours:g} h"
