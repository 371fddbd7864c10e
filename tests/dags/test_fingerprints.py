"""Fingerprints change with what determines a result, and with nothing else."""

from __future__ import annotations

import pytest

from dags.fingerprints import expectations, graph, source_contents
from dags.stages import STAGES
from pipeline.config_files import load_config


def marks(*overrides: str, contents: str | None = None) -> dict[str, str]:
    """Return the fingerprint of every stage."""
    return {name: it.fingerprint for name, it in expectations(load_config("tiny", overrides), contents).items()}


def changed(*overrides: str) -> set[str]:
    before, after = marks(), marks(*overrides)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("execution.beam=[--runner=X]", set()),
        ("execution.loader_memory_mb=1", set()),
        ("name=other", {"report"}),
        ("description=other", {"report"}),
        ("report.title=other", {"report"}),
        ("evaluation.skipna=true", {"evaluate", "report"}),
        ("climatology.window_days=3", {"climatology", "evaluate", "report"}),
        ("forecast.lead_hours=24", {"forecast", "evaluate", "report"}),
        ("training.seed=1", {"train", "forecast", "evaluate", "report"}),
        ("model.filter_knots=3", {"train", "forecast", "evaluate", "report"}),
        ("data.shard_times=3", set(STAGES) - {"simulate"}),
        ("simulation.seed=3", set(STAGES)),
        ("source.kind=simulation", set(STAGES)),
        ("source.storage_options={token: anon}", set()),
    ],
)
def test_a_change_reaches_what_reads_it_and_what_follows(override, expected):
    assert changed(override) == expected


def test_fingerprints_are_distinct_and_repeatable():
    assert marks() == marks()
    assert len(set(marks().values())) == len(STAGES)


def test_another_test_period_leaves_the_training_alone():
    expected = {"validate", "forecast", "evaluate", "report"}
    assert changed("periods.test=[2001-02-01T00:00, 2001-02-09T18:00]") == expected


def test_given_data_is_part_of_the_fingerprint(tmp_path):
    path = tmp_path / "era5.nc"
    path.write_bytes(b"1")
    config = load_config("tiny", ["source.kind=store", f"source.path={path}"])
    assert "simulate" not in graph(config)
    assert all("simulate" not in stage.upstream for stage in graph(config).values())
    first = source_contents(config.source)
    path.write_bytes(b"12")
    second = source_contents(config.source)
    assert first != second
    one, two = expectations(config, first), expectations(config, second)
    assert all(one[name].fingerprint != two[name].fingerprint for name in graph(config))


def test_made_data_has_no_contents_to_look_at():
    assert source_contents(load_config("tiny").source) is None
