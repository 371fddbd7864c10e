"""A browser without a network, and what a page in it must hold up to.

The system's Chromium is driven by playwright; nothing is downloaded. Without one these tests skip.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

HERE = Path(__file__).parent
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LEAST_CONTRAST = 4.5


class Visit:
    """A page in the browser.

    Attributes:
        page: playwright's page.
        faults: errors on the console, exceptions, and requests to anywhere but where the page came from.
    """

    def __init__(self, context: Any, address: str) -> None:
        self.faults: list[str] = []
        self._home = address
        context.route("**/*", self._route)
        self.page = context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("websocket", lambda socket: self.faults.append(f"request: {socket.url}"))
        self.page.goto(address)

    def checks(self, call: str) -> Any:
        """Return the result of a function of checks.js, e.g. ``sideways()``."""
        return self.page.evaluate(f"{(HERE / 'checks.js').read_text()}.{call}")

    def look_faults(self) -> list[str]:
        """Return what is wrong with the page as it is shown now, in the light and in the dark.

        Width, repeated ids, contrast, and what axe-core finds; in the dark, where only colours are others, the contrast alone.
        """
        self.checks("unfold()")
        # Colours that change gradually must have arrived.
        self.page.add_style_tag(
            content="*, ::before, ::after { transition: none !important; animation: none !important }"
        )
        faults = [f"sideways: {text}" for text in self.checks("sideways()")]
        faults += [f"id twice: {text}" for text in self.checks("repeated()")]
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            faults += [f"{scheme}, contrast: {text}" for text in self.checks(f"faint({LEAST_CONTRAST})")]
            if scheme == "light":
                faults += [f"{scheme}, {text}" for text in self._violations({"type": "tag", "values": STANDARDS})]
        return faults

    def _violations(self, rules: dict[str, Any]) -> list[str]:
        """Return what axe-core finds against rules, which are its option ``runOnly``."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, options={"runOnly": rules, "resultTypes": ["violations"]}).response["violations"]
        shown = [
            (violation["id"], violation["help"], [node["html"][:160] for node in violation["nodes"][:4]])
            for violation in found
        ]
        return [f"{identifier}: {text}: {'; '.join(nodes)}" for identifier, text, nodes in shown]

    def unreached(self) -> list[str]:
        """Walk through the page by Tab; return the controls that can be seen and were not reached."""
        self.checks("unfold()")
        for _ in range(self.checks("listen()")):
            self.page.keyboard.press("Tab")
        return self.checks("unreached()")

    def operate(self, but: str = ":not(*)") -> int:
        """Use every control that can be seen, but those of a selector, as a person would; return how many there were."""
        page, used = self.page, 0
        for summary in page.locator("summary:visible").all():
            summary.click()
            used += 1
        for select in page.locator("select:visible").all():
            for option in range(select.locator("option").count()):
                select.select_option(index=option)
            select.select_option(index=0)
            used += 1
        for slider in page.locator("input[type=range]:visible").all():
            for key in ("End", "Home", "ArrowRight", "ArrowLeft"):
                slider.press(key)
            used += 1
        for kind in ("input[type=radio]", "input[type=checkbox]", "button", "[role=tab]:not(button)"):
            for control in page.locator(kind).all():
                if (
                    control.is_visible()
                    and control.is_enabled()
                    and not control.evaluate("(e, s) => e.matches(s)", but)
                ):
                    control.click(timeout=3000)
                    used += 1
        for chart in page.locator("svg[tabindex='0']:visible").all():
            for key in ("ArrowRight", "End", "Home", "Escape"):
                chart.press(key)
            used += 1
        page.wait_for_timeout(50)
        return used

    def _route(self, route: Any) -> None:
        address = route.request.url
        if address.startswith(("data:", "blob:")) or self._is_home(address):
            route.continue_()
        else:
            self.faults.append(f"request: {address}")
            route.abort()

    def _is_home(self, address: str) -> bool:
        here, home = urlsplit(address), urlsplit(self._home)
        if home.scheme == "file":
            return address.split("#", maxsplit=1)[0] == self._home.split("#")[0]
        return (here.scheme, here.netloc) == (home.scheme, home.netloc)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, with every name on the network unknown to it."""
    # Not for the whole session: while playwright runs, no other test of this process can start an event loop.
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("neither chromium nor google-chrome is on this machine")
    from playwright.sync_api import sync_playwright

    names = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", names]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visit]]:
    """Open a page at an address or path; whatever faults it had fail the test at its end.

    Keywords: ``width``, ``height`` in pixels, ``scheme`` light or dark, ``expected`` texts of faults that belong there.
    """
    contexts, visits, allowed = [], [], []

    def open_page(
        address: str | Path,
        *,
        width: int = 1600,
        height: int = 900,
        scheme: str = "light",
        expected: tuple[str, ...] = (),
    ) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(10_000)
        contexts.append(context)
        allowed.extend(expected)
        visits.append(Visit(context, address.as_uri() if isinstance(address, Path) else address))
        return visits[-1]

    yield open_page
    faults = [fault for seen in visits for fault in seen.faults]
    for context in contexts:
        context.close()
    assert [fault for fault in faults if not any(text in fault for text in allowed)] == []


@pytest.fixture(scope="module")
def shared(browser, report_path) -> Iterator[Visit]:
    """The report, opened once for the tests of a module, each of which leaves it as it found it; faults fail the last."""
    context = browser.new_context(viewport={"width": 1600, "height": 900}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    seen = Visit(context, report_path.as_uri())
    yield seen
    context.close()
    assert seen.faults == []


@pytest.fixture(scope="session")
def reported() -> ModuleType:
    """The makers of runs with plausible numbers, see tests/pipeline/reporting/conftest.py."""
    path = HERE.parent / "pipeline" / "reporting" / "conftest.py"
    spec = importlib.util.spec_from_file_location("reported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report_path(reported, tmp_path_factory) -> Path:
    """The report of a complete run on simulated data, with spectra and with maps of its errors."""
    from pipeline.report import run_stage

    run = reported.make_run(tmp_path_factory.mktemp("runs") / "quickstart")
    reported.make_error_maps(run)
    reported.make_spectra(run)
    run_stage(run, "0123", {"evaluate": "4567"})
    return run.report
