"""Pictures for the docs, in docs/images: pages of runs on a desktop and on a phone, and those of ``spherecast view``.

    python benchmarks/screenshots.py runs/quickstart runs/gfs-wind
    spherecast run quickstart & python benchmarks/screenshots.py --live runs/quickstart

Of a finished run the desktop's pictures show the front and the maps of its report, the phone's the front. Of a run at work
they show its page when half of its training is done, and the index of the folder it lies in. The colours are reduced to 256,
so that a picture stays small.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dags.viewing.library import Library, address_of
from dags.viewing.server import make_server
from pipeline.report import write_report
from pipeline.runs import Run

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST_BYTES, MOST_VIEW_BYTES = 400_000, 300_000
_VIEWS = {"desktop": ((1440, 1250), 1.0), "phone": ((390, 844), 2.0)}
_INDEX = (1440, 680)
_HALF, _PATIENCE = 0.5, 3600.0
"""Share of the training that is waited for, and for how many seconds at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="finished runs")
    parser.add_argument("--live", type=Path, metavar="RUN", help="a run at work")
    parser.add_argument("--into", type=Path, default=IMAGES, metavar="DIR", help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for directory in arguments.runs:
            run = Run.open(directory)
            page = Path(scratch) / f"{run.config.name}.html"
            write_report(page, [run])
            _tell(_reports(page, arguments.into))
    if arguments.live:
        _tell(_live(arguments.live.absolute(), arguments.into))


def _tell(paths: list[Path]) -> None:
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or sys.exit("chromium is not on this machine.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        yield browser
        browser.close()


def _reports(address: Path, folder: Path) -> list[Path]:
    paths = []
    with _browser() as browser:
        for name, ((width, height), scale) in _VIEWS.items():
            size = {"width": width, "height": height}
            page = browser.new_context(offline=True, viewport=size, device_scale_factor=scale).new_page()
            page.goto(address.as_uri())
            page.wait_for_selector("#forecast-maps canvas", state="attached")
            parts = {"": None, "-maps": "#maps"} if name == "desktop" else {"": None}
            for part, selector in parts.items():
                if selector:
                    page.evaluate(f"document.querySelector('{selector}').scrollIntoView({{behavior: 'instant'}})")
                page.wait_for_timeout(500)
                paths.append(folder / f"report-{address.stem}{part}-{name}.png")
                _save(page.screenshot(), paths[-1], MOST_BYTES)
            page.close()
    return paths


def _live(run: Path, folder: Path) -> list[Path]:
    _wait_for_training(run)
    paths = [folder / f"view-{name}.png" for name in ("index", "live")]
    with make_server(run.parent) as server, _browser() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path, address, (width, height) in zip(
            paths, ("/", address_of(run.name)), (_INDEX, _VIEWS["desktop"][0]), strict=True
        ):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(server.address[:-1] + address)
            page.wait_for_timeout(1500)  # The loss is fetched once the page is there.
            _save(page.screenshot(), path, MOST_VIEW_BYTES)
        server.shutdown()
    return paths


def _wait_for_training(run: Path) -> None:
    library, end = Library(run.parent), time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        status = library.status(run.name) if run.is_dir() else {"state": "running", "stages": []}
        train = next((stage for stage in status["stages"] if stage["name"] == "train"), {})
        if train.get("state") == "running" and (train.get("fraction") or 0.0) >= _HALF:
            return
        if status["state"] != "running":
            sys.exit(f"{run}: {status['state']}; expected a run at work that has yet to end its training.")
        time.sleep(1.0)
    sys.exit(f"{run}: half of the training was not done within {_PATIENCE:g} s.")


def _save(picture: bytes, path: Path, most: int) -> None:
    from PIL import Image

    reduced = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    if path.stat().st_size > most:
        sys.exit(f"{path}: {path.stat().st_size} bytes, expected at most {most}.")


if __name__ == "__main__":
    main()
