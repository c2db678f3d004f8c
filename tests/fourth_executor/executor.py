"""A fourth executor, which tests/test_fourth_executor.py adds to a copy of the project: detached processes, one task after another.

It uses neither the launcher nor any other executor. Its own files in the jobs folder: `invocation` (what was submitted, written before
anything runs), `lock` (held by the runner), `pid` (of the runner, which leads a process group of its own).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from helpers.common import files, run_folder
from helpers.config import tasks
from helpers.executors import job_folder
from helpers.executors.base import Document, Handover, Submitted, WandbExport
from helpers.executors.local import LocalExecutor, refuse_other

from .description import DESCRIPTION

CANCELLED = 143
RUNNER = r"""
exec 9> lock
flock -n 9 || exit 0
echo $$ > pid
now() { date -u +%Y-%m-%dT%H:%M:%S.000Z; }
for folder in */; do
  [ ! -e "$folder/logs/stage.exit" ] || continue
  now > "$folder/logs/stage.running"
  export ADAPTER_PORT=$((ADAPTER_PORT + 1))  # nemo-evaluator's proxy before the endpoint: the last one may still be closing
  code=0
  (cd "$folder" && exec "$PYTHON" -m nemo_evaluator.core.entrypoint run_eval --run_config run_config.yml) \
    >> "$folder/logs/client_stdout.log" 2>&1 || code=$?
  echo "$(now) $code" > "$folder/logs/stage.exit"
done
"""


class Detached(LocalExecutor):
    """Runs the tasks in the background; they keep running when the person leaves."""

    description = DESCRIPTION
    log_kinds = ("client",)
    wandb_export = WandbExport.NEVER

    def submitted_before(self, data: Document) -> str | None:
        """The invocation in the jobs folder."""
        record = job_folder.read(Path(data["execution"]["output_dir"]) / "invocation")
        if record is None:
            return None
        refuse_other(data, record["data"], record["id"])
        return str(record["id"])

    def submit(self, handover: Handover, before: str | None) -> Submitted:
        """Write the folder of each task and the record, then start the runner."""
        data, jobs = handover.data, Path(handover.data["execution"]["output_dir"])
        entries = data["evaluation"]["tasks"]
        folders = [jobs / f"{index}-{entry['name']}" for index, entry in enumerate(entries)]
        if before is None:
            for folder, entry in zip(folders, entries, strict=True):
                (folder / "logs").mkdir(parents=True, exist_ok=True)
                files.write_text(folder / "run_config.yml", json.dumps(_run_config(data, entry)))
            record = {"id": secrets.token_hex(8), "at": run_folder.now(), "data": data}
            files.write_text(jobs / "invocation", json.dumps(record))
        record = job_folder.read(jobs / "invocation") or {}
        _start(jobs)
        named = [{"job_id": f"{record['id']}.{index}", "job_dir": str(folder)} for index, folder in enumerate(folders)]
        return Submitted(record["id"], record["at"], named)

    def rows(self, submission: Document) -> list[Document]:
        """By the stage files."""
        alive = _is_alive(_jobs(submission))
        return [self.row(job, _state(Path(job["job_dir"]), alive)) for job in submission["jobs"]]

    def resumes_here(self, submission: Document) -> bool:
        """Whether a task is open and nothing runs."""
        jobs = _jobs(submission)
        return not _is_alive(jobs) and any(job_folder.exit_code(Path(job["job_dir"])) is None for job in submission["jobs"])

    def begin(self, submission: Document) -> None:
        """Start the runner for open tasks."""
        if self.resumes_here(submission):
            _start(_jobs(submission))

    def cancel(self, submission: Document, _chosen: Sequence[Document]) -> list[str]:
        """Stop the runner's process group; open tasks get an exit code of their own."""
        jobs = _jobs(submission)
        was_alive = _is_alive(jobs)
        with contextlib.suppress(ProcessLookupError):
            if was_alive:
                os.killpg(int((jobs / "pid").read_text()), signal.SIGKILL)
        while _is_alive(jobs):
            time.sleep(0.05)
        for job in submission["jobs"]:
            if job_folder.exit_code(Path(job["job_dir"])) is None:
                job_folder.stage(Path(job["job_dir"]), "exit", CANCELLED)
        return ["the runner was stopped"] if was_alive else []

    def resume(self, submission: Document, _rows: Sequence[Document], again: Sequence[int]) -> dict[int, str]:
        """Open the tasks; `make eval` runs them."""
        for job in submission["jobs"]:
            if job["index"] in again:
                (Path(job["job_dir"]) / "logs/stage.exit").unlink()
        return dict.fromkeys(again, "")


def _run_config(data: Document, entry: Document) -> dict[str, Any]:
    task = tasks.define(entry)
    own = {
        "config": {"type": task.full_name, "output_dir": "artifacts"},
        "target": {"api_endpoint": {**data["target"]["api_endpoint"], "type": tasks.endpoint_type(entry, task)}},
    }
    given = [holder.get("nemo_evaluator_config") or {} for holder in (data["evaluation"], entry)]
    return OmegaConf.to_container(OmegaConf.merge(*given, own))  # type: ignore[return-value]


def _start(jobs: Path) -> None:
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(files.ROOT), str(files.ROOT / "helpers" / "harness")]),
        "ADAPTER_PORT": str(14000 + secrets.randbelow(5000)),
        "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
    }
    with (jobs / "runner.log").open("ab") as log:
        runner = subprocess.Popen(
            ["bash", "-c", RUNNER], cwd=jobs, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    while not _is_alive(jobs) and runner.poll() is None:
        time.sleep(0.02)


def _is_alive(jobs: Path) -> bool:
    """The runner's children hold its lock too, so it is free only when all have ended."""
    try:
        with (jobs / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _state(folder: Path, alive: bool) -> Document:
    code, started = job_folder.exit_code(folder), job_folder.stage_time(folder, "running")
    if code is None:
        state = ("RUNNING" if started else "PENDING") if alive else "INTERRUPTED"
    else:
        state = {0: "SUCCEEDED", CANCELLED: "CANCELLED"}.get(code, "FAILED")
    return {
        "state": state,
        "reason": job_folder.last_error(folder) if state == "FAILED" else "",
        "exit_code": code,
        "requests_done": job_folder.requests_done(folder, code == 0),
        "seconds": None,
        "log": str(folder / "logs/client_stdout.log"),
    }


def _jobs(submission: Document) -> Path:
    return Path(submission["jobs"][0]["job_dir"]).parent


EXECUTOR = Detached()
