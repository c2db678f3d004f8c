"""Runs the jobs of one invocation on this machine: starts the model server, runs one task after another, stops the server.

    python -m helpers.executors.process.supervisor runs/ID/jobs

Started detached by process/start.py (by run_all.sequential.sh; the stock `nemo-evaluator-launcher resume` calls too).
SIGTERM stops everything in order, and so does the end of the process that EVALMAKE_OWNER names. Whatever happens, nothing that it started
outlives it; what it leaves when it is itself killed, the next one on the folder stops. Secrets reach it, and what it starts, as environment
variables only.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
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

from helpers.common import run_folder, yaml_files
from helpers.common.errors import BadInput, EvalmakeError, Interrupted, StepFailed
from helpers.common.files import ROOT, write_text
from helpers.credentials.wandb_server import WANDB
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import ports

POLL_SECONDS = 0.1
LOCK_SECONDS = 2.0  # how long the folder's lock is tried for: who asks whether we live holds it for an instant


class Server:
    """The model server: started on a free port, healthy, and stopped with everything it started."""

    def __init__(self, jobs: Path, deployment: dict[str, Any]) -> None:
        """`deployment` is the plan's: command, port (0: any free one), health (URL path), readiness_timeout (seconds), env."""
        self.deployment = deployment
        self.log = jobs / "server.log"
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
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", self.deployment["command"]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment(
                    self.deployment["env"],
                    {"PORT": str(self.port), process_jobs.JOB_MARK: self.job, **self.deployment["variables"]},
                ),
                start_new_session=True,
            )
        self._wait_until_healthy()

    def _wait_until_healthy(self) -> None:
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
        """How it ended, or None while it lives."""
        code = self.process.poll() if self.process else None
        return None if code is None else "the server " + (f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}")

    def last_line(self) -> str:
        """The last line of the server's log, and where the log is."""
        try:
            lines = job_folder.tail(self.log, 4000)
        except OSError:
            lines = []
        log = self.log.relative_to(ROOT) if self.log.is_relative_to(ROOT) else self.log
        return f"{lines[-1][:300] if lines else 'its log is empty'} (log: {log})"

    def stop(self) -> None:
        """Stop it and everything that it started."""
        if self.process:
            end_group(self.process, self.job)
        if self.reserved:
            self.reserved.release()


def main(arguments: list[str]) -> None:
    """Run the plan in the jobs folder `arguments[0]`. Only one supervisor a folder: a second one leaves."""
    jobs = Path(arguments[0]).resolve()
    stopped_by_signals()
    # Never closed: the lock goes with the process, so that whoever finds it free finds no supervisor either.
    if not take(os.open(jobs / process_jobs.LOCK, os.O_RDWR | os.O_CREAT, 0o644)):
        return
    write_text(jobs / process_jobs.SUPERVISOR, json.dumps(process_jobs.own_record()))
    plan = job_folder.read(jobs / process_jobs.PLAN) or {}
    end_all(plan["invocation_id"])
    try:
        owner = os.environ.pop(process_jobs.OWNER, None)
        end_with_owner(owner)
        os.environ[process_jobs.PROGRESS_URL] = take_progress()
        run(jobs, plan)
        export(jobs, plan, bool(owner))
    except (Interrupted, KeyboardInterrupt):
        process_jobs.mark_stopped([jobs / task["dir"] for task in plan["tasks"]], process_jobs.INTERRUPTED_CODE)
    finally:
        ignore_signals()
        end_all(plan["invocation_id"])


def take(lock: int) -> bool:
    """Take the folder's lock, which is held to the end; False when another supervisor has it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS / 2)
        else:
            return True


def stopped_by_signals() -> None:
    """Let the first SIGTERM or SIGINT raise Interrupted, once: a second one must not end the clean-up. SIGHUP does nothing, ever:
    the terminal that it was started from may go.
    """

    def stop(number: int, _frame: object) -> None:
        ignore_signals()
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def ignore_signals() -> None:
    """From here on only SIGKILL stops it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def end_with_owner(owner: str | None) -> None:
    """Watch the process with this pid, and interrupt ourselves when it is gone. Without an owner the jobs go on until they end."""
    if not owner:
        return
    try:
        process = psutil.Process(int(owner))
    except psutil.Error:
        raise Interrupted("its owner is gone") from None

    def watch() -> None:
        while process_jobs.is_alive(process):
            time.sleep(POLL_SECONDS * 2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run(jobs: Path, plan: dict[str, Any]) -> None:
    """Run every task of the plan that has not ended. A task that fails does not stop the next; a dead server fails them all."""
    server: Server | None = None
    pending = [jobs / task["dir"] for task in plan["tasks"] if process_jobs.is_open(jobs / task["dir"])]
    try:
        for folder in pending:
            process_jobs.reopen(folder)
        if plan["deployment"] and pending:
            server = Server(jobs, plan["deployment"])
            server.start()
        for task in plan["tasks"]:
            if jobs / task["dir"] in pending:
                run_task(jobs / task["dir"], task, server)
    except Interrupted:
        raise
    except EvalmakeError as error:
        for folder in pending:
            if job_folder.exit_code(folder) is None:
                _fail(folder, str(error))
    finally:
        if server:
            server.stop()


def run_task(folder: Path, task: dict[str, Any], server: Server | None) -> None:
    """Run one task to its end, and note how it ended. When the server dies first, the harness is stopped: it would retry for minutes."""
    if server and (ended := server.end()):
        _fail(folder, f"{ended} before the task: {server.last_line()}")
        return
    adapter = ports.reserve()
    try:
        url = f"http://127.0.0.1:{server.port}{task['path']}" if server else None
        with (folder / "logs" / "client_stdout.log").open("ab") as log:
            harness = start_harness(folder, task, url, adapter.number, log)
            job_folder.stage(folder, "running")
            try:
                code = _watch(harness, server)
            finally:
                end_group(harness, task["job_id"])
    except (BadInput, StepFailed) as error:
        _fail(folder, str(error))
        return
    finally:
        adapter.release()
    if server and (ended := server.end()):
        _fail(folder, f"{ended} while the task ran: {server.last_line()}")
    elif code == process_jobs.INTERRUPTED_CODE:
        _fail(folder, "the harness was interrupted from outside")
    else:
        job_folder.stage(folder, "exit", code)


def _watch(harness: subprocess.Popen[bytes], server: Server | None) -> int | None:
    """Wait for the harness; its exit code as a shell would give it, or None when the server died first."""
    while True:
        try:
            code = harness.wait(timeout=POLL_SECONDS * 5)
        except subprocess.TimeoutExpired:
            if server and server.end():
                return None
        else:
            return code if code >= 0 else 128 - code


def start_harness(folder: Path, task: dict[str, Any], url: str | None, adapter: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Write the task's run_config.yml with the server's URL in it, and start its run.sh in a session of its own.

    `adapter` is the port of nemo-evaluator's own proxy in front of the endpoint, which it reads from ADAPTER_PORT.
    """
    path = folder / "run_config.yml"
    config = yaml_files.load(path.read_text(encoding="utf-8"))
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
        env=environment(task["env"], {"ADAPTER_PORT": str(adapter), process_jobs.JOB_MARK: task["job_id"], **task["variables"]}),
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
    Raises BadInput for a variable that is wanted and not set.
    """
    child = dict(os.environ)
    for name, spec in names.items():
        kind, _, value = str(spec).partition(":")
        if kind == "lit":
            child[name] = value
        elif value in os.environ:
            child[name] = os.environ[value]
        else:
            raise BadInput(f"{value}, wanted by env_vars.{name}, is not set where the jobs were started; `export {value}=…`")
    child.update(extra)
    direct = [host.strip() for name in ("no_proxy", "NO_PROXY") for host in child.get(name, "").split(",") if host.strip()]
    # A lone * means every host, and is understood only when it stands alone.
    child["NO_PROXY"] = child["no_proxy"] = "*" if "*" in direct else ",".join(dict.fromkeys([*direct, "127.0.0.1", "localhost"]))
    child["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), child.get("PATH", os.defpath)])
    child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "helpers" / "harness"), child.get("PYTHONPATH")]))
    child.setdefault("PYTHONUNBUFFERED", "1")  # logs are looked at while they grow
    return child


def export(jobs: Path, plan: dict[str, Any], is_owned: bool) -> None:
    """Export the tasks that succeeded to the plan's destinations; what is said is in export.log.

    W&B by our own exporter, unless an owner stays to the end and does it where a person sees it; others by the launcher's own command.
    """
    done = [task["job_id"] for task in plan["tasks"] if job_folder.exit_code(jobs / task["dir"]) == 0]
    for destination in plan["export"]["destinations"] if done else []:
        command = [sys.executable, "-m", "nemo_evaluator_launcher.cli.main", "export", *done, "--dest", destination]
        command += ["--config", str(jobs / "export.yml")]
        if destination == WANDB:
            # A run's jobs lie in it, or in a folder of its name elsewhere (execution.output_dir).
            run = jobs.parent if (jobs.parent / "submission.json").exists() else run_folder.RUNS / jobs.parent.name
            if is_owned or not (run / "submission.json").exists():
                continue
            script = ROOT / "scripts" / "export_results.py"
            command = [sys.executable, str(script), f"--submission={run}/submission.json", f"--out={run}/exports.json", "--auto"]
        with (jobs / "export.log").open("ab") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=jobs,
                env=environment(plan["export"]["env"], {}),
                check=False,
            )


def end_group(process: subprocess.Popen[bytes], job: str) -> None:
    """Stop a child and all that it started: SIGTERM, GRACE_SECONDS, SIGKILL.

    What it started is in its process group or, where it left that, carries the mark of its `job`. The child may have ended before.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        members = {member.pid: member for member in (*in_group(process.pid), *process_jobs.processes(job, process_jobs.JOB_MARK))}
        for member in members.values():
            with contextlib.suppress(psutil.Error):
                member.send_signal(number)
        process_jobs.wait_gone(members.values(), process_jobs.GRACE_SECONDS)
        process.poll()
        if not members:
            return


def end_all(invocation: str) -> None:
    """Kill what carries the invocation's mark, except ourselves: what a killed supervisor left, or what was being started just now."""
    left = [process for process in process_jobs.processes(invocation) if process.pid != os.getpid()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    process_jobs.wait_gone(left, process_jobs.GRACE_SECONDS)


def in_group(group: int) -> list[psutil.Process]:
    """The live processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def answers(url: str) -> bool:
    """Whether a GET of `url` gives status 200 within two seconds, past any proxy."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def _fail(folder: Path, reason: str) -> None:
    """Note that a task failed, and why; that we stopped its harness then (nemo-evaluator leaves its marker) does not make it cancelled."""
    (folder / "artifacts" / process_jobs.INTERRUPTED_MARKER).unlink(missing_ok=True)
    with (folder / "logs" / "client_stdout.log").open("a", encoding="utf-8") as log:
        log.write(f"error: {reason}\n")
    job_folder.stage(folder, "exit", 1)


if __name__ == "__main__":
    main(sys.argv[1:])
