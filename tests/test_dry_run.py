"""`make dry-run` contacts nothing: no program that would, and no address, whatever the config names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from checkout import Make

# Loaded by every Python of the run: it writes down each address that is looked up or connected to, and refuses it.
TRIPWIRE = """
import os, socket

def refuse(name):
    def call(*arguments, **options):
        if name == "connect" and arguments[0].family == socket.AF_UNIX:
            return original(*arguments, **options)
        with open(os.environ["TRIPWIRE"], "a") as file:
            file.write(f"{name} {arguments!r}\\n")
        raise OSError("no network here")
    original = getattr(socket.socket, name, None)
    return call

socket.socket.connect = refuse("connect")
socket.socket.connect_ex = refuse("connect_ex")
socket.getaddrinfo = refuse("getaddrinfo")
"""
PROGRAMS = ("ssh", "scp", "sftp", "rsync", "curl", "docker", "podman", "skopeo", "enroot", "sbatch", "squeue")
PROFILES = """
[wandb]
project = "p"
entity = "e"

[CLUSTER]
executor = "slurm"
account = "a"
host = "login.invalid"
remote_job_dir = "/lustre/me"

[DOCKER]
executor = "docker"
"""
UNLISTED = "registry.invalid/own:1"
CONFIG = f"""
defaults:
  - execution: slurm/default
  - deployment: vllm
  - _self_
run: {{model: rl:latest}}
execution: {{auto_export: {{destinations: [wandb]}}}}
deployment: {{checkpoint_path: "${{art:model,path}}"}}
evaluation:
  tasks:
    - name: hellaswag
    - name: own.new
      container: {UNLISTED}
      endpoint_type: completions
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("PROFILE=CLUSTER", "CONFIG=own", "VERBOSE=1"),
        ("PROFILE=DOCKER", "CONFIG=own", "SET=execution=docker deployment.checkpoint_path=/models/mine"),
        ("CONFIG=hosted", "SET=target.api_endpoint.url=https://endpoint.invalid/v1/chat/completions target.api_endpoint.model_id=m"),
        (),
    ],
)
def test_a_dry_run_contacts_nothing(words: tuple[str, ...], make: Make, clean_env: dict[str, str], project: Path, tmp_path: Path) -> None:
    (project / "env.toml").write_text(PROFILES)
    (project / "configs" / "own.yaml").write_text(CONFIG)
    tripwire, bin_, site = tmp_path / "contacted", tmp_path / "bin", tmp_path / "site"
    for folder in (bin_, site):
        folder.mkdir()
    for name in PROGRAMS:
        real = shutil.which(name)  # `ssh -G` prints ssh's own configuration
        asks_itself = f'[ "$1" != -G ] || exec {real} "$@"\n' if real else ""
        (bin_ / name).write_text(f'#!/bin/sh\n{asks_itself}echo "{name} $*" >> "$TRIPWIRE"\nexit 255\n')
        (bin_ / name).chmod(0o755)
    (site / "sitecustomize.py").write_text(TRIPWIRE)
    environ = {
        "TRIPWIRE": str(tripwire),
        "PATH": f"{bin_}:{clean_env['PATH']}",
        "PYTHONPATH": str(site),
        "WANDB_API_KEY": "wandb_v1_" + "Dry5run_" * 9 + "9",
        "OPENAI_API_KEY": "sk-" + "dry-run-" * 4,
        "NEMO_EVALUATOR_TRUST_UNLISTED_TASKS": "1",
    }
    done = make("dry-run", *words, env=environ)
    assert done.returncode == 0, done.stderr
    assert "nothing was contacted" in done.stderr
    assert not tripwire.exists(), tripwire.read_text()
    if "VERBOSE=1" in words:
        assert UNLISTED in done.stdout
        assert "WANDB_RUN_ID=" in done.stdout
