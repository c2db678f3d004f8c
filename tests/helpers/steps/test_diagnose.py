"""helpers/steps/diagnose.py: the line that tells, the cause and the fix, of any log and of the failed tasks of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from helpers.common import files
from helpers.common.errors import BadInput
from helpers.executors import job_folder
from helpers.steps import diagnose

RUN = "20261122T013512Z-mine-7f3a"
INVOCATION = "a" * 16
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
TIMEOUT = "urllib3.exceptions.ReadTimeoutError: Read timed out. (read timeout=3600)"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "lines", "line", "cause", "fix"),
    [
        ("log", ["[INFO] Querying registry", "[ERROR] URL https://r.example/v2/a/b/manifests/1 returned error code: 404 Not Found"], 1,
         "r.example has no such image (404)", "check the name and the tag"),
        ("log", ["[INFO] Querying registry", "[INFO] Authenticating with user: me"], 1, "the registry refuses the credentials", "password"),
        ("a.txt", ["tar: ./opt/blob: Wrote only 5632 of 10240 bytes"], 0, "no space is left", "make clean-images"),
        ("a.txt", ["enroot-nsenter: failed to create user namespace: No space left on device"], 0, "no disk is full", "administrators"),
        ("a.txt", ["50%", TIMEOUT, "done"], 1, "the evaluation's requests timed out", "request_timeout=7200"),
        ("a.txt", ["starting", OOM], 1, "ran out of GPU memory", "tensor_parallel_size"),
        ("server-12.log", [OOM, "Read timed out"], 0, "ran out of GPU memory", "tensor_parallel_size"),
        ("slurm-12.log", ["+ srun", "server process 42 died"], 1, "died before it was ready", "WHICH=server"),
    ],
)  # fmt: skip
def test_a_log_of_any_kind_shows_its_line_its_cause_and_the_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, lines: list[str], line: int, cause: str, fix: str
) -> None:
    path = write(tmp_path / name, *lines)
    diagnose.show_logs([str(path)])
    head, *shown = capsys.readouterr().out.splitlines()
    assert head == str(path)
    assert shown[0] == f"  line   {lines[line]}"
    assert shown[1].startswith("  cause  ")
    assert cause in shown[1]
    assert shown[2].startswith("  fix    ")
    assert fix in shown[2]


def test_a_log_that_says_nothing_known_shows_the_line_that_tells_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.txt", "ValueError: no such subject\x1b[2J", "bye")
    diagnose.show_logs([str(path)])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  line   ValueError: no such subject\\x1b[2J",
        "  cause  no known text is in it: read what is before this line",
    ]
    diagnose.show_logs([str(write(tmp_path / "empty"))])
    assert "no known text is in it" in capsys.readouterr().out


def test_several_logs_and_standard_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("curl: (18) transfer closed with 5 bytes remaining to read\n"))
    diagnose.show_logs([str(write(tmp_path / "a.txt", OOM)), "-"])
    out = capsys.readouterr().out
    assert out.index("GPU memory") < out.index("standard input") < out.index("the connection to the registry broke")


@pytest.mark.parametrize("name", ["", "missing"])
def test_what_is_no_log_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="LOG="):
        diagnose.show_logs([str(tmp_path / name)])


# ---- The failed tasks of a run -----------------------------------------------------------------------------------------------------------


def make_run(runs: Path, *states: str, reason: str = "", with_status: bool = True) -> Path:
    """A run with a task for each state, on this machine; the path of its submission.json."""
    run = runs / RUN
    jobs, rows = [], []
    for index, state in enumerate(states):
        name = {"task": f"t{index}", "index": index, "job_id": f"{INVOCATION}.{index}"}
        place: dict[str, Any] = {"slurm_job_id": None, "remote_dir": None, "job_dir": str(run / "jobs" / f"t{index}.{index}")}
        jobs.append({**name, "harness": "starter", **place})
        counts = {"exit_code": 1, "requests_done": None, "requests_total": None, "seconds": 1.0, "log": None}
        rows.append({**name, "state": state, "reason": reason if state != "SUCCEEDED" else "", **counts})
    run.mkdir(parents=True)
    head = {"made_from": {}, "invocation_id": INVOCATION}
    submission = {"made_by": "t", **head, "executor": "process", "submitted_at": "2026-11-22T01:35:12Z", "jobs": jobs}
    files.write_json(str(run / "submission.json"), submission, "submission")
    if with_status:
        files.write_json(str(run / "status.json"), {"made_by": "t", **head, "asked_at": "2026-11-22T01:35:12Z", "jobs": rows}, "status")
    return run / "submission.json"


def test_each_failed_task_shows_what_its_logs_show_first_and_others_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path, "FAILED", "SUCCEEDED", "TIMED_OUT")
    write(path.parent / "jobs/t0.0/logs/server_stdout.log", OOM)
    write(path.parent / "jobs/t0.0/logs/client_stdout.log", TIMEOUT)
    write(path.parent / "jobs/t1.1/logs/client_stdout.log", TIMEOUT)
    write(path.parent / "jobs/t2.2/logs/client-9.log", TIMEOUT)
    diagnose.show_tasks(str(path))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "t0: FAILED"
    assert shown[1] == f"  line   {OOM}"
    assert "GPU memory" in shown[2]
    assert shown[4] == "t2: TIMED_OUT"
    assert "request_timeout" in shown[7]
    assert len(shown) == 8


def test_where_the_job_only_says_that_the_server_died_the_server_s_own_line_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path, "FAILED")
    write(path.parent / "jobs/t0.0/logs/slurm-9.log", "server process 42 died")
    write(path.parent / "jobs/t0.0/logs/server-9.log", "ValueError: something new", "bye")
    diagnose.show_tasks(str(path))
    assert "  line   ValueError: something new" in capsys.readouterr().out


def test_a_task_without_a_log_or_a_cancelled_one_shows_what_its_status_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path, "NODE_FAILED", "CANCELLED", reason="as its status says")
    write(path.parent / "jobs/t1.1/logs/client_stdout.log", TIMEOUT)
    diagnose.show_tasks(str(path))
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1] == "  cause  as its status says"
    assert "request_timeout" not in shown.out
    assert shown.err == f"[notice] its logs are not here: `make results RUN={RUN}` copies them\n"


def test_a_run_without_failed_tasks_or_without_a_status_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diagnose.show_tasks(str(make_run(tmp_path / "a", "SUCCEEDED", "RUNNING")))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"no task of {RUN} has failed" in shown.err
    with pytest.raises(BadInput, match=f"`make status RUN={RUN}` writes it"):
        diagnose.show_tasks(str(make_run(tmp_path / "b", "FAILED", with_status=False)))


def test_of_several_jobs_of_a_task_the_newest_logs_count_but_not_that_of_a_successor_that_only_ended(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for number in (9, 10):
        write(logs / f"client-{number}.log", "x")
        write(logs / f"slurm-{number}.log", "x")
    write(logs / "slurm-11.log", "Previous job 10 ended in FAILED state. EXIT!")
    write(logs / "client_stdout.txt", "x")
    assert job_folder.logs(tmp_path) == {"client": logs / "client-10.log", "slurm": logs / "slurm-10.log"}
