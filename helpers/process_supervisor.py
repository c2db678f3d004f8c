"""Runs the jobs of one invocation on this machine: starts the model server, runs one task after another, stops the server.

    python -m helpers.process_supervisor runs/ID/jobs

Started detached by helpers/process_executor.py (through run_all.sequential.sh, which the stock `nemo-evaluator-launcher resume` calls too).
SIGTERM stops everything in order. Secrets reach it, and what it starts, as environment variables only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from helpers import ports, process_jobs
from helpers.errors import EvalmakeError, Interrupted, StepFailed, interruptible
from helpers.files import ROOT, write_text

POLL_SECONDS = 0.1


class Server:
    """The model server: started on a free port, healthy, and stopped with everything it started."""

    def __init__(self, jobs: Path, deployment: dict[str, Any]) -> None:
        """`deployment` is the plan's: command, port (0: any free one), health (URL path), readiness_timeout (seconds), env."""
        self.deployment = deployment
        self.log = jobs / "server.log"
        self.port = 0
        self.reserved: ports.Port | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is healthy. Raises StepFailed when it ends first, or is not healthy in time."""
        self.reserved = None if self.deployment["port"] else ports.reserve()
        self.port = self.reserved.number if self.reserved else self.deployment["port"]
        if ports.answers(self.port):
            raise StepFailed(f"port {self.port} is in use; stop what listens there, or set deployment.port=0 for any free one")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", self.deployment["command"]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment(self.deployment["env"], {"PORT": str(self.port), **self.deployment["variables"]}),
                start_new_session=True,
            )
        self._wait_until_healthy()

    def _wait_until_healthy(self) -> None:
        assert self.process
        timeout = self.deployment["readiness_timeout"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StepFailed(f"the server ended with code {self.process.returncode} before it was ready: {self.last_line()}")
            if answers(f"http://127.0.0.1:{self.port}{self.deployment['health']}"):
                return
            time.sleep(POLL_SECONDS)
        self.stop()
        raise StepFailed(f"the server was not healthy within {timeout} s (execution.endpoint_readiness_timeout): {self.last_line()}")

    def last_line(self) -> str:
        """The last line of the server's log."""
        lines = self.log.read_bytes()[-4000:].decode("utf-8", "replace").split("\n") if self.log.exists() else []
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "its log is empty")

    def stop(self) -> None:
        """Stop it and everything in its session."""
        if self.process:
            end_group(self.process)


def main(arguments: list[str]) -> None:
    """Run the plan in the jobs folder `arguments[0]`. Only one supervisor a folder: a second one leaves at once."""
    jobs = Path(arguments[0]).resolve()
    with (jobs / process_jobs.LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        write_text(jobs / process_jobs.SUPERVISOR, json.dumps(process_jobs.own_record()))
        interruptible()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal it was started from may go
        os.environ[process_jobs.PROGRESS_URL] = take_progress()
        run(jobs, process_jobs.read(jobs / process_jobs.PLAN) or {})


def run(jobs: Path, plan: dict[str, Any]) -> None:
    """Run every task of the plan that has not ended. A task that fails does not stop the next; a dead server fails them all."""
    server: Server | None = None
    harness: subprocess.Popen[bytes] | None = None
    pending = [task for task in plan["tasks"] if process_jobs.exit_code(jobs / task["dir"]) is None]
    try:
        if plan["deployment"] and pending:
            server = Server(jobs, plan["deployment"])
            server.start()
        for task in pending:
            folder = jobs / task["dir"]
            process_jobs.stage(folder, "running")
            if server and server.process and server.process.poll() is not None:
                _fail(folder, f"the server ended with code {server.process.returncode}: {server.last_line()}")
                continue
            url = f"http://127.0.0.1:{server.port}{task['path']}" if server else None
            adapter = ports.reserve()
            with (folder / "logs" / "client_stdout.log").open("ab") as log:
                harness = start_harness(folder, task, url, adapter.number, log)
                code = _watch(harness, server)
            end_group(harness)
            adapter.release()
            if code is None:
                assert server
                assert server.process
                _fail(folder, f"the server ended with code {server.process.returncode} while the task ran: {server.last_line()}")
            else:
                process_jobs.stage(folder, "exit", code)
    except (Interrupted, KeyboardInterrupt):
        if harness:
            end_group(harness)
        for task in pending:
            process_jobs.mark_cancelled(jobs / task["dir"])
    except EvalmakeError as error:
        for task in pending:
            if process_jobs.exit_code(jobs / task["dir"]) is None:
                _fail(jobs / task["dir"], str(error))
    finally:
        if server:
            server.stop()
    export(jobs, plan)


def _watch(harness: subprocess.Popen[bytes], server: Server | None) -> int | None:
    """Wait for the harness; its exit code, or None when the server died first (the harness would retry for minutes)."""
    while True:
        try:
            return harness.wait(timeout=POLL_SECONDS * 5)
        except subprocess.TimeoutExpired:
            if server and server.process and server.process.poll() is not None:
                return None


def start_harness(folder: Path, task: dict[str, Any], url: str | None, adapter: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Write the task's run_config.yml with the server's URL in it, and start its run.sh in a session of its own.

    `adapter` is the port of nemo-evaluator's own proxy in front of the endpoint, which it reads from ADAPTER_PORT.
    """
    path = folder / "run_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if url:
        config["target"]["api_endpoint"]["url"] = url
        write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    (folder / "artifacts").mkdir(exist_ok=True)
    return subprocess.Popen(
        ["bash", "run.sh"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment(task["env"], {"ADAPTER_PORT": str(adapter), **task["variables"]}),
        start_new_session=True,
    )


def take_progress() -> str:
    """Answer the progress that harnesses post (they write it to a file too, which is what we read); returns the URL to post to."""

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing worth a line."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def environment(names: dict[str, str], extra: dict[str, str]) -> dict[str, str]:
    """The environment of a child: ours, `names` (NAME -> `host:OTHER`, `runtime:OTHER` or `lit:TEXT`, as in the config), and `extra`.

    127.0.0.1 never goes through a proxy. This environment's Python comes first on PATH, and the starter benchmarks on PYTHONPATH.
    """
    child = dict(os.environ)
    for name, spec in names.items():
        kind, _, value = spec.partition(":")
        if kind == "lit":
            child[name] = value
        elif value in os.environ:
            child[name] = os.environ[value]
    child.update(extra)
    here = "127.0.0.1,localhost"
    child["NO_PROXY"] = child["no_proxy"] = ",".join(filter(None, [child.get("NO_PROXY") or child.get("no_proxy"), here]))
    child["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), child.get("PATH", os.defpath)])
    child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "helpers" / "harness"), child.get("PYTHONPATH")]))
    return child


def export(jobs: Path, plan: dict[str, Any]) -> None:
    """Export the tasks that succeeded to the plan's destinations with the launcher's own command; what it says is in export.log."""
    done = [task["job_id"] for task in plan["tasks"] if process_jobs.exit_code(jobs / task["dir"]) == 0]
    for destination in plan["export"]["destinations"] if done else []:
        with (jobs / "export.log").open("ab") as log:
            command = [sys.executable, "-m", "nemo_evaluator_launcher.cli.main", "export", *done, "--dest", destination]
            command += ["--config", str(jobs / "export.yml")]
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=jobs,
                env=environment(plan["export"]["env"], {}),
                check=False,
            )


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Stop a child and all that is in its session: SIGTERM, GRACE_SECONDS, SIGKILL."""
    members = []
    with contextlib.suppress(psutil.Error):
        members = psutil.Process(process.pid).children(recursive=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.send_signal(number)
        _, members = psutil.wait_procs(members, timeout=process_jobs.GRACE_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=process_jobs.GRACE_SECONDS)
        if process.poll() is not None and not members:
            break


def answers(url: str) -> bool:
    """Whether a GET of `url` gives status 200 within two seconds, past any proxy."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except (urllib.error.URLError, OSError):
        return False


def _fail(folder: Path, reason: str) -> None:
    with (folder / "logs" / "client_stdout.log").open("a", encoding="utf-8") as log:
        log.write(f"error: {reason}\n")
    process_jobs.stage(folder, "exit", 1)


if __name__ == "__main__":
    main(sys.argv[1:])
