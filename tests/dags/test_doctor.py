"""The doctor says what works, what is missing, and which artefact is damaged."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path

import pytest

from dags import doctor
from dags.doctor import Finding
from dags.stages import STAGES
from dags.state import State
from dags.verifying import verify_run

SECRET = "hunter2-key"


def faults(findings) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings if finding.level == "fault"}


def flip(path: Path, position: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])


def test_a_sound_run_has_no_faults(finished, chain):
    findings = list(verify_run(finished.directory, chain.STAGES))
    assert [finding.name for finding in findings] == list(chain.STAGES)
    assert {finding.level for finding in findings} == {"sound"}
    assert "checksums and lineage agree" in findings[0].found


def test_a_flipped_byte_is_found_in_every_artefact(finished, chain):
    for name, stage in chain.STAGES.items():
        for artefact in stage.artefacts:
            path = finished.directory / artefact
            flip(path, path.stat().st_size - 4)
            found = faults(verify_run(finished.directory, chain.STAGES))
            assert list(found) == [name]
            assert f"{artefact}: differs from its checksum" in found[name].found
            assert found[name].mend == f"spherecast run {finished.directory} --force {name}"
            flip(path, path.stat().st_size - 4)
    assert not faults(verify_run(finished.directory, chain.STAGES))


@pytest.mark.slow
def test_a_flipped_byte_is_found_in_every_file_of_a_real_run(tiny_run, tmp_path):
    run = tmp_path / "tiny"
    shutil.copytree(tiny_run, run)
    assert not faults(verify_run(run))
    damaged = {}
    for name, stage in STAGES.items():
        for artefact in stage.artefacts:
            path = run / artefact
            files = [path] if path.is_file() else [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
            chosen = max(files, key=lambda entry: entry.stat().st_size)
            flip(chosen, chosen.stat().st_size // 2)
            damaged[name] = artefact
    found = faults(verify_run(run))
    assert list(found) == list(STAGES)
    for name, artefact in damaged.items():
        assert artefact in found[name].found


def test_lineage_and_what_is_missing(finished, chain):
    run = finished.directory
    finished.run("training.seed=3", until=["train"])
    found = faults(verify_run(run, chain.STAGES))
    assert list(found) == ["evaluate"]
    assert "m/model.json: was made from another result of train than is there" in found["evaluate"].found
    assert found["evaluate"].mend == f"spherecast run {run}"
    (run / "climatology.json").unlink()
    assert faults(verify_run(run, chain.STAGES))["climatology"].found == "climatology.json is missing"


def test_what_is_not_made_yet_is_no_fault(fresh, chain):
    fresh.run(until=["regrid"])
    found = {finding.name: finding for finding in verify_run(fresh.directory, chain.STAGES)}
    assert found["train"].level == "note"
    assert found["train"].found == "not made yet"
    State(fresh.directory).update("train", state="done")
    assert "train" in faults(verify_run(fresh.directory, chain.STAGES))


def test_the_installation_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda: iter(()))
    findings = list(doctor.examine(tmp_path / "runs" / "not-yet", {"AWS_ACCESS_KEY_ID": SECRET, "HOME": str(tmp_path)}))
    named = {finding.name: finding for finding in findings}
    assert not faults(findings)
    assert named["packages"].level == "sound"
    assert str(tmp_path) in named["runs"].found
    assert (named["Amazon S3"].found, named["Google Cloud"].found) == ("present", "absent")
    assert SECRET not in str(findings)
    assert list(tmp_path.iterdir()) == []


def test_an_old_package_and_a_missing_extra_are_named_with_the_mend(monkeypatch, tmp_path):
    versions = {"numpy": "1.26.4"}
    real = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: versions.get(name) or real(name))
    found = faults(doctor._versions())
    assert list(found) == ["numpy"]
    assert found["numpy"].found.startswith("numpy 1.26.4, expected >=2")
    assert found["numpy"].mend.startswith("pip install 'numpy>=2")
    monkeypatch.setattr(doctor, "_requirements", lambda: iter([(doctor.Requirement("no-such-package>=1"), "gcs")]))
    (gcs,) = (finding for finding in doctor._extras() if finding.name == "gcs")
    assert (gcs.level, gcs.found) == ("note", "no-such-package is not installed")
    assert "pip install 'spherecast[gcs]'" in gcs.mend


def test_devices_that_fail_or_hang_are_faults(monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE", "raise RuntimeError('no driver')")
    assert faults(doctor._devices())["JAX"].found == "RuntimeError: no driver"
    monkeypatch.setattr(doctor, "_PROBE", "import time; time.sleep(30)")
    monkeypatch.setattr(doctor, "_PATIENCE", 0.2)
    assert "does not answer within 0.2 s" in faults(doctor._devices())["JAX"].found
    monkeypatch.setattr(doctor, "_PROBE", 'print(\'devices:[["tpu", "TPU v4"]]\')')
    monkeypatch.setattr(doctor, "_PATIENCE", 60.0)
    (device,) = doctor._devices()
    assert (device.level, device.found) == ("sound", "tpu: 1 x TPU v4")


def test_a_folder_that_cannot_be_written_to_is_a_fault(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(doctor, "_try_writing", refuse)
    (found,) = doctor._folder("runs", tmp_path)
    assert found.level == "fault"
    assert "cannot write and lock there (Read-only file system)" in found.found


def test_the_command(say, finished, monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda: iter(()))
    monkeypatch.setattr(
        "dags.commands.runs.verify_run", lambda run: iter([doctor.fault("Run", "train", "a\nb", "mend")])
    )
    status, text = say("doctor")
    assert status == 0, text
    assert "All is well." in text
    status, text = say("doctor", "fake", "--runs-dir", finished.directory.parent)
    assert status == 1
    assert "1 fault." in text
    assert ["fault", "train", "a"] in [line.split() for line in text.splitlines()]


def test_a_gpu_that_jax_does_not_see_is_noted(monkeypatch):
    done = subprocess.CompletedProcess([], 0, stdout='devices:[["cpu", "cpu"]]\n', stderr="")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *arguments, **options: done)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    levels = {finding.name: finding.level for finding in doctor._devices()}
    assert levels == {"JAX": "sound", "GPU": "note"}
