"""The files that start a training elsewhere: of the right form, agreeing with each other, and doing what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.config_files import load_config, parse_config
from pipeline.processes.launch import SETTINGS, render
from pipeline.processes.membership import PREEMPTED
from transforms.errors import InputError

GKE = {"topology": "v5e:4x4", "image": "registry.example/team/spherecast:1.0", "storage": "pvc://runs"}
TPU_VM = {
    "topology": "v4:2x2x4",
    "zone": "us-central2-b",
    "project": "my-project",
    "storage": "nfs://10.0.0.2/runs",
    "package": "dist/spherecast-0.1.0-py3-none-any.whl",
}

# What the JobSet API (v1alpha2) and the Job API (batch/v1) require, and all that is used of them: a mapping lists its
# keys, those with "?" may be left out.
POD = {
    "restartPolicy": {"Never"},  # A pod failure policy allows no other.
    "terminationGracePeriodSeconds": int,
    "serviceAccountName?": str,
    "nodeSelector": {
        "cloud.google.com/gke-tpu-accelerator": {
            *("tpu-v4-podslice", "tpu-v5-lite-podslice", "tpu-v5p-slice", "tpu-v6e-slice")
        },
        "cloud.google.com/gke-tpu-topology": str,
        "cloud.google.com/gke-spot?": {"true"},
    },
    "tolerations?": [{"key": str, "operator": {"Equal"}, "value": str, "effect": {"NoSchedule"}}],
    "containers": [
        {
            "name": str,
            "image": str,
            "command": [str],
            "env": [{"name": str, "value": str}],
            "ports": [{"containerPort": int}],
            "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }
    ],
    "volumes": [
        {
            "name": str,
            "configMap?": {"name": str},
            "persistentVolumeClaim?": {"claimName": str},
            "csi?": {"driver": str, "volumeAttributes": {"bucketName": str, "mountOptions": str}},
        }
    ],
}
JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode": {"Indexed"},
    "backoffLimit": int,
    "podFailurePolicy": {
        "rules": [
            {
                "action": {"FailJob", "Ignore", "Count", "FailIndex"},
                "onExitCodes?": {"containerName": str, "operator": {"In", "NotIn"}, "values": [int]},
                "onPodConditions?": [{"type": str, "status": {"True"}}],
            }
        ]
    },
    "template": {"metadata": {"annotations": {"gke-gcsfuse/volumes?": {"true"}}}, "spec": POD},
}
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata": {"name": str, "namespace": str, "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": str}},
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [
                {
                    "name": str,
                    "action": {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"},
                    "onJobFailureReasons": [
                        {"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded"}
                        | {"PodFailurePolicy"}
                    ],
                }
            ],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def _conforms(value, schema, where: str = "") -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        assert value.keys() <= {key.rstrip("?") for key in schema}, where
        for key, inner in schema.items():
            name = key.rstrip("?")
            assert name in value or key.endswith("?"), f"{where}.{name} is missing"
            if name in value:
                _conforms(value[name], inner, f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        assert value, where
        for i, entry in enumerate(value):
            _conforms(entry, schema[0], f"{where}[{i}]")
    elif isinstance(schema, set):
        assert value in schema, f"{where}: {value}"
    else:
        assert type(value) is schema, f"{where}: {value!r}"


def _config(*overrides: str):
    return load_config("quickstart", ["training.batch_size=64", *overrides])


def _jobset(config=None, **settings) -> tuple[dict, dict]:
    files = render(config or _config(), "gke", **{**GKE, **settings})
    (text,) = files.values()
    assert "{{" not in text
    config_map, jobset = yaml.safe_load_all(text)
    return config_map, jobset


def test_a_jobset_conforms_and_agrees_with_itself():
    for settings in (
        {},
        {"topology": "v4:2x2x1"},
        {"topology": "v5p:4x4x8", "batch": 128, "slices": "2", "spot": "true"},
        {"topology": "v6e:1x1", "storage": "gs://bucket/some/folder", "service_account": "trainer"},
    ):
        batch = settings.pop("batch", 64)
        config = _config(f"training.batch_size={batch * 2}")
        config_map, jobset = _jobset(config, **settings)
        _conforms(jobset, JOBSET)
        assert config_map["kind"] == "ConfigMap"
        assert parse_config(yaml.safe_load(config_map["data"]["config.yaml"]), "rendered") == config
        (replicated,) = jobset["spec"]["replicatedJobs"]
        job = replicated["template"]["spec"]
        pod = job["template"]["spec"]
        (container,) = pod["containers"]
        shape = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
        chips = 1
        for extent in shape.split("x"):
            chips *= int(extent)
        assert job["completions"] == job["parallelism"]
        assert job["completions"] * container["resources"]["limits"]["google.com/tpu"] == chips
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert all(len(volume) == 2 for volume in pod["volumes"])
        assert jobset["metadata"]["namespace"] == config_map["metadata"]["namespace"]
        assert pod["volumes"][0]["configMap"]["name"] == config_map["metadata"]["name"]
        folder = container["volumeMounts"][0]["mountPath"]
        assert container["command"] == ["spherecast", "train", f"{folder}/config.yaml", "--runs-dir", "/runs"]


def test_a_preemption_restarts_a_jobset_and_is_not_counted():
    _, jobset = _jobset(max_restarts=3)
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 3
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    # Any other failure has the reason BackoffLimitExceeded, which no rule names: it counts.
    assert job["backoffLimit"] == 0
    codes, conditions = job["podFailurePolicy"]["rules"]
    assert codes["onExitCodes"]["values"] == [PREEMPTED]
    assert codes["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert conditions["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_what_a_bucket_and_spot_machines_need():
    _, jobset = _jobset(storage="gs://bucket/some/folder", spot=True)
    template = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    attributes = template["spec"]["volumes"][1]["csi"]["volumeAttributes"]
    assert attributes["bucketName"] == "bucket"
    assert "only-dir=some/folder" in attributes["mountOptions"].split(",")
    assert template["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert template["spec"]["tolerations"][0]["key"] == "cloud.google.com/gke-spot"


def _write(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    (script,) = [folder / name for name in files if name.endswith(".sh")]
    subprocess.run(["bash", "-n", str(script)], check=True)
    return script


def _commands(folder: Path, **bodies: str) -> dict[str, str]:
    """Put commands that note how they were called before those of the system; return the environment."""
    folder.mkdir()
    for name, body in bodies.items():
        command = folder / name
        command.write_text(f'#!/bin/bash\necho "{name} $*" >>"{folder}/calls"\n{body}\n')
        command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def _options(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return dict(line.partition("=")[::2] for line in lines)


def test_a_slurm_script_asks_for_what_was_set():
    files = render(
        _config(), "slurm", nodes="2", gpus_per_node=4, partition="gpu", memory="64G", environment="/opt/env"
    )
    text = files["quickstart-slurm.sh"]
    options = _options(text)
    assert options["nodes"] == "2"
    assert options["ntasks-per-node"] == "1"
    assert options["gpus-per-node"] == "4"
    assert options["mem"] == "64G"
    assert options["signal"] == "TERM@120"
    assert "requeue" in options
    assert "account" not in options
    assert "source /opt/env/bin/activate" in text
    assert parse_config(yaml.safe_load(files["quickstart.yaml"]), "rendered") == _config()
    cpu = render(_config(), "slurm", gpus_per_node=0)["quickstart-slurm.sh"]
    assert "export JAX_PLATFORMS=cpu" in cpu
    assert "gpus-per-node" not in _options(cpu)


@pytest.mark.parametrize(
    ("left_with", "restarts", "requeued"), [(PREEMPTED, 0, True), (PREEMPTED, 100, False), (1, 0, False), (0, 0, False)]
)
def test_a_slurm_job_queues_again_after_a_preemption_only(tmp_path, left_with, restarts, requeued):
    script = _write(render(_config(), "slurm"), tmp_path)
    environment = _commands(tmp_path / "bin", srun=f"exit {left_with}", scontrol="")
    environment |= {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_RESTART_COUNT": str(restarts)}
    assert subprocess.run(["bash", str(script)], env=environment).returncode == left_with
    calls = (tmp_path / "bin" / "calls").read_text()
    assert "spherecast train quickstart.yaml --runs-dir runs" in calls
    assert ("scontrol requeue 7" in calls) == requeued


def test_a_slurm_job_that_is_cancelled_saves_itself_and_stays_so(tmp_path):
    script = _write(render(_config(), "slurm"), tmp_path)
    wait = f'trap "exit {PREEMPTED}" TERM; kill -TERM $PPID; while true; do sleep 0.1; done'
    environment = _commands(tmp_path / "bin", srun=wait, scontrol="")
    environment |= {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(tmp_path)}
    assert subprocess.run(["bash", str(script)], env=environment, timeout=60).returncode == PREEMPTED
    assert "scontrol" not in (tmp_path / "bin" / "calls").read_text()


def test_tpu_machines_are_made_set_up_and_made_again(tmp_path):
    files = render(_config(), "tpu-vm", **TPU_VM, spot=True)
    script = _write(files, tmp_path)
    # The slice is there from its making to the first training, which ends with it.
    gcloud = """
    state="$(dirname "$0")/state" lost="$(dirname "$0")/lost"
    case "$*" in
      *"tpu-vm create"*) touch "$state" ;;
      *"tpu-vm describe"*) [ -f "$state" ] && echo READY ;;
      *"spherecast train"*) if [ ! -f "$lost" ]; then touch "$lost"; rm "$state"; exit 255; fi ;;
    esac
    """
    environment = _commands(tmp_path / "bin", gcloud=gcloud, sleep="")
    assert subprocess.run(["bash", str(script), "run"], env=environment).returncode == 0
    calls = (tmp_path / "bin" / "calls").read_text()
    assert calls.count("tpu-vm create quickstart --zone=us-central2-b --project=my-project --type=v4") == 2
    assert calls.count("--topology=2x2x4 --spot --version=tpu-ubuntu2204-base") == 2
    assert calls.count("spherecast train quickstart.yaml --runs-dir runs") == 2
    assert "scp quickstart.yaml dist/spherecast-0.1.0-py3-none-any.whl quickstart:" in calls
    assert "mount -t nfs 10.0.0.2:/runs runs" in calls
    helped = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True)
    assert helped.returncode == 2
    assert "create   the slice" in helped.stderr
    assert "set -e" not in helped.stderr


def test_a_training_that_fails_on_tpu_machines_is_not_tried_again(tmp_path):
    settings = {**TPU_VM, "topology": "v5e:4x4", "storage": "gs://bucket/folder", "package": "spherecast==0.1"}
    script = _write(render(_config(), "tpu-vm", **settings), tmp_path)
    gcloud = 'case "$*" in *describe*) echo READY ;; *"spherecast train"*) exit 2 ;; esac'
    environment = _commands(tmp_path / "bin", gcloud=gcloud, sleep="")
    assert subprocess.run(["bash", str(script), "run"], env=environment).returncode == 2
    calls = (tmp_path / "bin" / "calls").read_text()
    assert calls.count("spherecast train") == 1
    assert "--only-dir folder bucket runs" in calls
    made = subprocess.run(["bash", str(script), "create"], env=environment)
    assert made.returncode == 0
    assert "--accelerator-type=v5litepod-16" in (tmp_path / "bin" / "calls").read_text()


@pytest.mark.parametrize(
    ("to", "settings", "fault"),
    [
        ("gke", {**GKE, "topology": "v5e:3x4"}, "v5e comes as 1x1, 2x2"),
        ("gke", {**GKE, "topology": "v4:4x4x6"}, "multiples of 4"),
        ("gke", {**GKE, "topology": "v9:4x4"}, "expected a chip"),
        ("gke", {**GKE, "topology": "v5e:2x2", "slices": 2}, "which is one host"),
        ("gke", {**GKE, "storage": "/runs"}, r"storage .*got '/runs'"),
        ("gke", {**GKE, "namespace": "a b"}, "namespace"),
        ("gke", {"topology": "v5e:4x4"}, r"(?s)storage .*missing.*image .*missing"),
        ("gke", {**GKE, "topology": "v5e:16x16"}, "training.batch_size: got 64, expected a multiple of 256"),
        ("slurm", {"nodes": 0}, "nodes"),
        ("slurm", {"time": "soon"}, "time"),
        ("slurm", {"runs": "a; rm -r b"}, "runs"),
        ("slurm", {"queue": "gpu"}, "queue: no such setting; there are nodes"),
        ("tpu-vm", {**TPU_VM, "zone": "here"}, "zone"),
        ("tpu-vm", {**TPU_VM, "package": "$(true)"}, "package"),
        ("moon", {}, "--to: got 'moon', expected one of gke, slurm, tpu-vm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(to, settings, fault):
    with pytest.raises(InputError, match=fault):
        render(_config(), to, **settings)


def test_names_of_jobs_fit_the_names_of_hosts():
    files = render(_config("name=ERA5_0.25deg.Second--Trial-of-a-rather-long-name"), "gke", **GKE)
    (text,) = files.values()
    name = list(yaml.safe_load_all(text))[1]["metadata"]["name"]
    assert name == "era5-0-25deg-second-trial-of-a-rather-lo"
    files = render(_config("name=2nd"), "slurm")
    assert set(files) == {"run-2nd-slurm.sh", "run-2nd.yaml"}


def test_every_setting_of_a_place_is_checked_before_it_is_written():
    for settings in SETTINGS.values():
        assert settings.model_config["extra"] == "forbid"
        for name, field in settings.model_fields.items():
            free = field.annotation is str and not field.metadata and name != "topology"
            assert not free, name
