"""helpers/steps/show.py: which jobs a person means, what a status says, and what of it is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.common import files
from helpers.common.errors import BadInput, TaskFailed, Unreachable
from helpers.steps import show, status

RUN = "20261122T013512Z-mine-7f3a"
INVOCATION = "0" * 16


def row(task: str, index: int, state: str, **fields: Any) -> dict[str, Any]:
    base = {"task": task, "index": index, "job_id": f"{INVOCATION}.{index}", "state": state, "reason": "", "exit_code": None}
    return {**base, "requests_done": None, "requests_total": None, "seconds": None, "log": None, **fields}


def seen(*rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    head = {"made_by": "t", "made_from": {}, "asked_at": "2026-11-22T01:35:12Z", "invocation_id": INVOCATION}
    return {**head, "jobs": list(rows), **fields}


JOBS = {"jobs": [{"task": "a", "index": 0}, {"task": "b", "index": 1}, {"task": "a", "index": 2}]}


@pytest.mark.parametrize(
    ("wanted", "indices"), [([], [0, 1, 2]), (["b"], [1]), (["a"], [0, 2]), (["a.2"], [2]), (["a.0", "b"], [0, 1]), (["a", "a.2"], [0, 2])]
)
def test_a_task_that_a_run_has_twice_is_named_with_its_number_or_both_are_meant(wanted: list[str], indices: list[int]) -> None:
    assert [job["index"] for job in show.chosen_jobs(JOBS, wanted)] == indices


def test_a_task_that_the_run_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(BadInput, match=r"TASKS: this run has no task a\.1 \(did you mean a\.2\?\); it has a\.0, b, a\.2, a"):
        show.chosen_jobs(JOBS, ["b", "a.1"])


def test_a_status_names_the_job_the_chain_the_log_and_the_lines_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    document = seen(
        row("a", 0, "SUCCEEDED", slurm_job_id="5", chain=["5"], expected_start=None, errors=[], log="/r/a.log"),
        row("b", 1, "FAILED", slurm_job_id="8", chain=["6", "7", "8"], reason="it failed", log="/r/b.log", errors=["x\x1b[2J", "y"]),
        row("c", 2, "PENDING", slurm_job_id="9", chain=["9"], reason="Priority: others", expected_start="2026-11-25T01:00:00"),
        not_asked=["accounting is disabled"],
    )
    show.status_table(document, Path(RUN))
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
        (["SUCCEEDED", "FAILED"], f"`make results RUN={RUN}` shows the scores, `make resume RUN={RUN}` runs what failed again"),
        (["UNREACHABLE"], ""),
        (["INTERRUPTED"], ""),
    ],
)
def test_a_status_says_what_can_be_done_next(states: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    show.status_table(seen(*(row(f"t{number}", number, state) for number, state in enumerate(states))), Path(RUN))
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
        show.statuses([{}, {}], paths, outs, as_json=False)
    assert not Path(outs[0]).exists()
    assert files.read_json(outs[1], "status")["jobs"][0]["state"] == "RUNNING"
    shown = capsys.readouterr().out
    assert "UNREACHABLE" in shown
    assert "RUNNING" in shown


def test_as_json_each_run_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(status, "ask_all", lambda _submissions: ([seen(row("a", 0, "RUNNING")), seen(row("b", 0, "PENDING"))], []))
    show.statuses([{}, {}], ["-", "-"], [], as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["jobs"][0]["task"] for line in lines] == ["a", "b"]


def test_watching_ends_when_all_have_ended_and_asks_again_what_was_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter(["RUNNING", "UNREACHABLE", "RUNNING", "SUCCEEDED"])
    monkeypatch.setattr(status, "ask_all", lambda _submissions: ([seen(row("a", 0, next(states)))], []))
    monkeypatch.setattr(show.time, "sleep", lambda _seconds: None)
    out = tmp_path / "status.json"
    show.watch([{}], [str(tmp_path / RUN / "submission.json")], [str(out)])
    assert next(states, None) is None
    assert files.read_json(out, "status")["jobs"][0]["state"] == "SUCCEEDED"
    assert f"`make results RUN={RUN}` shows the scores" in capsys.readouterr().err


def test_the_verdict_names_each_task_without_results_and_how_to_go_on(tmp_path: Path) -> None:
    entries = [
        {
            "task": "a", "index": index, "harness": "h", "state": state, "reason": "it failed", "seconds": None, "samples_asked": None,
            "samples_failed": None, "chance": None, "results_file": None,
        }
        for index, state in enumerate(("SUCCEEDED", "TIMED_OUT"))
    ]  # fmt: skip
    run = tmp_path / RUN
    run.mkdir()
    head = {"made_by": "t", "made_from": {}, "invocation_id": INVOCATION, "model": None, "rows": []}
    files.write_json(run / "results.json", {**head, "tasks": entries}, "results")
    said = rf"1 of 2 tasks failed: a\.1; `make logs RUN={RUN}` shows why, `make resume RUN={RUN}` runs them again"
    with pytest.raises(TaskFailed, match=said):
        show.verdict(str(run / "results.json"))
