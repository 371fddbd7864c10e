"""How a stage becomes a task of Apache Airflow 3: a process of its own, a container, a Beam pipeline or a Kubernetes job.

Imports Airflow and the standard library alone: what a stage needs is in another environment, which `Settings` names.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import Asset, BaseOperator, TriggerRule
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dags.stages import Stage

__all__ = ["ConfigureOperator", "ForecastOperator", "Settings", "StageOperator", "stage_task"]

SECTION = "spherecast"
_REFUSED, _IDLE = 2, 99
"""Exit statuses: the input is refused and will be again; there is nothing to do."""
_GRACE = 45.0
"""Seconds a process has to save its work once it is told to stop; Airflow itself waits for a minute."""
_PARENT = "SPHERECAST_RUNNER_PID"
_TIMEOUTS = {"simulate": 12, "regrid": 24, "train": 24 * 14, "forecast": 24}
"""Hours until a stage is taken to hang."""
_OTHER_TIMEOUT = 6


@dataclass(frozen=True)
class Settings:
    """What one installation of Airflow says of Spherecast, in section ``[spherecast]`` of airflow.cfg.

    The environment says the same as ``AIRFLOW__SPHERECAST__PYTHON`` and so on.

    Attributes:
        python: interpreter of the environment where Spherecast is installed; Airflow's own by default.
        container: words put before each command, e.g. ``docker run --rm -v /data:/data IMAGE``; none by default.
        runs_dir: folder of all runs, an absolute path; ``runs`` in Airflow's home by default.
        forecasts_dir: where `spherecast_forecast` writes, a path or address; ``forecasts`` in Airflow's home by default.
        configuration: what the DAGs run unless told otherwise when triggered.
        forecast_schedule: initial times of operational forecasts, as a cron expression in UTC.
        forecast_delay_hours: hours from an initial time until its state is there.
        accelerator_pool: pool of the tasks that compute on an accelerator, a slot for each.
        retries, retry_seconds: how often a task is tried again, and the first wait, which doubles each time.
        beam_stages: stages that the Beam provider's operator runs.
        beam_options: options of Apache Beam for these, by name; ``runner`` among them.
        kubernetes_template: file of the Kubernetes job that trains; none, so that training is a command as others are.
    """

    python: str = sys.executable
    container: tuple[str, ...] = ()
    runs_dir: str = "runs"
    forecasts_dir: str = "forecasts"
    configuration: str = "quickstart"
    forecast_schedule: str = "0 0,12 * * *"
    forecast_delay_hours: float = 0.0
    accelerator_pool: str = "spherecast_accelerator"
    retries: int = 2
    retry_seconds: float = 60.0
    beam_stages: tuple[str, ...] = ()
    beam_options: dict[str, Any] = field(default_factory=dict)
    kubernetes_template: str | None = None

    @classmethod
    def read(cls) -> Settings:
        """Return what Airflow's configuration says.

        Raises:
            ValueError: a value cannot be read; the message names its key.
        """

        def get(key: str, default: str) -> str:
            return conf.get(SECTION, key, fallback=default)

        home = os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow"))
        return cls(
            python=get("python", sys.executable),
            container=tuple(shlex.split(get("container", ""))),
            runs_dir=os.path.join(home, get("runs_dir", cls.runs_dir)),
            forecasts_dir=_within(home, get("forecasts_dir", cls.forecasts_dir)),
            configuration=get("configuration", cls.configuration),
            forecast_schedule=get("forecast_schedule", cls.forecast_schedule),
            forecast_delay_hours=_number("forecast_delay_hours", get("forecast_delay_hours", "0")),
            accelerator_pool=get("accelerator_pool", cls.accelerator_pool),
            retries=int(_number("retries", get("retries", str(cls.retries)))),
            retry_seconds=_number("retry_seconds", get("retry_seconds", str(cls.retry_seconds))),
            beam_stages=tuple(get("beam_stages", "").replace(",", " ").split()),
            beam_options=_mapping("beam_options", get("beam_options", "{}")),
            kubernetes_template=get("kubernetes_template", "") or None,
        )

    def task_defaults(self) -> dict[str, Any]:
        """Return the arguments that all tasks share."""
        return {
            "owner": "spherecast",
            "retries": self.retries,
            "retry_delay": timedelta(seconds=self.retry_seconds),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(hours=1),
            "execution_timeout": timedelta(hours=_OTHER_TIMEOUT),
        }


class _CommandOperator(BaseOperator):
    """Runs a command of Spherecast as a process that does not outlive the task.

    The command is a list of words: nothing that a configuration or a person gives passes through a shell or a template.
    """

    def __init__(self, *, settings: Settings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.settings = settings
        self._hook: SubprocessHook | None = None

    def on_kill(self) -> None:
        """Have the process save its work and end, before the task that it is tied to ends."""
        child = self._hook.sub_process if self._hook else None
        if child is None or child.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)

    def _run(self, *arguments: str) -> str:
        """Run a command to its end; return the last line it printed."""
        command = [*self.settings.container, self.settings.python, "-m", "dags", *arguments]
        self._hook = SubprocessHook()
        result = self._hook.run_command(command, env=self._environment())
        if result.exit_code == _IDLE:
            raise AirflowSkipException("there was nothing to do")
        if result.exit_code == _REFUSED:
            raise AirflowFailException(f"refused, and would be again: {result.output}")
        if result.exit_code:
            raise AirflowException(f"ended with status {result.exit_code}: {result.output}")
        return result.output

    def _environment(self) -> dict[str, str]:
        """Return this process's environment without Airflow's own settings, which hold its secrets."""
        kept = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
        kept["PYTHONUNBUFFERED"] = "1"
        if not self.settings.container:  # A container's processes are children of its own runtime.
            kept[_PARENT] = str(os.getpid())
        return kept


class ConfigureOperator(_CommandOperator):
    """Writes the folder and configuration of a run and returns the folder, or the folders that assets tell of.

    Args:
        many: return a list: of the runs whose events triggered the DAG run, or of the one that its parameters say.
    """

    def __init__(self, *, many: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.many = many

    def execute(self, context: Context) -> str | list[str]:
        if self.many:
            events = [event for events in context["triggering_asset_events"].values() for event in events]
            runs = list(dict.fromkeys(event.extra["run"] for event in events if "run" in event.extra))
            if runs:
                self.log.info("triggered by %s", ", ".join(runs))
                return runs
        chosen = context["params"]
        name = [f"--name={chosen['name']}"] if chosen["name"] else []
        options = [f"--runs-dir={chosen['runs_dir']}", *name]
        run = self._run("configure", *options, "--", chosen["configuration"], *chosen["overrides"])
        return [run] if self.many else run


class StageOperator(_CommandOperator):
    """Runs one stage of a run; is skipped where its result is up to date or the run does without it.

    Args:
        stage: name of the stage.
        run: the run directory, or what it is taken from when the task starts.
    """

    template_fields: Sequence[str] = ("run",)

    def __init__(self, *, stage: str, run: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.stage = stage
        self.run = run

    def execute(self, context: Context) -> None:
        self._run("stage", self.stage, self.run, f"--idle-status={_IDLE}")
        _tell_outlets(self, context, {"run": self.run})


class ForecastOperator(_CommandOperator):
    """Forecasts from one initial time, the logical date unless a parameter says another, into a store of its own."""

    def execute(self, context: Context) -> str:
        chosen = context["params"]
        moment = chosen["initial_time"] or context["dag_run"].logical_date or context["dag_run"].run_after
        start = initial_time(moment)
        store = f"{chosen['forecasts_dir'].rstrip('/')}/{Path(chosen['run']).name}/{start}.zarr"
        options = [f"--{key}={chosen[key]}" for key in ("states", "leads", "members") if chosen[key]]
        options += ["--overwrite"] if chosen["overwrite"] else []
        self._run(
            *("forecast", f"--output={store}", f"--initial-times={start}", *options),
            *("--", chosen["run"], *chosen["overrides"]),
        )
        _tell_outlets(self, context, {"run": chosen["run"], "store": store, "initial_time": start})
        return store


def initial_time(moment: Any) -> str:
    """Return a time as Spherecast writes it, e.g. ``2020-02-01T12``, in UTC.

    Args:
        moment: a time with a zone, or its text, in UTC where it tells no zone.
    """
    if isinstance(moment, str):
        from datetime import datetime

        moment = datetime.fromisoformat(moment)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M" if moment.minute else "%Y-%m-%dT%H")


def stage_task(stage: Stage, run: Any, settings: Settings, outlets: Sequence[Asset] = ()) -> BaseOperator:
    """Return the task of one stage.

    Args:
        run: what the run directory is taken from when the task starts.
        outlets: assets that are new once the stage has worked.
    """
    artefacts = ", ".join(f"`{name}`" for name in stage.artefacts)
    arguments: dict[str, Any] = {
        "task_id": stage.name,
        "doc_md": f"{stage.summary[0].upper()}{stage.summary[1:]}. Makes {artefacts}.",
        "outlets": list(outlets),
        "execution_timeout": timedelta(hours=_TIMEOUTS.get(stage.name, _OTHER_TIMEOUT)),
        # A stage that had nothing to do is skipped, and what comes after it goes on.
        "trigger_rule": TriggerRule.NONE_FAILED,
    }
    if stage.accelerator:
        arguments |= {"pool": settings.accelerator_pool}
    if stage.name == "train" and settings.kubernetes_template:
        return _kubernetes_task(run, settings.kubernetes_template, arguments)
    if stage.name in settings.beam_stages:
        return _beam_task(stage, run, settings, arguments)
    return StageOperator(stage=stage.name, run=run, settings=settings, **arguments)


def _kubernetes_task(run: Any, template: str, arguments: dict[str, Any]) -> BaseOperator:
    """Return the task that trains as a Kubernetes job: the image's `spherecast train RUN` in the template's pods."""
    from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator

    class TrainingJobOperator(KubernetesJobOperator):
        """A Kubernetes job that tells of the run it trained."""

        template_fields: Sequence[str] = (*KubernetesJobOperator.template_fields, "run")

        def __init__(self, *, run: Any, **arguments: Any) -> None:
            super().__init__(arguments=["train", run], **arguments)
            self.run = run

        def execute(self, context: Context) -> Any:
            result = super().execute(context)
            _tell_outlets(self, context, {"run": self.run})
            return result

    return TrainingJobOperator(
        run=run,
        name="spherecast-train",
        job_template_file=template,
        cmds=["spherecast"],
        wait_until_job_complete=True,
        **arguments,
    )


def _beam_task(stage: Stage, run: Any, settings: Settings, arguments: dict[str, Any]) -> BaseOperator:
    """Return the task that runs a stage by the Beam provider's operator."""
    from airflow.providers.apache.beam.operators.beam import BeamRunPythonPipelineOperator

    class BeamStageOperator(BeamRunPythonPipelineOperator):
        """A stage as a Beam pipeline, which publishes its result once the pipeline is done."""

        def execute(self, context: Context) -> Any:
            os.environ[_PARENT] = str(os.getpid())
            result = super().execute(context)
            _tell_outlets(self, context, {"run": self.pipeline_options["spherecast_run"]})
            return result

        def execute_on_dataflow(self, context: Context) -> Any:
            # The provider would let go of the process once it has the job's number, before the result is published.
            self.is_dataflow_job_id_exist_callback = None
            return super().execute_on_dataflow(context)

    options = dict(settings.beam_options)
    return BeamStageOperator(
        py_file=str(Path(__file__).with_name("beam_stage.py")),
        py_interpreter=settings.python,
        runner=options.pop("runner", "DirectRunner"),
        pipeline_options={**options, "spherecast_stage": stage.name, "spherecast_run": run},
        **arguments,
    )


def _tell_outlets(task: BaseOperator, context: Context, extra: dict[str, str]) -> None:
    """Say with each asset that `task` makes new which run it is of."""
    for asset in task.outlets:
        context["outlet_events"][asset].extra = extra


def _within(home: str, place: str) -> str:
    return place if "://" in place else os.path.join(home, place)


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"[{SECTION}] {key} = {text}: expected a number.") from None


def _mapping(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f'[{SECTION}] {key} = {text}: expected a JSON object, e.g. {{"runner": "DataflowRunner"}}.')
    return value
