"""Files that start a training on machines that are not here: a GKE JobSet, a Slurm script, commands for TPU VMs.

Text from a configuration and a few settings of the place; nothing is contacted. Each file carries the resolved
configuration or lies beside it, and each treats the status of a preempted training as a reason to start it again.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from pipeline.config import Config
from pipeline.processes.membership import PREEMPTED
from pipeline.processes.topologies import Topology
from transforms.errors import InputError

__all__ = ["SETTINGS", "GkeSettings", "SlurmSettings", "TpuVmSettings", "render"]

Target = Literal["gke", "slurm", "tpu-vm"]

_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_WORD = r"^[A-Za-z0-9][A-Za-z0-9_.,@:+-]*$"
_CHIPS_PER_HOST = 4
_ACCELERATORS = {"v4": "tpu-v4-podslice", "v5e": "tpu-v5-lite-podslice", "v5p": "tpu-v5p-slice", "v6e": "tpu-v6e-slice"}
_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_BOXES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TpuSettings(_Settings):
    topology: str = Field(description="chip and shape of a slice, e.g. v5e:4x4")
    storage: str = Field(description="where the folder of runs lies, shared by all processes")
    spot: bool = Field(False, description="take machines that may be preempted, at a lower price")

    @field_validator("topology")
    @classmethod
    def _offered(cls, value: str) -> str:
        slice_ = Topology.parse(value)
        shape = value.partition(":")[2]
        if len(slice_.shape) == 2 and shape not in _FLAT:
            raise ValueError(f"got {value!r}; {slice_.kind} comes as {', '.join(_FLAT)}")
        whole = not any(extent % 4 for extent in slice_.shape) and list(slice_.shape) == sorted(slice_.shape)
        if len(slice_.shape) == 3 and shape not in _SMALL_BOXES and not whole:
            raise ValueError(
                f"got {value!r}; {slice_.kind} comes as {', '.join(_SMALL_BOXES)}, or with extents that are "
                "multiples of 4 and do not fall, e.g. 4x4x8"
            )
        return value

    @property
    def slice(self) -> Topology:
        return Topology.parse(self.topology)


class GkeSettings(_TpuSettings):
    """Where and how on Google Kubernetes Engine."""

    image: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9_./:@-]*$", description="container image with spherecast")]
    storage: Annotated[
        str,
        Field(
            pattern=r"^(pvc://[a-z0-9][-a-z0-9.]*|gs://[a-z0-9][-a-z0-9_.]*(/[\w./-]*)?)$",
            description="pvc://CLAIM of a ReadWriteMany volume (Filestore), or gs://BUCKET[/FOLDER]",
        ),
    ]
    slices: PositiveInt = Field(1, description="slices that train together, joined by the data-centre network")
    namespace: Annotated[str, Field(pattern=_LABEL, description="of the job in the cluster")] = "default"
    service_account: Annotated[str | None, Field(pattern=_LABEL, description="may read and write the bucket")] = None
    max_restarts: Annotated[int, Field(ge=0, description="restarts after failures that are no preemption")] = 10
    grace_seconds: PositiveInt = Field(120, description="from the signal to the kill: time for a checkpoint")


class SlurmSettings(_Settings):
    """Where and how on a Slurm cluster."""

    nodes: PositiveInt = Field(1, description="one process each")
    gpus_per_node: Annotated[int, Field(ge=0, description="0: train on the CPU")] = 1
    runs: Annotated[str, Field(pattern=r"^[\w./~-]+$", description="folder of runs that all nodes see")] = "runs"
    time: Annotated[
        str, Field(pattern=r"^(\d+-)?\d{1,2}(:\d{2}){0,2}$|^\d+$", description="limit, after which it queues again")
    ] = "24:00:00"
    partition: Annotated[str | None, Field(pattern=_WORD, description="queue; the cluster's default")] = None
    account: Annotated[str | None, Field(pattern=_WORD, description="whom the time is charged to")] = None
    cpus_per_task: PositiveInt | None = Field(None, description="cores of each process")
    memory: Annotated[str | None, Field(pattern=r"^\d+[KMGT]?$", description="of each node, e.g. 64G")] = None
    environment: Annotated[
        str | None, Field(pattern=r"^[\w./~-]+$", description="virtual environment to activate, seen by all nodes")
    ] = None
    max_restarts: Annotated[int, Field(ge=0, description="times it queues again")] = 100
    grace_seconds: PositiveInt = Field(120, description="from the signal to the kill: time for a checkpoint")


class TpuVmSettings(_TpuSettings):
    """Where and how on Cloud TPU virtual machines."""

    zone: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$", description="e.g. us-central2-b")]
    project: Annotated[str, Field(pattern=r"^[a-z][-a-z0-9:.]*[a-z0-9]$", description="of the Google Cloud account")]
    storage: Annotated[
        str,
        Field(
            pattern=r"^(nfs://[A-Za-z0-9][\w.-]*/[\w./-]+|gs://[a-z0-9][-a-z0-9_.]*(/[\w./-]*)?)$",
            description="nfs://HOST/EXPORT (Filestore), or gs://BUCKET[/FOLDER]",
        ),
    ]
    package: Annotated[
        str, Field(pattern=r"^[\w./:@+=~<>!\[\],-]+$", description="what pip installs: a wheel here, or a requirement")
    ]
    max_restarts: Annotated[int, Field(ge=0, description="times a preempted slice is made again")] = 20


SETTINGS: dict[str, type[_Settings]] = {"gke": GkeSettings, "slurm": SlurmSettings, "tpu-vm": TpuVmSettings}
"""What `render` takes for each target."""


def render(config: Config, to: Target, **settings: Any) -> dict[str, str]:
    """Return the files, name to text, that start the training of `config` there.

    Args:
        settings: fields of the target's class in `SETTINGS`; numbers and truth values may be text.

    Raises:
        InputError: no such target, a setting that is missing, unknown or does not fit, devices over which the
            configured batch cannot be split, or a configuration with credentials, which the files would show.
    """
    if to not in SETTINGS:
        raise InputError(f"--to: got {to!r}, expected one of {', '.join(SETTINGS)}.")
    if config.holds_credentials:
        raise InputError(
            "source: path or storage_options hold credentials, which the files would show. Name an environment variable "
            "in their place, e.g. source.storage_options={secret: '${SECRET}'}, and set it where the training runs."
        )
    try:
        chosen = SETTINGS[to].model_validate(settings)
    except ValidationError as error:
        raise InputError(_faults(to, error)) from error
    name = _job_name(config.name)
    writers: dict[str, Callable[..., dict[str, str]]] = {"gke": _gke, "slurm": _slurm, "tpu-vm": _tpu_vm}
    return writers[to](config, name, chosen)


def _gke(config: Config, name: str, settings: GkeSettings) -> dict[str, str]:
    tpu = settings.slice
    _check_batch(config, tpu.chips * settings.slices, settings.slices)
    per_host = min(_CHIPS_PER_HOST, tpu.chips)
    if settings.slices > 1 and tpu.chips == per_host:
        raise InputError(
            f"slices: got {settings.slices} of {settings.topology}, which is one host; slices that train together have "
            "several. Take one larger slice."
        )
    annotations: dict[str, str]
    volume: dict[str, Any]
    kind, place = settings.storage.split("://")
    if kind == "pvc":
        annotations, volume = {}, {"persistentVolumeClaim": {"claimName": place}}
    else:
        bucket, _, folder = place.rstrip("/").partition("/")
        options = ["implicit-dirs", "rename-dir-limit=1000000", *([f"only-dir={folder}"] if folder else [])]
        attributes = {"bucketName": bucket, "mountOptions": ",".join(options)}
        annotations = {"gke-gcsfuse/volumes": "true"}
        volume = {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}
    taint = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    file = f"{name}-gke.yaml"
    text = _fill(
        "gke.yaml",
        title=config.name,
        file=file,
        name=name,
        namespace=settings.namespace,
        config="\n".join(f"    {line}".rstrip() for line in config.to_yaml().splitlines()),
        topology=settings.topology,
        shape=settings.topology.partition(":")[2],
        accelerator=_ACCELERATORS[tpu.kind],
        chips=tpu.chips * settings.slices,
        chips_per_host=per_host,
        hosts=tpu.chips // per_host,
        processes=tpu.chips // per_host * settings.slices,
        slices=settings.slices,
        image=json.dumps(settings.image),
        max_restarts=settings.max_restarts,
        grace_seconds=settings.grace_seconds,
        service_account=f"serviceAccountName: {settings.service_account}" if settings.service_account else "",
        spot_selector='cloud.google.com/gke-spot: "true"' if settings.spot else "",
        tolerations=f"tolerations: {json.dumps([taint])}" if settings.spot else "",
        pod_annotations=json.dumps(annotations),
        volume="\n".join(f"{key}: {json.dumps(value)}" for key, value in volume.items()),
    )
    return {file: text}


def _slurm(config: Config, name: str, settings: SlurmSettings) -> dict[str, str]:
    devices = settings.nodes * max(1, settings.gpus_per_node)
    _check_batch(config, devices)

    def option(flag: str, value: Any) -> str:
        return f"#SBATCH --{flag}={value}" if value else ""

    file, config_file = f"{name}-slurm.sh", f"{name}.yaml"
    text = _fill(
        "slurm.sh",
        title=config.name,
        file=file,
        config_file=config_file,
        name=name,
        nodes=settings.nodes,
        devices=devices,
        gpus=option("gpus-per-node", settings.gpus_per_node),
        cpus=option("cpus-per-task", settings.cpus_per_task),
        memory=option("mem", settings.memory),
        partition=option("partition", settings.partition),
        account=option("account", settings.account),
        time=settings.time,
        grace_seconds=settings.grace_seconds,
        max_restarts=settings.max_restarts,
        runs=settings.runs,
        activate=f"source {settings.environment}/bin/activate || exit" if settings.environment else "",
        platform="" if settings.gpus_per_node else "export JAX_PLATFORMS=cpu",
    )
    return {file: text, config_file: config.to_yaml()}


def _tpu_vm(config: Config, name: str, settings: TpuVmSettings) -> dict[str, str]:
    tpu = settings.slice
    _check_batch(config, tpu.chips)
    if len(tpu.shape) == 3:
        flags = [f"--type={tpu.kind}", f"--topology={settings.topology.partition(':')[2]}"]
    else:
        flags = [f"--accelerator-type={'v5litepod' if tpu.kind == 'v5e' else tpu.kind}-{tpu.chips}"]
    file, config_file = f"{name}-tpu-vm.sh", f"{name}.yaml"
    files, package = [config_file], settings.package
    if package.endswith(".whl"):
        files.append(package)
        package = f"./{package.rpartition('/')[2]}"
    text = _fill(
        "tpu-vm.sh",
        title=config.name,
        file=file,
        config_file=config_file,
        name=name,
        topology=settings.topology,
        chips=tpu.chips,
        zone=settings.zone,
        project=settings.project,
        slice_flags=" ".join([*flags, *(["--spot"] if settings.spot else [])]),
        runtime=_RUNTIMES[tpu.kind],
        files=shlex.join(files),
        packages=shlex.join([package, "jax[tpu]"]),
        mount=_mount(settings.storage),
        max_restarts=settings.max_restarts,
    )
    return {file: text, config_file: config.to_yaml()}


def _mount(storage: str) -> str:
    """Commands that mount the shared folder at ~/runs on Ubuntu."""
    kind, place = storage.split("://")
    host, _, folder = place.rstrip("/").partition("/")
    if kind == "nfs":
        return f"sudo apt-get install -yq nfs-common\nsudo mount -t nfs {host}:/{folder} runs"
    only = f" --only-dir {folder}" if folder else ""
    return "\n".join(
        (
            "archive=https://packages.cloud.google.com/apt key=/usr/share/keyrings/gcsfuse.asc",
            "curl -fsS $archive/doc/apt-key.gpg | sudo tee $key >/dev/null",
            'echo "deb [signed-by=$key] $archive gcsfuse-$(lsb_release -cs) main" |',
            "  sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null",
            "sudo apt-get update -q && sudo apt-get install -yq gcsfuse",
            f"gcsfuse --implicit-dirs --rename-dir-limit 1000000{only} {host} runs",
        )
    )


def _check_batch(config: Config, devices: int, slices: int = 1) -> None:
    """Refuse devices over which samples and spheres cannot be split evenly."""
    training = config.training
    sphere, accumulate = getattr(training, "sphere", 1), getattr(training, "accumulate", None) or 1
    if devices // slices % sphere:
        raise InputError(
            f"training.sphere: got {sphere} for {devices // slices} devices, expected a divisor of their number."
        )
    data = devices // sphere
    if training.batch_size % (accumulate * data):
        raise InputError(
            f"training.batch_size: got {training.batch_size}, expected a multiple of {accumulate * data}: "
            f"{devices} devices / sphere {sphere} x accumulate {accumulate}. Change these or take fewer devices."
        )


def _job_name(name: str) -> str:
    """A configuration's name as a host name may hold it, short enough for the names of pods made from it."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return label if re.match(_LABEL, label) else f"run-{label}"


def _fill(template: str, **values: Any) -> str:
    """Put values in the place of ``{{name}}``; a line of one empty value goes, a value of several lines is indented."""
    values = {"preempted": PREEMPTED, **values}
    lines = []
    for line in (resources.files("pipeline.processes") / "templates" / template).read_text().splitlines():
        alone = re.fullmatch(r"(\s*)\{\{(\w+)\}\}", line)
        if alone is None:
            lines.append(re.sub(r"\{\{(\w+)\}\}", lambda match: str(values[match[1]]), line))
        else:
            lines += [f"{alone[1]}{part}" if part else "" for part in str(values[alone[2]]).splitlines()]
    return "\n".join(lines) + "\n"


def _faults(to: str, error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        field = SETTINGS[to].model_fields.get(key)
        about = f" ({field.description})" if field is not None and field.description else ""
        if fault["type"] == "missing":
            lines.append(f"  {key}{about}: missing")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"  {key}: no such setting; there are {', '.join(SETTINGS[to].model_fields)}")
        else:
            cause = fault.get("ctx", {}).get("error")
            said = str(cause) if cause else f"got {fault['input']!r}: {fault['msg']}"
            lines.append(f"  {key}{about}: {said}")
    return f"settings of {to}:\n" + "\n".join(lines)
