"""Every script, by hand: --help, bad usage, another working directory, stdin and stdout, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkout import ROOT
from helpers.common import files

pytestmark = pytest.mark.slow

SCRIPTS = sorted((ROOT / "scripts").glob("[!_]*.py"))
RUN = "20261122T013512Z-local-7f3a"
MISSING = {
    "new_run.py": ("--out", "{}/request.json"),  # no --new: the run should be there
    "compile_config.py": ("--request", "{}/request.json"),
    "wandb_env.py": ("--config", "{}/config.yaml", "--out", "-"),
    "submit_eval.py": ("--config", "{}/config.yaml", "--launcher", "{}/launcher.yaml", "--out", "{}/submission.json"),
    "status.py": ("--submission", "{}/submission.json"),
    "collect_results.py": ("--submission", "{}/submission.json", "--out", "-"),
    "export_results.py": ("--submission", "{}/submission.json", "--out", "{}/exports.json"),
    "show_logs.py": ("--submission", "{}/submission.json"),
    "explain_failure.py": ("{}/a.log",),
    "cancel_run.py": ("--submission", "{}/submission.json"),
    "compare_runs.py": ("--runs", "no-such-run no-other"),
    "gate.py": ("--policy", "{}/policy.yaml", "--runs", "latest"),
    "explain_value.py": ("--origins", "{}/origins.json"),
    "list_profiles.py": ("--env-file", "{}/env.toml"),
    "new_config.py": ("--config", "a/path"),
    "list_tasks.py": ("--match", "no task has this"),
    "read_variables.py": ("--value", "RUN=no-such-run"),
}


@pytest.fixture
def script(tmp_path: Path, clean_env: dict[str, str]) -> Any:
    """Run a script, named by its path, in a folder that is not the project's."""
    (tmp_path / "elsewhere").mkdir()

    def run(name: str, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / name, *arguments],
            input=stdin,
            cwd=tmp_path / "elsewhere",
            env={**clean_env, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert list((tmp_path / "elsewhere").iterdir()) == []
        return done

    return run


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_each_script_is_executable_and_says_what_it_does_with_commands_to_copy(path: Path, script: Any) -> None:
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert text.startswith('#!/usr/bin/env python3\n"""')
    done = script(path.name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(rf"^ *(?:\S+=\S+ )?(?:python3? )?scripts/{path.name}", done.stdout, re.MULTILINE)) >= 1, done.stdout
    assert re.search(r"[Ee]xit codes", text), "the docstring names the exit codes"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bad_usage_is_refused_without_a_traceback(path: Path, script: Any) -> None:
    done = script(path.name, "--no-such-option")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("name", MISSING)
def test_what_is_not_there_is_refused_in_one_line_with_exit_code_2(name: str, script: Any, tmp_path: Path) -> None:
    done = script(name, *(argument.format(tmp_path / RUN) for argument in MISSING[name]))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / RUN).exists()


def test_an_unknown_config_lists_those_there_are(script: Any, tmp_path: Path) -> None:
    for name, more in (("compile_config.py", ()), ("new_run.py", ("--new", "--out", f"{tmp_path}/{RUN}/request.json"))):
        done = script(name, "--config", "hostd", *more)
        assert done.returncode == 2
        assert "did you mean hosted?" in done.stderr
        assert "local" in done.stderr.split("configs: ")[1]


def test_the_first_steps_work_through_stdin_and_stdout(script: Any, tmp_path: Path) -> None:
    asked = script("new_run.py", "--out", "-", "--tasks", "opposites", "--quick", "2")
    assert asked.returncode == 0
    assert json.loads(asked.stdout)["quick"] == 2
    origins = tmp_path / "origins.json"
    compiled = script("compile_config.py", "--request", "-", "--out", "-", "--origins", str(origins), stdin=asked.stdout)
    assert compiled.returncode == 0, compiled.stderr
    config = yaml.safe_load(compiled.stdout)
    assert [task["name"] for task in config["evaluation"]["tasks"]] == ["opposites"]
    by_hand = script("compile_config.py", "--tasks", "opposites", "--quick", "2")
    assert yaml.safe_load(by_hand.stdout) == config
    credentials = script("wandb_env.py", "--config", "-", "--out", "-", stdin=compiled.stdout)
    assert (credentials.returncode, json.loads(credentials.stdout)["missing"]) == (0, [])
    explained = script("explain_value.py", "--origins", "-", "--key", "execution.type", stdin=origins.read_text())
    assert "process" in explained.stdout
    prepared = script("submit_eval.py", "--config", "-", "--launcher", "-", "--prepare", stdin=compiled.stdout)
    assert prepared.returncode == 0, prepared.stderr
    assert yaml.safe_load(prepared.stdout)["execution"]["type"] == "process"
    assert "run" not in yaml.safe_load(prepared.stdout)


def test_an_edited_file_on_stdin_is_refused(script: Any) -> None:
    text = script("new_run.py", "--out", "-", "--quick", "2").stdout
    done = script("compile_config.py", "--request", "-", stdin=text.replace('"quick": 2', '"quick": 3'))
    assert done.returncode == 2
    assert "edited" in done.stderr


def test_the_later_steps_work_through_stdin_and_stdout(script: Any, tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "opposites.0"
    (job / "logs").mkdir(parents=True)
    (job / "artifacts").mkdir()
    (job / "logs" / "stage.running").write_text("2026-11-22T01:35:12.000Z\n")
    (job / "logs" / "stage.exit").write_text("2026-11-22T01:35:14.000Z 0\n")
    (job / "logs" / "client_stdout.log").write_text("a line\n")
    scores = {"accuracy": {"scores": {"accuracy": {"value": 0.5, "stats": {"count": 4, "stderr": 0.25}}}}}
    (job / "artifacts" / "results.yml").write_text(yaml.safe_dump({"results": {"tasks": {"opposites": {"metrics": scores}}}}))
    row = {"task": "opposites", "index": 0, "harness": "starter", "job_id": "a" * 16 + ".0", "slurm_job_id": None, "remote_dir": None}
    submission = {"made_by": "submit_eval.py", "made_from": {}, "invocation_id": "a" * 16, "executor": "process"}
    submission |= {"submitted_at": "2026-11-22T01:35:12Z", "jobs": [{**row, "job_dir": str(job)}]}
    text = json.dumps(files.seal_json(submission), indent=2) + "\n"
    status = script("status.py", "--submission", "-", "--json", stdin=text)
    assert [seen["state"] for seen in json.loads(status.stdout)["jobs"]] == ["SUCCEEDED"], status.stderr
    results = script("collect_results.py", "--submission", "-", "--out", "-", stdin=text)
    assert [found["value"] for found in json.loads(results.stdout)["rows"]] == [0.5], results.stderr
    assert script("show_logs.py", "--submission", "-", stdin=text).stdout == "opposites | a line\n"
