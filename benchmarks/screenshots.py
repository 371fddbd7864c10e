"""Pictures of reports for the docs: each run's page on a desktop and on a phone, in docs/images.

    python benchmarks/screenshots.py runs/quickstart runs/gfs-wind

The desktop's shows the front and the maps of the page, the phone's the front; the colours are reduced to 256, so that a
picture stays under 400 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

from pipeline.report import write_report
from pipeline.runs import Run

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST_BYTES = 400_000
_VIEWS = {"desktop": ((1440, 1250), 1.0), "phone": ((390, 844), 2.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs")
    parser.add_argument("--into", type=Path, default=IMAGES, metavar="DIR", help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for directory in arguments.runs:
            run = Run.open(directory)
            page = Path(scratch) / f"{run.config.name}.html"
            write_report(page, [run])
            for path in _pictures(page, arguments.into):
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def _pictures(address: Path, folder: Path) -> list[Path]:
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or sys.exit("chromium is not on this machine.")
    paths = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
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
                _save(page.screenshot(), paths[-1])
            page.close()
        browser.close()
    return paths


def _save(picture: bytes, path: Path) -> None:
    from PIL import Image

    reduced = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        sys.exit(f"{path}: {path.stat().st_size} bytes, expected at most {MOST_BYTES}.")


if __name__ == "__main__":
    main()
