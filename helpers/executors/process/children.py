"""The processes that a supervisor starts: their environment, and ending them with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from helpers.common.errors import BadInput
from helpers.common.files import ROOT
from helpers.executors.process import jobs as process_jobs


def environment(names: dict[str, str], extra: dict[str, str]) -> dict[str, str]:
    """The environment of a child: ours, `names` (NAME -> `host:OTHER`, `runtime:OTHER` or `lit:TEXT`, as in the config), and `extra`.

    Requests to 127.0.0.1 never use a proxy. This environment's Python comes first on PATH; the starter benchmarks are on PYTHONPATH.
    Raises BadInput for a variable that is needed and not set.
    """
    child = dict(os.environ)
    for name, spec in names.items():
        kind, _, value = str(spec).partition(":")
        if kind == "lit":
            child[name] = value
        elif value in os.environ:
            child[name] = os.environ[value]
        else:
            raise BadInput(f"env_vars.{name} needs {value}, which is not set where the jobs were started; `export {value}=…`")
    child.update(extra)
    direct = [host.strip() for name in ("no_proxy", "NO_PROXY") for host in child.get(name, "").split(",") if host.strip()]
    # * means every host, but only when nothing else is listed.
    child["NO_PROXY"] = child["no_proxy"] = "*" if "*" in direct else ",".join(dict.fromkeys([*direct, "127.0.0.1", "localhost"]))
    child["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), child.get("PATH", os.defpath)])
    child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "helpers" / "harness"), child.get("PYTHONPATH")]))
    child.setdefault("PYTHONUNBUFFERED", "1")  # logs are looked at while they grow
    return child


def end_group(process: subprocess.Popen[bytes], job: str) -> None:
    """Stop a child and everything that it started: SIGTERM, GRACE_SECONDS, SIGKILL.

    What it started is in its process group, or has the mark of its `job` when it left that group. The child may have ended already.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        members = {member.pid: member for member in (*in_group(process.pid), *process_jobs.processes(job, process_jobs.JOB_MARK))}
        for member in members.values():
            with contextlib.suppress(psutil.Error):
                member.send_signal(number)
        process_jobs.wait_until_ended(members.values(), process_jobs.GRACE_SECONDS)
        process.poll()
        if not members:
            return


def end_all(invocation: str) -> None:
    """Kill what has the invocation's mark, except ourselves: what a killed supervisor left, or what is just being started."""
    left = [process for process in process_jobs.processes(invocation) if process.pid != os.getpid()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    process_jobs.wait_until_ended(left, process_jobs.GRACE_SECONDS)


def in_group(group: int) -> list[psutil.Process]:
    """The live processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
