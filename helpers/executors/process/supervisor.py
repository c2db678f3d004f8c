"""Runs the jobs of one invocation on this machine: starts the model server, runs one task after another, stops the server.

    python -m helpers.executors.process.supervisor runs/ID/jobs

process/start.py starts it detached, through run_all.sequential.sh, which the stock `nemo-evaluator-launcher resume` calls too.
SIGTERM stops everything in order, and so does the end of the process that EVALMAKE_OWNER names. Nothing that it starts outlives it; when it
is killed itself, the next supervisor of the folder stops what it left. It gets secrets, and passes them on, as environment variables only.
"""

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import yaml

from helpers.common import processes, run_folder, yaml_files
from helpers.common.errors import BadInput, EvalmakeError, Interrupted, StepFailed
from helpers.common.files import ROOT, write_text
from helpers.credentials.wandb_server import WANDB
from helpers.executors import endpoint_failures, job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import ports
from helpers.executors.process.children import environment
from helpers.executors.process.server import POLL_SECONDS, Server

KILL = [signal.SIGKILL] * 3  # the second one is for what was just being started
LOCK_SECONDS = 2.0  # how long it tries to get the folder's lock: whoever tests it holds it for an instant


def main(arguments: list[str]) -> None:
    """Run the plan in the jobs folder `arguments[0]`."""

    def work(jobs: Path, plan: dict[str, Any], is_owned: bool) -> None:
        os.environ[process_jobs.PROGRESS_URL] = take_progress()
        run(jobs, plan)
        export(jobs, plan, is_owned)

    supervise(Path(arguments[0]).resolve(), work)


def supervise(jobs: Path, work: Callable[[Path, dict[str, Any], bool], None], end_more: Callable[[], object] = lambda: None) -> None:
    """Do the `work` of a jobs folder, given its plan and whether it has an owner. A second supervisor of the same folder does nothing.

    At the start what a killed supervisor left is stopped, and everything at the end; `end_more` stops what is no process of ours.
    """

    def end() -> None:
        process_jobs.end(jobs, KILL)
        end_more()

    stopped_by_signals()
    # Never closed: the lock is released when the process ends, so a free lock means that there is no supervisor.
    if not take(os.open(jobs / process_jobs.LOCK, os.O_RDWR | os.O_CREAT, 0o644)):
        return
    write_text(jobs / process_jobs.SUPERVISOR, json.dumps({"pid": os.getpid(), "host": platform.node()}))
    plan = job_folder.read(jobs / process_jobs.PLAN) or {}
    end()
    (jobs / process_jobs.SESSIONS).unlink(missing_ok=True)
    try:
        owner = os.environ.pop(process_jobs.OWNER, None)
        end_with_owner(owner)
        work(jobs, plan, bool(owner))
    except (Interrupted, KeyboardInterrupt):
        process_jobs.mark_stopped([jobs / task["dir"] for task in plan["tasks"]], process_jobs.INTERRUPTED_CODE)
    finally:
        ignore_signals()
        end()


def take(lock: int) -> bool:
    """Take the folder's lock and hold it to the end; False when another supervisor has it."""
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
    """Let the first SIGTERM or SIGINT raise Interrupted. A second one must not cut the clean-up short.

    SIGHUP is always ignored: the terminal that it was started from may be closed.
    """

    def stop(number: int, _frame: object) -> None:
        ignore_signals()
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def ignore_signals() -> None:
    """From now on only SIGKILL stops it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def end_with_owner(owner: str | None) -> None:
    """Watch the process with this pid, and interrupt ourselves when it ends. Without an owner the jobs run until they end."""
    if not owner:
        return
    try:
        process = psutil.Process(int(owner))
    except psutil.Error:
        raise Interrupted("its owner has ended") from None

    def watch() -> None:
        while processes.is_alive(process):
            time.sleep(POLL_SECONDS * 2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run(jobs: Path, plan: dict[str, Any]) -> None:
    """Run every task of the plan that has not ended. After a failed task the next one runs; when the server dies, all fail."""
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
                fail(folder, str(error))
    finally:
        if server:
            server.stop()


def run_task(folder: Path, task: dict[str, Any], server: Server | None) -> None:
    """Run one task and write down how it ended. When the server dies first, the harness is stopped: it would retry for minutes."""
    if server and (ended := server.end()):
        fail(folder, f"{ended} before the task started: {server.last_line()}")
        return
    adapter = ports.reserve()
    try:
        url = f"http://127.0.0.1:{server.port}{task['path']}" if server else None
        harness = start_harness(folder, task, url, adapter.number)
        job_folder.stage(folder, "running")
        try:
            code = _watch(harness, server)
        finally:
            processes.end_group(harness, task["job_id"])
    except (BadInput, StepFailed) as error:
        fail(folder, str(error))
        return
    finally:
        adapter.release()
    if server and (ended := server.end()):
        fail(folder, f"{ended} while the task ran: {server.last_line()}")
    elif code == process_jobs.INTERRUPTED_CODE:
        fail(folder, "the harness was interrupted from outside")
    else:
        job_folder.stage(folder, "exit", code)


def _watch(harness: subprocess.Popen[bytes], server: Server | None) -> int | None:
    """Wait for the harness; returns its exit code as a shell would give it, or None when the server died first."""
    while True:
        try:
            code = harness.wait(timeout=POLL_SECONDS * 5)
        except subprocess.TimeoutExpired:
            if server and server.end():
                return None
        else:
            return code if code >= 0 else 128 - code


def start_harness(folder: Path, task: dict[str, Any], url: str | None, adapter: int) -> subprocess.Popen[bytes]:
    """Write the task's run_config.yml with the server's URL in it, and start its run.sh in a session of its own.

    `adapter` is the port of nemo-evaluator's proxy before the endpoint, which nemo-evaluator reads from ADAPTER_PORT.
    """
    path = folder / "run_config.yml"
    config = yaml_files.load(path.read_text(encoding="utf-8"))
    if url:
        config["target"]["api_endpoint"]["url"] = url
        write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    (folder / "artifacts").mkdir(exist_ok=True)
    env = environment(task["env"], {"ADAPTER_PORT": str(adapter), processes.JOB_MARK: task["job_id"], **task["variables"]})
    harness = processes.start(["bash", "run.sh"], folder / process_jobs.CLIENT_LOG, folder, env)
    process_jobs.add_session(folder.parent, harness.pid)
    return harness


def take_progress() -> str:
    """Accept the progress that harnesses post, and return the URL for it. They also write it to a file, which is what we read."""

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Requests are not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def export(jobs: Path, plan: dict[str, Any], is_owned: bool) -> None:
    """Export the tasks that succeeded to the plan's destinations; the output is in export.log.

    Our own exporter serves W&B, unless an owner stays to the end and exports where a person sees it; the launcher's serves the others.
    """
    done = [
        task["job_id"]
        for task in plan["tasks"]
        if job_folder.exit_code(jobs / task["dir"]) == 0 and not endpoint_failures.none_scorable(job_folder.answers_of(jobs / task["dir"]))
    ]
    for destination in plan["export"]["destinations"] if done else []:
        command = [sys.executable, "-m", "nemo_evaluator_launcher.cli.main", "export", *done, "--dest", destination]
        command += ["--config", str(jobs / "export.yml")]
        if destination == WANDB:
            # A run's jobs are in its folder, or in a folder of its name elsewhere (execution.output_dir).
            run = jobs.parent if (jobs.parent / "submission.json").exists() else run_folder.RUNS / jobs.parent.name
            if is_owned or not (run / "submission.json").exists():
                continue
            script = ROOT / "scripts" / "export_results.py"
            command = [sys.executable, str(script), f"--submission={run}/submission.json", f"--out={run}/exports.json", "--auto"]
        processes.start(command, jobs / "export.log", jobs, environment(plan["export"]["env"], {})).wait()


def fail(folder: Path, reason: str) -> None:
    """Write down that a task failed, and why. nemo-evaluator's marker goes: it is there because we stopped the harness, not the user."""
    (folder / "artifacts" / process_jobs.INTERRUPTED_MARKER).unlink(missing_ok=True)
    with (folder / process_jobs.CLIENT_LOG).open("a", encoding="utf-8") as log:
        log.write(f"error: {reason}\n")
    job_folder.stage(folder, "exit", 1)


if __name__ == "__main__":
    main(sys.argv[1:])
