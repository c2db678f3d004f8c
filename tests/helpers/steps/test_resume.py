"""Running again what ended without results: on this machine; on a cluster: tests/cluster/test_watch.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.common import files
from helpers.common.errors import BadInput
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.steps import resume, status
from local_jobs import SCORES, make_jobs, plan_of

RUN = "20261122T013512Z-local-7f3a"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on this machine: `good` succeeded, `bad` failed, and its results are gathered."""
    folder = tmp_path / RUN
    jobs = make_jobs(folder / "jobs", {"good": "true", "bad": "false"})
    (jobs / "good.0/artifacts/results.yml").write_text(SCORES)
    job_folder.stage(jobs / "good.0", "exit", 0)
    job_folder.stage(jobs / "bad.1", "exit", 1)
    entries = [
        {
            "task": task, "index": index, "harness": "h", "job_id": f"i.{index}", "slurm_job_id": None, "remote_dir": None,
            "job_dir": str(jobs / f"{task}.{index}"),
        }
        for index, task in enumerate(("good", "bad"))
    ]  # fmt: skip
    document = {
        "made_by": "test", "made_from": {}, "invocation_id": plan_of(jobs)["invocation_id"], "executor": "process",
        "submitted_at": "2026-11-22T01:35:12Z", "jobs": entries,
    }  # fmt: skip
    files.write_json(folder / "submission.json", document, "submission")
    for name in ("results.json", "status.json"):
        (folder / name).write_text("{}")
    return folder


def states(run: Path) -> list[str]:
    seen = status.ask(files.read_json(run / "submission.json", "submission"))
    return [job["state"] for job in seen["jobs"]]


def test_what_failed_is_open_again_and_what_has_results_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert states(run) == ["SUCCEEDED", "FAILED"]
    resume.resume(run / "submission.json", [])
    assert states(run) == ["SUCCEEDED", "INTERRUPTED"]
    assert not (run / "results.json").exists()
    assert not (run / "status.json").exists()
    said = capsys.readouterr().err
    assert "✓ bad: will run again" in said
    assert f"`make eval RUN={RUN}` runs them" in said


def test_with_nothing_to_run_again_nothing_is_changed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume.resume(run / "submission.json", ["good"])
    assert states(run) == ["SUCCEEDED", "FAILED"]
    assert (run / "results.json").exists()
    assert "nothing to run again" in capsys.readouterr().err


def test_a_task_that_the_run_does_not_have_is_refused_with_the_nearest(run: Path) -> None:
    with pytest.raises(BadInput, match=r"no task goood \(did you mean good\?\)"):
        resume.resume(run / "submission.json", ["goood"])


def test_of_tasks_that_are_named_the_others_stay_failed(run: Path) -> None:
    (run / "jobs/good.0/artifacts/results.yml").unlink()
    assert states(run) == ["FAILED", "FAILED"]
    resume.resume(run / "submission.json", ["good"])
    assert states(run) == ["INTERRUPTED", "FAILED"]


def test_stopped_half_way_it_leaves_no_results_that_were_made_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be shown for those of the run, although a task will run again."""

    def stopped(_folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process_jobs, "reopen", stopped)
    with pytest.raises(KeyboardInterrupt):
        resume.resume(run / "submission.json", [])
    assert not (run / "results.json").exists()


def test_a_run_that_was_not_submitted_has_nothing_to_resume(run: Path) -> None:
    (run / "submission.json").unlink()
    with pytest.raises(BadInput, match=f"{RUN} was not submitted; `make eval RUN={RUN}` submits it"):
        resume.resume(run / "submission.json", [])
