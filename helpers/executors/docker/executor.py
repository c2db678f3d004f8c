"""Runs an evaluation in Docker containers of this machine: the launcher's own local executor."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.common.errors import StepFailed, Unreachable
from helpers.executors import containers, job_folder
from helpers.executors.base import Document, Handover, ImageUse, Submitted
from helpers.executors.docker.description import DESCRIPTION
from helpers.executors.local import LocalExecutor, refuse_other
from helpers.executors.states import ENDED, FAILED
from helpers.launcher import api

DAEMON_SECONDS = 20  # a daemon that works answers in well under one
# The launcher's states (its executors/base.py: ExecutionState) and ours.
STATES = {"pending": "PENDING", "running": "RUNNING", "success": "SUCCEEDED", "failed": "FAILED", "killed": "CANCELLED"}


class Docker(LocalExecutor):
    """See helpers/executors/base.py; the launcher starts the containers, asks for them and stops them."""

    description = DESCRIPTION

    def images(self, config: Mapping[str, Any], _wandb_mode: str) -> Iterator[ImageUse]:
        return containers.uses(config)

    def let_evaluation_read(self, data: Document, folder: str) -> None:
        """Mount it read-only. The launcher has no mounts of the evaluation here; these arguments go to the model server too."""
        arguments = data["execution"].get("extra_docker_args") or ""
        data["execution"]["extra_docker_args"] = f"{arguments} --volume {shlex.quote(f'{folder}:{folder}:ro')}".strip()

    def squash_obstacle(self, _config: Mapping[str, Any]) -> str:
        return "executor docker pulls its images itself"

    def submitted_before(self, data: Document) -> str | None:
        folder = Path(data["execution"]["output_dir"])
        found = api.invocation_in(folder) if folder.is_dir() else None
        if found is None:
            return None
        invocation, config = found
        refuse_other(data, config, invocation)
        return invocation

    def check(self, data: Document) -> None:
        super().check(data)
        fix = "start Docker, or use CONFIG=local without a PROFILE, which needs no container"
        if shutil.which("docker") is None:
            raise Unreachable(f"executor docker: there is no docker command on this machine; {fix}")
        try:
            answer = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=DAEMON_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"executor docker: the Docker daemon did not answer within {DAEMON_SECONDS} s; {fix}") from None
        if answer.returncode:
            reason = (answer.stderr.strip().splitlines() or [f"docker info: exit code {answer.returncode}"])[-1]
            raise Unreachable(f"executor docker: no Docker daemon answers ({reason}); {fix}")

    def submit(self, handover: Handover, before: str | None) -> Submitted:
        invocation = before or api.run_eval(handover.data, handover.log)
        return Submitted(invocation, *api.recorded_jobs(invocation, len(handover.data["evaluation"]["tasks"])))

    def rows(self, submission: Document) -> list[Document]:
        known = {answer["job_id"]: answer for answer in api.status(submission["invocation_id"])}
        return [self.row(job, _found(known.get(job["job_id"]), Path(job["job_dir"] or "."))) for job in submission["jobs"]]

    def cancel(self, submission: Document, _jobs: Sequence[Document]) -> list[str]:
        stopped = api.kill(submission["invocation_id"])
        if left := [row["task"] for row in self.rows(submission) if row["state"] not in ENDED]:
            raise StepFailed(f"{', '.join(left)}: not stopped; `make status` shows which jobs are left")
        return [f"{stopped} job{'s' if stopped > 1 else ''} stopped"] if stopped else []

    def resume_obstacle(self, submission: Document) -> str:
        return f"executor docker: `nemo-evaluator-launcher resume {submission['invocation_id']}` resumes its tasks"

    def resume(self, submission: Document, _rows: Sequence[Document], _again: Sequence[int]) -> dict[int, str]:
        raise StepFailed(self.resume_obstacle(submission))


def _found(answer: Document | None, job_dir: Path) -> Document:
    """Where a job stands, by the launcher's answer."""
    row: Document = {"exit_code": None, "requests_done": None, "seconds": None, "log": None}
    if answer is None:
        return {**row, "state": "UNKNOWN", "reason": "the launcher's job database does not have it"}
    state = STATES.get(str(answer.get("status")).lower(), "UNKNOWN")
    progress = answer.get("progress")
    done = progress.get("progress") if isinstance(progress, dict) else progress
    log = job_dir / "logs" / "client_stdout.log"
    return {
        **row,
        "state": state,
        "reason": job_folder.last_error(job_dir) if state == FAILED else "",
        "exit_code": job_folder.exit_code(job_dir),
        "requests_done": done if isinstance(done, int) else None,
        "log": str(log) if log.exists() else None,
    }


EXECUTOR = Docker()
