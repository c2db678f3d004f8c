"""helpers/steps/status.py: what a status says, what of it is written, and what asking costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT
from helpers.common import files
from helpers.common.errors import Unreachable
from helpers.executors import job_folder
from helpers.steps import status
from local_jobs import DONE, make_jobs, plan_of

RUN = "20261122T013512Z-mine-7f3a"
INVOCATION = "0" * 16


def row(task: str, index: int, state: str, **fields: Any) -> dict[str, Any]:
    base = {"task": task, "index": index, "job_id": f"{INVOCATION}.{index}", "state": state, "reason": "", "exit_code": None}
    return {**base, "requests_done": None, "requests_total": None, "seconds": None, "log": None, **fields}


def seen(*rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    head = {"made_by": "t", "made_from": {}, "asked_at": "2026-11-22T01:35:12Z", "invocation_id": INVOCATION}
    return {**head, "jobs": list(rows), **fields}


def test_a_status_names_the_job_the_chain_the_log_and_the_lines_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    document = seen(
        row("a", 0, "SUCCEEDED", slurm_job_id="5", chain=["5"], expected_start=None, errors=[], log="/r/a.log"),
        row("b", 1, "FAILED", slurm_job_id="8", chain=["6", "7", "8"], reason="it failed", log="/r/b.log", errors=["x\x1b[2J", "y"]),
        row("c", 2, "PENDING", slurm_job_id="9", chain=["9"], reason="Priority: others", expected_start="2026-11-25T01:00:00"),
        not_asked=["accounting is disabled"],
    )
    status.print_table(document, Path(RUN))
    shown = capsys.readouterr()
    assert "8 (+2)" in shown.out
    assert "Priority: others; expected start 2026-11-25T01:00:00" in " ".join(shown.out.replace("│", " ").split())
    assert shown.out.splitlines()[-3:] == ["b: /r/b.log", "  > x\\x1b[2J", "  > y"]
    assert "[notice] accounting is disabled" in shown.err
    assert f"`make logs RUN={RUN}` shows the logs, `make cancel RUN={RUN}` stops it" in shown.err


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["SUCCEEDED"], f"`make results RUN={RUN}` shows the scores"),
        (["SUCCEEDED", "FAILED"], f"`make results RUN={RUN}` shows the scores, `make resume RUN={RUN}` runs the failed tasks again"),
        (["UNREACHABLE"], ""),
        (["INTERRUPTED"], ""),
    ],
)
def test_a_status_says_what_can_be_done_next(states: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status.print_table(seen(*(row(f"t{number}", number, state) for number, state in enumerate(states))), Path(RUN))
    assert capsys.readouterr().err.strip() == said


def test_of_a_cluster_that_was_not_reached_nothing_is_written_and_the_others_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [seen(row("a", 0, "UNREACHABLE", reason="no route")), seen(row("b", 0, "RUNNING"))]
    monkeypatch.setattr(status, "ask_all", lambda _submissions: (found, [Unreachable("no route to h1"), Unreachable("later")]))
    paths = [str(tmp_path / name / "submission.json") for name in ("one", "other")]
    for path in paths:
        Path(path).parent.mkdir()
    outs = [str(Path(path).with_name("status.json")) for path in paths]
    with pytest.raises(Unreachable, match="no route to h1"):
        status.show_all([{}, {}], paths, outs, as_json=False)
    assert not Path(outs[0]).exists()
    assert files.read_json(outs[1], "status")["jobs"][0]["state"] == "RUNNING"
    shown = capsys.readouterr().out
    assert "UNREACHABLE" in shown
    assert "RUNNING" in shown


def test_as_json_each_run_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(status, "ask_all", lambda _submissions: ([seen(row("a", 0, "RUNNING")), seen(row("b", 0, "PENDING"))], []))
    status.show_all([{}, {}], ["-", "-"], [], as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["jobs"][0]["task"] for line in lines] == ["a", "b"]


def test_watching_ends_when_all_have_ended_and_asks_again_what_was_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter(["RUNNING", "UNREACHABLE", "RUNNING", "SUCCEEDED"])
    monkeypatch.setattr(status, "ask_all", lambda _submissions: ([seen(row("a", 0, next(states)))], []))
    monkeypatch.setattr(status.time, "sleep", lambda _seconds: None)
    out = tmp_path / "status.json"
    status.watch([{}], [str(tmp_path / RUN / "submission.json")], [str(out)])
    assert next(states, None) is None
    assert files.read_json(out, "status")["jobs"][0]["state"] == "SUCCEEDED"
    assert f"`make results RUN={RUN}` shows the scores" in capsys.readouterr().err


def test_the_script_gives_valid_status_json_and_imports_neither_launcher_nor_wandb(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path / "jobs", {"a": DONE})
    job_folder.stage(jobs / "a.0", "exit", 1)
    job = {"task": "a", "index": 0, "harness": "h", "job_id": "i.0", "slurm_job_id": None, "remote_dir": None, "job_dir": str(jobs / "a.0")}
    document = {
        "made_by": "test",
        "made_from": {},
        "invocation_id": plan_of(jobs)["invocation_id"],
        "executor": "process",
        "submitted_at": "2026-11-22T01:02:03Z",
        "jobs": [job],
    }
    files.write_json(tmp_path / "submission.json", document, "submission")
    command = [sys.executable, "-X", "importtime", "scripts/status.py", "--submission", str(tmp_path / "submission.json"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["jobs"][0]["state"] == "FAILED"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "helpers" in imported
    assert not imported & {"nemo_evaluator_launcher", "nemo_evaluator", "wandb", "hydra", "omegaconf", "nemo_run"}
