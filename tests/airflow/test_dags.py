"""The DAGs under the real Airflow: what is parsed, how long that takes, what is in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dags.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.airflow

PARSE = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
import airflow.providers.standard.hooks.subprocess, airflow.providers.standard.sensors.date_time
from airflow.sdk import DAG, Asset, BaseOperator, Param, TriggerRule, task, task_group
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException
before = time.process_time()
bag = DagBag(sys.argv[1])
print("RESULT" + json.dumps({
    "seconds": time.process_time() - before,
    "errors": bag.import_errors,
    "files": [stat.file for stat in bag.dagbag_stats],
    "modules": sorted(set(sys.modules)),
    "dags": {name: {task.task_id: [sorted(task.upstream_task_ids), task.pool, type(task).__name__, task.retries]
                    for task in dag.tasks} for name, dag in bag.dags.items()},
    "triggers": {name: str(getattr(dag.timetable, "asset_condition", "")) for name, dag in bag.dags.items()},
    "docs": {name: dag.doc_md for name, dag in bag.dags.items()},
}))
"""


def parsed(airflow, folder, **environment):
    output = airflow.python(PARSE, folder, **environment)
    return json.loads(output[output.index("RESULT") + len("RESULT") :])


@pytest.fixture(scope="module")
def bag(make_airflow, tmp_path_factory):
    """What Airflow finds where importing anything heavy is an error."""
    traps = tmp_path_factory.mktemp("traps")
    for name in ("jax", "xarray", "apache_beam", "numpy", "zarr"):
        (traps / f"{name}.py").write_text("raise ImportError('heavy')")
    return parsed(make_airflow(), ROOT / "dags", PYTHONPATH=str(traps), AIRFLOW__SPHERECAST__RETRIES="5")


def test_one_file_is_parsed_without_error_fast_and_light(bag):
    assert bag["errors"] == {}
    assert [name.rpartition("/")[2] for name in bag["files"]] == ["airflow_dags.py"]
    assert bag["seconds"] < 0.3
    packages = {name.partition(".")[0] for name in bag["modules"]}
    assert not packages & {"jax", "xarray", "apache_beam", "dags", "pipeline", "model", "transforms"}


def test_there_are_five_dags_with_documentation(bag):
    names = {"spherecast", *(f"spherecast_{part}" for part in ("preprocess", "train", "forecast", "evaluate"))}
    assert set(bag["dags"]) == names
    assert all(bag["docs"].values())


def test_the_whole_chain_is_the_table_of_stages(bag):
    tasks = bag["dags"]["spherecast"]
    assert set(tasks) == {"configure", *STAGES}
    for name, stage in STAGES.items():
        upstream, pool, _, retries = tasks[name]
        assert set(upstream) - {"configure"} == set(stage.upstream)
        assert "configure" in upstream
        assert pool == ("spherecast_accelerator" if stage.accelerator else "default_pool")
        assert retries == 5


def test_the_parts_are_the_whole(bag):
    parts = [set(bag["dags"][f"spherecast_{part}"]) & set(STAGES) for part in ("preprocess", "train", "evaluate")]
    assert set.union(*parts) == set(STAGES)
    assert sum(map(len, parts)) == len(STAGES)


def test_a_new_training_store_triggers_training_and_a_new_network_its_evaluation(bag):
    assert "spherecast_training_store" in bag["triggers"]["spherecast_train"]
    assert "spherecast_checkpoints" in bag["triggers"]["spherecast_evaluate"]
    assert "publish" in bag["dags"]["spherecast_preprocess"]


def test_the_folder_may_lie_below_a_dags_folder_beside_other_dags(make_airflow, tmp_path):
    shutil.copytree(ROOT / "dags", tmp_path / "spherecast", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "stages.py").write_text("STAGES = 'of somebody else'")
    found = parsed(make_airflow(), tmp_path, PYTHONPATH=str(tmp_path))
    assert found["errors"] == {}
    assert len(found["dags"]) == 5


def test_a_setting_that_cannot_be_read_is_named(make_airflow):
    found = parsed(make_airflow(), ROOT / "dags", AIRFLOW__SPHERECAST__RETRIES="often")
    (error,) = found["errors"].values()
    assert "[spherecast] retries = often: expected a number" in error
