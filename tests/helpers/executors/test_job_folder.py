"""helpers/executors/job_folder.py: what the files of a job say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.executors import job_folder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    for name in ("logs", "artifacts"):
        (tmp_path / "a.0" / name).mkdir(parents=True)
    return tmp_path / "a.0"


@pytest.mark.parametrize(
    ("total", "limit", "asked"), [("12", 3, 12), (None, 3, 3), (None, 0.5, None), (None, None, None), ("torn", None, None)]
)
def test_how_many_samples_a_task_asks(tmp_path: Path, total: str | None, limit: float | None, asked: int | None) -> None:
    (tmp_path / "artifacts").mkdir()
    if total:
        (tmp_path / "artifacts/total").write_text(total)
    if limit:
        (tmp_path / "run_config.yml").write_text(f"config: {{params: {{limit_samples: {limit}}}}}")
    assert job_folder.samples_asked(tmp_path) == asked


@pytest.mark.parametrize(
    ("log", "asked"),
    [
        ("Cached requests: 0, Requests remaining: 96\n", 96),
        ("Cached requests: 0, Requests remaining: 96\nstarted again\nCached requests: 50, Requests remaining: 46\n", 96),
        ("nothing of that kind\n", 24),
    ],
)
def test_lm_eval_says_how_many_requests_its_samples_take(job: Path, log: str, asked: int) -> None:
    (job / "run_config.yml").write_text("config: {params: {limit_samples: 24}}")
    (job / "logs/client_stdout.log").write_text(log)
    assert job_folder.samples_asked(job) == asked


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("error: the port is taken\nTraceback\nValueError: x\nbye\n", "the port is taken"),
        (
            "0 errors so far\nTraceback (most recent call last):\nrequests.exceptions.HTTPError: 401\ndone, with errors\n",
            "requests.exceptions.HTTPError: 401",
        ),
        ("connecting\nconnection refused\nbye\n", "connection refused"),
        ("one\ntwo\n\n", "two"),
        ("", "its logs are empty"),
    ],
)
def test_the_line_that_says_best_why_a_job_failed(job: Path, log: str, line: str) -> None:
    (job / "logs" / "client_stdout.log").write_text(log)
    assert job_folder.last_error(job) == line


def test_of_a_huge_log_only_the_end_is_read(job: Path) -> None:
    path = job / "logs" / "client_stdout.log"
    with path.open("wb") as handle:
        handle.truncate(20 << 30)  # sparse: 20 GB that take no room
        handle.seek(0, os.SEEK_END)
        handle.write(b"\nerror: at the end\n")
    assert job_folder.last_error(job) == "at the end"
