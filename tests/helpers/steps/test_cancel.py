"""helpers/steps/cancel.py: of several runs each is stopped, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.common import files, step
from helpers.common.errors import BadInput
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import start
from helpers.steps import cancel
from local_jobs import LONG, left, make_jobs, plan_of, until

NOT_SUBMITTED, ELSEWHERE, RUNNING = (f"20261122T01351{digit}Z-local-7f3a" for digit in "123")


@pytest.fixture
def runs(tmp_path: Path, clean_env: dict[str, str]) -> Iterator[Path]:
    """Three runs: one was not submitted, the supervisor of one is on another host (its lock is held), one is running."""
    (tmp_path / NOT_SUBMITTED).mkdir()
    for name in (ELSEWHERE, RUNNING):
        jobs = make_jobs(tmp_path / name / "jobs", {"a": LONG})
        job = {"task": "a", "index": 0, "harness": "h", "job_id": "i.0", "slurm_job_id": None, "remote_dir": None}
        document = {
            "made_by": "test", "made_from": {}, "invocation_id": plan_of(jobs)["invocation_id"], "executor": "process",
            "submitted_at": "2026-11-22T01:35:12Z", "jobs": [{**job, "job_dir": str(jobs / "a.0")}],
        }  # fmt: skip
        files.write_json(tmp_path / name / "submission.json", document, "submission")
    yield tmp_path
    process_jobs.stop(tmp_path / RUNNING / "jobs", process_jobs.CANCELLED_CODE)


@pytest.mark.slow
def test_one_that_cannot_be_stopped_does_not_keep_the_others_running(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = runs / RUNNING / "jobs"
    start.start(jobs)
    until((jobs / "a.0/artifacts/begun").exists)
    held = runs / ELSEWHERE / "jobs"
    supervised = process_jobs.is_supervised
    monkeypatch.setattr(process_jobs, "is_supervised", lambda folder: folder == held or supervised(folder))

    assert cancel.cancel_each([runs / name / "submission.json" for name in (NOT_SUBMITTED, ELSEWHERE, RUNNING)], []) == 1
    assert left(jobs) == []
    said = capsys.readouterr().err
    assert f"error: {NOT_SUBMITTED} was not submitted" in said
    assert f"error: {ELSEWHERE}: a process on another host runs the jobs" in said
    codes = [ended.code for name in (NOT_SUBMITTED, ELSEWHERE, RUNNING) if (ended := step.last_exit(runs / name))]
    assert codes == [2, 1, 0]
    assert cancel.cancel_each([runs / name / "submission.json" for name in (NOT_SUBMITTED, RUNNING)], []) == 2


def test_the_error_of_a_single_run_is_raised(runs: Path) -> None:
    with pytest.raises(BadInput, match="was not submitted"):
        cancel.cancel_each([runs / NOT_SUBMITTED / "submission.json"], [])
