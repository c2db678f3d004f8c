"""Deployments of the launcher without their containers: the command that runs, where its program is, and what is refused before a start."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT
from compiled import compile_text
from helpers.common.errors import BadInput
from helpers.executors import registry
from helpers.executors.process import children, commands
from helpers.steps import submit

ON_THIS_MACHINE = """
defaults:
  - execution: {execution}
  - deployment: {deployment}
  - _self_
deployment: {{checkpoint_path: {path}, served_model_name: m, tensor_parallel_size: 1}}
evaluation: {{tasks: [{{name: capitals}}]}}
"""


def launcher_config(
    tmp_path: Path, deployment: str, *overrides: str, path: str = "/models/mine", execution: str = "process"
) -> dict[str, Any]:
    """What the launcher gets for a deployment of its own on this machine."""
    text = ON_THIS_MACHINE.format(execution="process", deployment=deployment, path=path)
    return submit.launcher_config(compile_text(tmp_path, text, overrides=list(overrides)).config, tmp_path)


@pytest.mark.parametrize(
    ("deployment", "start"),
    [("vllm", "vllm serve /models/mine "), ("sglang", "python3 -m sglang.launch_server --model-path /models/mine ")],
)
def test_the_launcher_s_command_gets_the_real_path_and_any_free_port(tmp_path: Path, deployment: str, start: str) -> None:
    command = launcher_config(tmp_path, deployment, "deployment.port=0")["deployment"]["command"]
    assert command.startswith(start)
    assert "--port $PORT " in command
    assert "/checkpoint" not in command
    assert "--port 8123 " in launcher_config(tmp_path, deployment, "deployment.port=8123")["deployment"]["command"]


@pytest.mark.parametrize(
    ("command", "path", "runs"),
    [
        ("serve /checkpoint", "/a b", "serve '/a b'"),
        ("serve --model=/checkpoint/ x", "/m", "serve --model=/m/ x"),
        ("serve /checkpoint/tokenizer", "/data/checkpoint", "serve /data/checkpoint/tokenizer"),
        ("serve '/checkpoint'", "/m", "serve '/m'"),
        ("serve /checkpoint", "runs/m", f"serve {ROOT}/runs/m"),
        (
            "serve /a/checkpoint /checkpoints /checkpoint.bin ./checkpoint",
            "/m",
            "serve /a/checkpoint /checkpoints /checkpoint.bin ./checkpoint",
        ),
        ("serve /checkpoint", None, "serve /checkpoint"),
        ("serve --port=0 --port 0", None, "serve --port=$PORT --port $PORT"),
        ("serve --port 08 --port 0.5 --support 0", None, "serve --port 08 --port 0.5 --support 0"),
    ],
)
def test_only_the_mount_and_port_0_are_replaced(command: str, path: str | None, runs: str) -> None:
    assert commands.here({"type": "generic", "command": command, "checkpoint_path": path, "port": 0}) == runs


def test_a_port_that_is_set_stays(tmp_path: Path) -> None:
    assert commands.here({"type": "generic", "command": "serve --port 0", "port": 8000}) == "serve --port 0"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A folder as of a virtual environment, with a vllm, and a python3 that is this one without our packages."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name, text in (("vllm", "#!/bin/sh\n"), ("python3", f'#!/bin/sh\nexec "{sys.executable}" -I "$@"\n')):
        (tmp_path / "venv/bin" / name).write_text(text)
        (tmp_path / "venv/bin" / name).chmod(0o755)
    return tmp_path / "venv"


VLLM = {"type": "vllm", "command": "vllm serve /m --port 8000", "port": 8000}
SGLANG = {"type": "sglang", "command": "python3 -m sglang.launch_server", "port": 8000}


def test_a_command_that_is_there_may_start(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands.check({**VLLM, "venv": str(venv)})
    commands.check({**VLLM, "venv": str(venv), "command": "exec vllm serve"})
    commands.check({**SGLANG, "venv": str(venv), "command": "python3 -m json.tool"})
    commands.check({**VLLM, "command": "./my-own-server"})
    monkeypatch.setenv("PATH", f"{venv}/bin:{os.environ['PATH']}")
    commands.check(VLLM)


@pytest.mark.parametrize(
    ("deployment", "venv_of", "told"),
    [
        (VLLM, None, r'deployment\.type vllm: there is no vllm command on PATH; give SET="deployment\.venv=FOLDER".* vLLM'),
        (VLLM, "empty", r"there is no vllm command in .*/empty/bin; give"),
        (VLLM, "absent", r"deployment\.venv: .*/absent is no virtual environment \(it has no folder bin\)"),
        (SGLANG, "venv", r"deployment\.type sglang: .*/venv/bin/python3 has no module sglang; give .* SGLang"),
        ({"type": "generic", "command": "serve --port 8000", "port": 0}, None, r"deployment\.port is 0 .* write `--port \$PORT` there"),
    ],
)
def test_a_server_that_cannot_start_is_refused_with_the_fix(
    venv: Path, monkeypatch: pytest.MonkeyPatch, deployment: dict[str, Any], venv_of: str | None, told: str
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (venv.parent / "empty/bin").mkdir(parents=True)
    with pytest.raises(BadInput, match=told):
        registry.get("process").check({"deployment": {**deployment, "venv": venv_of and str(venv.parent / venv_of)}})


def test_a_server_of_another_environment_has_its_commands_and_none_of_our_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:/mine")
    own, theirs, on_path = (children.environment({}, {}, venv) for venv in (None, "/v", ""))
    assert own["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert own["PYTHONPATH"] == f"{ROOT}:{ROOT}/helpers/harness:/mine"
    assert (theirs["PATH"], theirs["PYTHONPATH"]) == ("/v/bin:/usr/bin", "/mine")
    assert (on_path["PATH"], on_path["PYTHONPATH"]) == ("/usr/bin", "/mine")


def test_which_environment_a_server_has() -> None:
    assert commands.environment_of({"type": "generic"}) is None
    assert commands.environment_of({"type": "vllm"}) == ""
    assert commands.environment_of({"type": "generic", "venv": "/v"}) == "/v"
    assert commands.environment_of({"type": "vllm", "venv": "v"}) == f"{ROOT}/v"


@pytest.mark.parametrize(
    ("deployment", "overrides", "seconds"),
    [("vllm", [], 900), ("sglang", [], 900), ("vllm", ["execution.endpoint_readiness_timeout=60"], 60), ("llamacpp", [], 120)],
)
def test_a_server_has_the_time_that_it_takes_to_load(tmp_path: Path, deployment: str, overrides: list[str], seconds: int) -> None:
    data = launcher_config(tmp_path, deployment, *overrides, path="m.gguf")
    assert data["execution"]["endpoint_readiness_timeout"] == seconds


@pytest.mark.parametrize(
    ("execution", "deployment", "override", "told"),
    [
        ("process", "vllm", "deployment.pre_cmd=x", ["deployment.image", "deployment.pre_cmd"]),
        ("process", "llamacpp", "deployment.port=0", []),
        ("docker", "vllm", "deployment.venv=/opt/vllm", ["deployment.venv"]),
    ],
)
def test_keys_of_a_deployment_without_effect_are_named(
    tmp_path: Path, execution: str, deployment: str, override: str, told: list[str]
) -> None:
    text = ON_THIS_MACHINE.format(execution=execution, deployment=deployment, path="/m")
    notices = [text for text in compile_text(tmp_path, text, overrides=[override]).notices if "no effect" in text]
    assert [text.split(": ")[1].split()[0] for text in notices] == told
    assert all(f"execution.type {execution}" in text for text in notices)


@pytest.mark.parametrize("execution", ["docker", "slurm/default"])
def test_any_free_port_is_refused_for_a_container(tmp_path: Path, execution: str) -> None:
    text = ON_THIS_MACHINE.format(execution=execution, deployment="vllm", path="/m")
    where = ["execution.hostname=h", "execution.account=a", "execution.output_dir=/o"] if "slurm" in execution else []
    with pytest.raises(BadInput, match=r'SET deployment\.port: .*only with execution\.type process.* give SET="deployment\.port=8000"'):
        compile_text(tmp_path, text, overrides=["deployment.port=0", *where])
