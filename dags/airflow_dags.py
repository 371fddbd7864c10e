"""The DAGs of Spherecast for Apache Airflow 3, made from the table in stages.py: the one file of this folder it reads.

    spherecast             the whole chain
    spherecast_preprocess  to the training store, its statistics and climatology
    spherecast_train       when a training store is new
    spherecast_evaluate    when a network is trained: forecasts of the test period, scores, report
    spherecast_forecast    on a schedule: one logical date, one initial time, one store

docs/airflow.md tells how to install, configure and backfill.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.date_time import DateTimeSensor
from airflow.sdk import DAG, Asset, Param, task, task_group

if TYPE_CHECKING:
    from dags import airflow_tasks as tasks
    from dags import stages as table


def _beside(name: str) -> ModuleType:
    """Return a module of this folder, wherever it lies and whatever else is called `dags` there."""
    spec = importlib.util.spec_from_file_location(f"_spherecast_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if not TYPE_CHECKING:
    table = _beside("stages")
    tasks = _beside("airflow_tasks")

SETTINGS = tasks.Settings.read()
TRAINING_STORE = Asset("spherecast_training_store", group="spherecast")
CHECKPOINTS = Asset("spherecast_checkpoints", group="spherecast")
FORECASTS = Asset("spherecast_forecasts", group="spherecast")
REPORT = Asset("spherecast_report", group="spherecast")

_STAGES = table.order()
_PREPROCESS = [name for name in _STAGES if name in table.ancestors(table.PREPROCESS_END)]
_TRAIN = ["train"]
_EVALUATE = [name for name in _STAGES if name not in (*_PREPROCESS, *_TRAIN)]

_PATH = r"^/"
_PLACE = r"^(/|[a-z][a-z0-9+.-]*://)"
_OVERRIDE = r"^(?!source\.storage_options)[A-Za-z_][A-Za-z0-9_.]*=.*$"


def _run_params() -> dict[str, Param]:
    """Return what is asked when a DAG that works on a run is triggered."""
    return {
        "configuration": Param(
            SETTINGS.configuration,
            title="Configuration",
            description="A shipped configuration, or the absolute path of a YAML file or of a run.",
            type="string",
            pattern=r"^(/.+|[A-Za-z0-9][A-Za-z0-9_.-]*)$",
        ),
        "overrides": _overrides("Values to change, one a line, e.g. training.seed=1. Everybody can read them here."),
        "runs_dir": Param(
            SETTINGS.runs_dir, title="Runs", description="Folder of all runs.", type="string", pattern=_PATH
        ),
        "name": Param(
            None,
            title="Name",
            description="Name of the run and of its folder; the configuration's.",
            type=["null", "string"],
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        ),
    }


def _forecast_params() -> dict[str, Param]:
    """Return what is asked when a forecast is triggered."""
    return {
        "run": Param(
            f"{SETTINGS.runs_dir}/{SETTINGS.configuration}",
            title="Run",
            description="The run directory whose network forecasts.",
            type="string",
            pattern=_PATH,
        ),
        "forecasts_dir": Param(
            SETTINGS.forecasts_dir,
            title="Forecasts",
            description="Where stores are written, as RUN/INITIAL-TIME.zarr; a path or an address.",
            type="string",
            pattern=_PLACE,
        ),
        "states": Param(
            None,
            title="Initial states",
            description="A store on the network's grid; the run's training store.",
            type=["null", "string"],
            pattern=_PLACE,
        ),
        "initial_time": Param(
            None,
            title="Initial time",
            description="In UTC; the logical date.",
            type=["null", "string"],
            pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}(:\d{2}(:\d{2})?)?)?(Z|\+00:00)?$",
        ),
        "leads": Param(
            None,
            title="Leads",
            description="E.g. 0h:240h:6h or 1d,3d,5d; the run's.",
            type=["null", "string"],
            pattern=r"^[0-9dhm:,.]+$",
        ),
        "members": Param(
            None, title="Members", description="From each checkpoint; the run's.", type=["null", "integer"], minimum=1
        ),
        "overrides": _overrides("Values of forecast.* to change, one a line, e.g. forecast.perturbation.seed=1."),
        "delay_hours": Param(
            SETTINGS.forecast_delay_hours,
            title="Delay",
            description="Hours from an initial time until its state is there.",
            type="number",
            minimum=0,
        ),
        "overwrite": Param(
            True,
            title="Overwrite",
            description="Replace a forecast from the same initial time by another network or from other states.",
            type="boolean",
        ),
    }


def _overrides(description: str) -> Param:
    items = {"type": "string", "pattern": _OVERRIDE}
    return Param([], title="Overrides", description=description, type="array", items=items)


def _dag(name: str, text: str, params: dict[str, Param], **arguments: Any) -> DAG:
    return DAG(
        name,
        description=text.partition(".")[0],
        doc_md=text,
        params=params,
        tags=["spherecast", "weather"],
        default_args=SETTINGS.task_defaults(),
        start_date=datetime(1940, 1, 1, tzinfo=UTC),
        catchup=False,
        **{"max_active_runs": 1, **arguments},
    )


def _stages(names: Sequence[str], run: Any, outlets: dict[str, list[Asset]]) -> dict[str, Any]:
    """Add the tasks of some stages, each after those it reads, to the DAG at hand; return them by name."""
    made: dict[str, Any] = {}
    for name in names:
        stage = table.STAGES[name]
        made[name] = tasks.stage_task(stage, run, SETTINGS, outlets.get(name, []))
        for upstream in stage.upstream:
            if upstream in made:
                made[upstream].set_downstream(made[name])
    return made


def _for_each_run(names: Sequence[str], outlets: dict[str, list[Asset]]) -> None:
    """Add the tasks of some stages, once for each run that triggered the DAG."""
    runs = tasks.ConfigureOperator(task_id="configure", many=True, settings=SETTINGS)

    @task_group(group_id="run", prefix_group_id=False)
    def chain(run: Any) -> None:
        _stages(names, run, outlets)

    chain.expand(run=runs.output)


with _dag(
    "spherecast",
    """The whole chain, from the source to the verification report.

A stage whose result is up to date is skipped, and a training that was stopped goes on from its last checkpoint. This DAG
triggers no other.
""",
    _run_params(),
    schedule=None,
):
    _configure = tasks.ConfigureOperator(task_id="configure", settings=SETTINGS)
    _stages(_STAGES, _configure.output, {"report": [REPORT]})

with _dag(
    "spherecast_preprocess",
    """The training store, its statistics and its climatology, from the source.

What is new is told as the asset `spherecast_training_store`, which triggers `spherecast_train`.
""",
    _run_params(),
    schedule=None,
):
    _configure = tasks.ConfigureOperator(task_id="configure", settings=SETTINGS)
    _made = _stages(_PREPROCESS, _configure.output, {})

    # One event for all of it, and none where every stage was up to date.
    @task(outlets=[TRAINING_STORE], trigger_rule="none_failed_min_one_success")
    def publish(run: str, outlet_events: Any = None) -> None:
        """Tell that the training store of a run is new."""
        outlet_events[TRAINING_STORE].extra = {"run": run}

    _published = publish(_configure.output)
    for _name in table.PREPROCESS_END:
        _made[_name].set_downstream(_published)

with _dag(
    "spherecast_train",
    """The training of a network, whenever a training store is new, or by hand.

Killed or cleared, it goes on from its last checkpoint. A new network is told as the asset `spherecast_checkpoints`, which
triggers `spherecast_evaluate`.
""",
    _run_params(),
    schedule=[TRAINING_STORE],
):
    _for_each_run(_TRAIN, {"train": [CHECKPOINTS]})

with _dag(
    "spherecast_evaluate",
    """Forecasts of the test period, scores and the report, whenever a network is trained, or by hand.""",
    _run_params(),
    schedule=[CHECKPOINTS],
):
    _for_each_run(_EVALUATE, {"report": [REPORT]})

with _dag(
    "spherecast_forecast",
    """Operational forecasts: each logical date is an initial time, with a store of its own.

A backfill makes those of a period. A store that is there already, from the same network and states, is left as it is.
""",
    _forecast_params(),
    schedule=SETTINGS.forecast_schedule,
    max_active_runs=4,
):
    _wait = DateTimeSensor(
        task_id="wait",
        target_time="{{ (dag_run.logical_date or dag_run.run_after) + macros.timedelta(hours=params.delay_hours) }}",
        mode="reschedule",
        poke_interval=300,
        timeout=14 * 24 * 3600,
    )
    _wait.set_downstream(
        tasks.ForecastOperator(
            task_id="forecast",
            settings=SETTINGS,
            inlets=[CHECKPOINTS],
            outlets=[FORECASTS],
            pool=SETTINGS.accelerator_pool,
        )
    )
