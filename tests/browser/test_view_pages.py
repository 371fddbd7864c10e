"""The pages of `spherecast view` in a browser: the index, a run at work, a failed one, and served reports."""

from __future__ import annotations

import json
import os
import shutil
import threading
from types import SimpleNamespace

import pytest

from dags import processes
from dags.stages import STAGES
from dags.viewing.library import address_of
from dags.viewing.server import make_server

ATTACK = "<script>alert(1)<"


def record(run, done, state=None, **values):
    """Write a record in which the first stages are done and the next is in a state."""
    stages = {}
    for number, name in enumerate(STAGES):
        if number < done:
            stages[name] = {"state": "done", "seconds": 50.0, "ended": f"2026-01-01T00:{number:02d}:00Z"}
        elif number == done and state:
            stages[name] = {"state": state, **values}
    partial = run / "new-state.json"
    partial.write_text(json.dumps({"stages": stages}))
    os.replace(partial, run / "state.json")


# Of each arrow how far its two ends are from the edges of the boxes that it joins, in pixels.
ARROWS = """() => {
  const edge = (point, box) => Math.hypot(
    Math.max(box.left - point.x, 0, point.x - box.right), Math.max(box.top - point.y, 0, point.y - box.bottom),
  ) + Math.max(0, Math.min(point.x - box.left, box.right - point.x, point.y - box.top, box.bottom - point.y));
  const holder = document.querySelector(".graph-holder").getBoundingClientRect();
  const box = (name) => document.querySelector(`#stages [data-stage="${name}"]`).getBoundingClientRect();
  return [...document.querySelectorAll(".graph-holder .arrow")].map((path) => {
    const numbers = path.getAttribute("d").match(/-?[\\d.]+/g).map(Number);
    const head = path.getAttribute("d").split("M")[2].match(/-?[\\d.]+/g).map(Number);
    const at = (x, y) => ({ x: x + holder.left, y: y + holder.top });
    return {
      from: path.dataset.from, to: path.dataset.to,
      implied: path.classList.contains("implied"), done: path.classList.contains("done"),
      off: [edge(at(numbers[0], numbers[1]), box(path.dataset.from)), edge(at(head[2], head[3]), box(path.dataset.to))],
    };
  });
}"""


def report_progress(run, fraction):
    train = {"task": "train", "fraction": fraction, "note": f"<b>{fraction}</b>", "elapsed": 60.0, "remaining": 40.0}
    (run / "progress.json").write_text(json.dumps({"remaining": 90.0, "stages": {"train": train}}))


@pytest.fixture(scope="module")
def library(report_path, tmp_path_factory):
    """A folder of runs: complete ones, one that failed, one of a strange name, one that is worked on."""
    root = tmp_path_factory.mktemp("library")
    for name in ("first", "second", "failed", ATTACK, "working"):
        run = root / name
        shutil.copytree(report_path.parent, run, ignore=shutil.ignore_patterns("training.zarr", "forecast.zarr"))
        record(run, len(STAGES))
        if name not in ("first", "second"):
            shutil.rmtree(run / "metrics")
            (run / "report.html").unlink()
    record(root / ATTACK, 3)
    record(root / "failed", 6, "failed", error=f"temperature: {ATTACK} is missing.")
    for name, stage in (("failed", "forecast"), ("working", "train")):
        (root / name / "logs").mkdir()
        (root / name / "logs" / f"{stage}.log").write_text(f"a line\n{ATTACK}\n")
    record(root / "working", 5, "running", started="2026-01-01T01:00:00Z")
    report_progress(root / "working", 0.25)
    with (root / "working" / "checkpoints" / "training.jsonl").open("a") as log:
        log.write(json.dumps({"event": "rollback", "update": 3000, "stage": 0, "to": 2500, "skipped": 9}) + "\n")
    return root


@pytest.fixture(scope="module")
def served(library):
    """A server of these runs, of which one is worked on."""
    with make_server(library) as server, processes.hold(library / "working") as lock:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield SimpleNamespace(at=lambda path: server.address[:-1] + path, library=library, lock=lock)
        server.shutdown()
        thread.join()


PAGES = {"index": "/", "working": address_of("working"), "failed": address_of("failed"), "missing": "/nothing"}


@pytest.mark.parametrize("width", [360, 1600])
def test_pages_can_be_seen_and_reached_by_keyboard(visit, served, width):
    missing = "404 (Not Found)"
    for path in PAGES.values():
        seen = visit(served.at(path), width=width, expected=(missing,))
        seen.page.wait_for_timeout(200)
        assert seen.look_faults() == [], path
        assert seen.unreached() == [], path
        assert "<script>alert" not in seen.page.evaluate("document.querySelector('main').innerHTML")


def test_every_control_of_the_pages_works(visit, served):
    for name in ("index", "failed"):
        seen = visit(served.at(PAGES[name]))
        seen.page.wait_for_load_state("networkidle")
        assert seen.operate(but="#compare") >= (10 if name == "index" else 1)


def names(page):
    return page.locator(".runs .name").all_text_contents()


def test_the_index_sorts_by_score_and_finds(visit, served):
    metrics = served.library / "second" / "metrics"
    page = visit(served.at("/")).page
    assert sorted(names(page)) == sorted(["first", "second", "failed", ATTACK, "working"])
    page.get_by_role("button", name="Run", exact=True).click()
    assert names(page) == sorted(names(page), key=str.lower)
    assert page.locator("th[aria-sort=ascending]").text_content() == "Run"
    (metrics / "model.nc").rename(metrics / "kept.nc")
    shutil.copy(metrics / "persistence.nc", metrics / "model.nc")
    try:
        page.reload()
        heading = page.get_by_role("button", name="500 hPa geopotential, RMSE")
        heading.press("Enter")
        assert names(page)[:2] == ["first", "second"]
        page.get_by_role("button", name="500 hPa geopotential, RMSE").press("Enter")
        assert names(page)[:2] == ["second", "first"]
        assert page.evaluate("document.activeElement.title").startswith("500 hPa geopotential")
    finally:
        (metrics / "kept.nc").rename(metrics / "model.nc")
    page.get_by_label("Find").fill("fail")
    assert names(page) == ["failed"]


def test_numbers_of_the_index_are_those_of_the_metrics(visit, served):
    from pipeline.scoring.table import headline_rmse

    page = visit(served.at("/")).page
    page.get_by_label("Find").fill("first")
    for number, lead in enumerate(("1 d", "3 d", "5 d")):
        page.get_by_label("Lead time").select_option(label=lead)
        shown = page.locator("td[data-heading=Z500] b").text_content()
        wanted = headline_rmse(served.library / "first" / "metrics" / "model.nc")["geopotential@500"][number]
        assert float(shown) == pytest.approx(wanted, rel=5e-4)


def test_chosen_runs_are_compared(visit, served):
    page = visit(served.at("/")).page
    compare = page.get_by_role("button", name="Compare")
    assert compare.is_disabled()
    for name in ("first", "second"):
        page.get_by_label(f"Compare {name}").check()
    assert compare.is_enabled()
    # It is written by a process of its own, for which a page stands that asks for it again.
    compare.click()
    page.get_by_role("heading", name="comparison of forecasts").wait_for(timeout=300_000)
    assert page.url.endswith("/compare?run=first&run=second") or page.url.endswith("/compare?run=second&run=first")
    assert {"first", "second"} <= set(page.locator("body").inner_text().split())


def test_a_served_report_works_and_stands_alone(visit, served):
    seen = visit(served.at("/runs/first/report.html"), expected=("Blocked", "Content Security Policy", "exception"))
    assert seen.page.locator("#curves svg").count() > 0
    reached = "fetch('/runs.json').then(() => 'reached', () => 'refused')"
    assert seen.page.evaluate(reached) == "refused"


def test_a_failed_run_says_why_and_how_to_go_on(visit, served):
    page = visit(served.at(PAGES["failed"])).page
    problem = page.locator("#problem").inner_text()
    assert "forecast failed" in problem
    assert f"temperature: {ATTACK} is missing." in problem
    assert f"spherecast run {served.library / 'failed'}" in problem
    assert page.locator("#log").inner_text() == f"a line\n{ATTACK}"


def test_a_run_at_work_is_followed_to_its_report(visit, served):
    working = served.library / "working"
    seen = visit(served.at(PAGES["working"]))
    page = seen.page
    assert page.locator("#stages li").count() == len(STAGES)
    assert "Working on train." in page.locator("header").inner_text()
    bar = page.get_by_role("progressbar", name="Progress of train")
    assert bar.get_attribute("aria-valuenow") == "25"
    assert "<b>0.25</b>" in page.locator("#work").inner_text()
    assert "about 40 s left" in page.locator("#work").inner_text()
    page.locator("#loss svg .event-text", has_text="rolled back").wait_for()
    assert page.title().startswith("25 % train")
    report_progress(working, 0.5)
    page.locator("[role=progressbar][aria-valuenow='50']").wait_for()
    shutil.copy(served.library / "first" / "report.html", working / "report.html")
    record(working, len(STAGES))
    os.rename(working / ".lock", working / ".lock-kept")
    try:
        page.wait_for_url("**/working/report.html")
    finally:
        os.rename(working / ".lock-kept", working / ".lock")
        record(working, 5, "running")
        report_progress(working, 0.25)
        (working / "report.html").unlink()


@pytest.mark.parametrize("width", [360, 1600])
def test_arrows_join_each_stage_to_those_that_read_it(visit, served, width):
    page = visit(served.at(PAGES["working"]), width=width).page
    arrows = page.evaluate(ARROWS)
    edges = [(up, name) for name, stage in STAGES.items() for up in stage.upstream]
    assert sorted((arrow["from"], arrow["to"]) for arrow in arrows) == sorted(edges)
    assert [arrow for arrow in arrows if max(arrow["off"]) > 1.5] == []
    # What waits for another that has waited for the same does so anyway.
    implied = {(arrow["from"], arrow["to"]) for arrow in arrows if arrow["implied"]}
    assert {("simulate", "regrid"), ("regrid", "evaluate")} < implied
    assert not implied & {("regrid", "climatology"), ("climatology", "evaluate"), ("evaluate", "report")}
    assert {arrow["from"] for arrow in arrows if arrow["done"]} == set(list(STAGES)[:5])
    states = page.locator("#stages li").all_inner_texts()
    assert ["Done" in text for text in states] == [number < 5 for number in range(len(STAGES))]
    assert "Running" in states[5]
    assert "after regrid, climatology, forecast" in page.locator("#stages [data-stage=evaluate]").text_content()


def test_a_page_that_is_hidden_asks_for_nothing(visit, served):
    page = visit(served.at(PAGES["working"])).page
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true }); window.away = true"
    )
    page.wait_for_timeout(2600)
    before = len([url for url in asked if url.endswith("status.json")])
    assert before == 0
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(300)
    assert any(url.endswith("status.json") for url in asked)
