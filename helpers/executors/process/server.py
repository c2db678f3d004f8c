"""The model server of an evaluation on this machine."""

import http.client
import os
import subprocess
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

from helpers.common import causes, processes
from helpers.common.errors import StepFailed
from helpers.common.files import ROOT
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import ports
from helpers.executors.process.children import environment

POLL_SECONDS = 0.1


class Server:
    """The model server: starts on a free port, and is stopped with everything that it started."""

    def __init__(self, jobs: Path, deployment: dict[str, Any]) -> None:
        """`deployment` is that of plan.json: command, venv, port (0: any free one), health (URL path), readiness_timeout (seconds), env."""
        self.deployment = deployment
        self.jobs, self.log = jobs, jobs / process_jobs.SERVER_LOG
        self.job = f"{os.environ.get(process_jobs.MARK, '')}.server"
        self.port = 0
        self.reserved: ports.Port | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is healthy. Raises StepFailed when it ends first, or is not healthy in time."""
        self.reserved = None if self.deployment["port"] else ports.reserve()
        self.port = self.reserved.number if self.reserved else self.deployment["port"]
        if ports.answers(self.port):
            raise StepFailed(f"port {self.port} is in use; stop what listens there, or set deployment.port=0 for any free one")
        own = {"PORT": str(self.port), processes.JOB_MARK: self.job, **self.deployment["variables"]}
        env = environment(self.deployment["env"], own, self.deployment.get("venv"))
        self.process = processes.start(["bash", "-c", self.deployment["command"]], self.log, ROOT, env)
        process_jobs.add_session(self.jobs, self.process.pid)
        timeout = self.deployment["readiness_timeout"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if (ended := self.end()) is not None:
                raise StepFailed(f"{ended} before it was ready: {self.last_line()}")
            if answers(f"http://127.0.0.1:{self.port}{self.deployment['health']}"):
                return
            time.sleep(POLL_SECONDS)
        self.stop()
        raise StepFailed(f"the server was not healthy within {timeout} s (execution.endpoint_readiness_timeout): {self.last_line()}")

    def end(self) -> str | None:
        """How it ended, or None while it runs."""
        code = self.process.poll() if self.process else None
        return None if code is None else "the server " + (f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}")

    def last_line(self) -> str:
        """The line of the server's log that says best what happened, else the last one, and where the log is."""
        try:
            lines = causes.telling(job_folder.tail(self.log, 4000))
        except OSError:
            lines = []
        log = self.log.relative_to(ROOT) if self.log.is_relative_to(ROOT) else self.log
        return f"{lines[-1][:300] if lines else 'its log is empty'} (log: {log})"

    def stop(self) -> None:
        """Stop it and everything that it started."""
        if self.process:
            processes.end_group(self.process, self.job)
        if self.reserved:
            self.reserved.release()


def answers(url: str) -> bool:
    """Whether a GET of `url` gives status 200 within two seconds, past any proxy."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False
