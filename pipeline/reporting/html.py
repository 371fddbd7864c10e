"""HTML that is safe by construction: text is escaped unless it was built here."""

from __future__ import annotations

import html
import json
from typing import Any

__all__ = ["Html", "data_script", "join", "tag"]

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return an element.

    Args:
        name: element name.
        children: `Html` is kept, None dropped, anything else escaped as text.
        attributes: values are escaped; True gives a bare attribute; None and False leave it out. Trailing underscores
            are dropped and others become hyphens (``class_``, ``aria_label``).
    """
    text = "".join(
        f" {_attribute(key)}" if value is True else f' {_attribute(key)}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(*children)}</{name}>")


def join(*children: Any) -> Html:
    """Return the children one after the other, escaping whatever is not `Html`."""
    return Html(
        "".join(
            child if isinstance(child, Html) else html.escape(str(child)) for child in children if child is not None
        )
    )


def data_script(identifier: str, value: Any) -> Html:
    """Return `value` as a JSON element that scripts can read and no text can break out of."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{html.escape(identifier)}">{text}</script>')


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
