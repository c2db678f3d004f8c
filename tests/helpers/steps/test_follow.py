"""helpers/steps/follow.py: nothing runs on unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.executors import display, local
from helpers.executors.process import start
from helpers.steps import follow
from local_jobs import LONG, left, make_jobs, plan_of, states, until


def test_when_the_one_who_looks_fails_the_jobs_do_not_go_on_unseen(
    tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_terminal(*_: object) -> None:
        raise OSError(5, "Input/output error")

    jobs = make_jobs(tmp_path / "jobs", {"a": LONG})
    start.start(jobs)
    until((jobs / "a.0/artifacts/begun").exists)
    submission = {
        "executor": "process",
        "invocation_id": plan_of(jobs)["invocation_id"],
        "seal": "",
        "jobs": [{"task": "a", "index": 0, "job_id": "i.0", "job_dir": str(jobs / "a.0")}],
    }
    monkeypatch.setattr(display.Plain, "update", no_terminal)
    monkeypatch.setattr(follow, "interruptible", lambda: None)  # handlers are the whole process's
    monkeypatch.setattr(local, "uninterruptible", lambda: None)
    with pytest.raises(OSError, match="Input/output"):
        follow.follow(submission, str(tmp_path / "submission.json"), str(tmp_path / "status.json"), False)
    assert left(jobs) == []
    assert states(jobs) == ["INTERRUPTED"]
