"""Nothing read from outside is run, no path leaves its folder, and credentials are shown nowhere."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import redaction
from pipeline.config_files import load_config
from pipeline.processes.launch import render
from pipeline.redaction import expand, hide, redact, remember
from pipeline.reporting.facts import reproduce
from transforms.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for name in ("dags", "pipeline", "model", "transforms") for path in sorted((ROOT / name).rglob("*.py"))]
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "cloudpickle.loads", "joblib.load"),
    *("marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle", "pd.read_pickle", "torch.load"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *(
        "tarfile.open",
        "zipfile.ZipFile",
        "shutil.unpack_archive",
    ),  # There are no archives; their members need confining.
    "tempfile.mktemp",
}
SECRET = "tr0ub4dor-and-3"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Leave no test's credentials to the next."""
    monkeypatch.setattr(redaction, "_known", set())


def faults_of(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN:
                found.append(f"{node.lineno}: {name}")
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
                if (keyword.arg == "shell" and value is not False) or (
                    keyword.arg == "allow_pickle" and value is not False
                ):
                    found.append(f"{node.lineno}: {keyword.arg}={ast.unparse(keyword.value)}")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if {"pickle", "dill", "cloudpickle", "shelve", "marshal"} & {name.split(".")[0] for name in (*names, *module)}:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path):
    assert faults_of(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "import pickle",
        "from pickle import loads",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "os.system(text)",
    ],
)
def test_what_is_forbidden_is_found(source):
    assert faults_of(ast.parse(source))


def test_yaml_builds_no_objects(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/owned']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        load_config(path)
    with pytest.raises(InputError, match="not valid YAML"):
        load_config("tiny", [f"name=!!python/object/apply:os.system ['touch {tmp_path}/owned']"])
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc", ".hidden", "a/b", "", "a\nb"])
def test_a_run_stays_in_its_folder(name):
    with pytest.raises(InputError, match="name"):
        load_config("tiny", [f"name={json.dumps(name)}"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:tree@host/era5.zarr", "https://***@host/era5.zarr"),
        ("s3://b/x?X-Amz-Signature=0af3&v=1", "s3://b/x?X-Amz-Signature=***&v=1"),
        ("https://a.blob/x.zarr?sv=2024&sig=aGk%3D", "https://a.blob/x.zarr?sv=2024&sig=***"),
        ("read 'https://h/x?token=abc' twice", "read 'https://h/x?token=***' twice"),
        ("https://host:8443/era5.zarr?level=5", "https://host:8443/era5.zarr?level=5"),
        ("gs://bucket/era5.zarr at 12:30 by a@b", "gs://bucket/era5.zarr at 12:30 by a@b"),
    ],
)
def test_addresses_lose_their_credentials(text, shown):
    assert redact(text) == shown


def test_storage_options_are_hidden_wherever_they_stand():
    options = {
        "secret": SECRET,
        "token": "anon",
        "endpoint_url": "https://host",
        "client_kwargs": {"headers": [SECRET[::-1]]},
    }
    remember(options)
    assert redact(f"failed with {SECRET} and {SECRET[::-1]} at https://host, anon") == (
        "failed with *** and *** at https://host, anon"
    )
    shown = hide({"source": {"storage_options": options, "path": f"s3://b?key={SECRET}"}, "name": "x"})
    assert SECRET not in str(shown)
    assert shown["source"]["storage_options"]["token"] == "anon"
    assert shown["name"] == "x"


def test_a_configuration_is_shown_without_credentials():
    config = load_config(
        "tiny", ["source.kind=store", "source.path=s3://b/x", f"source.storage_options={{secret: {SECRET}}}"]
    )
    assert config.holds_credentials
    assert SECRET in config.to_yaml()
    for text in (config.to_yaml(shown=True), json.dumps(config.shown()), reproduce(config)):
        assert SECRET not in text
        assert "***" in text
    with pytest.raises(InputError, match="hold credentials") as refused:
        render(config, "slurm", nodes=1)
    assert SECRET not in str(refused.value)


def test_a_configuration_may_name_a_variable_instead(monkeypatch):
    config = load_config(
        "tiny", ["source.kind=store", "source.path=s3://b/x", "source.storage_options={secret: '${MY_KEY}'}"]
    )
    assert not config.holds_credentials
    assert "${MY_KEY}" in config.to_yaml()
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(InputError, match=r"source\.storage_options\.secret: refers to the environment variable MY_KEY"):
        config.source.access()
    monkeypatch.setenv("MY_KEY", SECRET)
    assert config.source.access() == ("s3://b/x", {"secret": SECRET})
    assert redact(f"denied for {SECRET}") == "denied for ***"
    assert expand(["${MY_KEY}/x", 3], "k") == [f"{SECRET}/x", 3]


def test_errors_of_a_configuration_do_not_repeat_credentials():
    with pytest.raises(InputError) as error:
        load_config("tiny", [f"source.storage_options={SECRET}"])
    assert SECRET not in str(error.value)
    with pytest.raises(InputError) as error:
        load_config("tiny", ["source.kind=[https://ann:tree@host]"])
    assert "tree" not in str(error.value)


def test_what_a_stage_prints_is_redacted(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    remember({"secret": SECRET})
    redaction.guard_streams()
    redaction.guard_streams()
    print(f"the key is {SECRET}")
    handler = logging.StreamHandler()
    handler.emit(logging.LogRecord("x", logging.ERROR, "", 0, "key %s", (SECRET,), None))
    assert stream.getvalue() == "the key is ***\nkey ***\n"


def planted(run: Path) -> list[str]:
    """Return the files of a run that hold the secret, but for the configuration, which only its owner can read."""
    assert run.joinpath("config.yaml").stat().st_mode & 0o077 == 0
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "config.yaml"]
    assert files
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


def test_a_failed_read_does_not_tell_the_credentials(tmp_path):
    command = [sys.executable, "-m", "dags", "run", "tiny", "source.kind=store", "--runs-dir", str(tmp_path / "runs")]
    address = f"https://ann:{SECRET}@127.0.0.1:9/era5.zarr?sig={SECRET}"
    done = subprocess.run([*command, f"source.path={address}"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert "source.path: https://***@127.0.0.1:9/era5.zarr?sig=***" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_secret_planted_in_a_whole_run_is_in_its_configuration_alone(tiny_run, tmp_path):
    runs = tmp_path / "runs"
    options = yaml.safe_dump({"secret": SECRET}, default_flow_style=True).strip()
    command = [sys.executable, "-m", "dags", "run", "tiny", "source.kind=store", "--runs-dir", str(runs)]
    command += [f"source.path=file://{tiny_run}/source.zarr", f"source.storage_options={options}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert planted(runs / "tiny") == []
    assert "***" in (runs / "tiny" / "report.html").read_text()
