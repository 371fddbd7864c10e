"""The checks themselves: each finds the fault it is there for."""

from __future__ import annotations

import pytest

PAGE = """<!doctype html><html lang="en"><head><title>A page</title>
<meta name="viewport" content="width=device-width"></head>
<body><main><h1>Heading</h1>{}</main></body></html>"""


@pytest.fixture
def shown(visit, tmp_path):
    """Open a page of the given content."""

    def show(content: str, **options):
        path = tmp_path / "page.html"
        path.write_text(PAGE.format(content))
        return visit(path, width=360, **options)

    return show


def test_a_good_page_passes(shown):
    seen = shown('<p>Text</p><button>One</button><label>Two <input type="range"></label>')
    assert seen.look_faults() == []
    assert seen.unreached() == []
    assert seen.operate() == 2


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('<p style="color: #888">Faint</p>', "light, contrast: <p>"),
        ('<div style="background: #333"><p>Dark on dark</p></div>', "light, contrast: <p>"),
        ('<p style="opacity: 0.4">Faint</p>', "light, contrast: <p>"),
        ('<p style="background: linear-gradient(#fff, #222)">Half</p>', "light, contrast: <p>"),
        (
            '<svg width="90" height="20" role="img" aria-label="a"><text y="15" fill="#aaa">a b c</text></svg>',
            "contrast: ",
        ),
        ('<div style="width: 700px">Wide</div>', "sideways: 708 of 360 px"),
        ('<p id="one">a</p><p id="one">b</p>', "id twice: one"),
        ('<img src="data:image/png;base64,AAAA">', "image-alt"),
        ("<select><option>One</option></select>", "select-name"),
        (
            "<style>@media (prefers-color-scheme: dark) { p { color: #eee; } }</style><p>Only in the light</p>",
            "dark, contrast: <p>",
        ),
        ("<h4>Too deep</h4>", "heading-order"),
        ("<button></button>", "button-name"),
    ],
)
def test_what_cannot_be_seen_is_found(shown, content, fault):
    assert any(fault in found for found in shown(content).look_faults())


@pytest.mark.parametrize(
    "content",
    [
        '<button tabindex="-1">Away</button>',
        '<button onfocus="this.blur()">Shy</button><button>Hidden behind it</button>'
        '<script>addEventListener("keydown", (event) => event.preventDefault())</script>',
    ],
)
def test_what_the_keyboard_cannot_reach_is_found(shown, content):
    assert shown(content).unreached()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<script>console.error('broken')</script>", "console: broken"),
        ('<button onclick="nothing.at()">Do</button>', "exception: nothing is not defined"),
        (
            "<button onclick=\"fetch('https://spherecast.example/a')\">Do</button>",
            "request: https://spherecast.example/a",
        ),
        ('<script src="other.js"></script>', "other.js"),
    ],
)
def test_errors_and_requests_are_found(shown, content, fault):
    seen = shown(content, expected=("console: ", "exception: ", "request: "))
    seen.operate()
    assert any(fault in found for found in seen.faults)
