"""A double of Slurm's commands for tests without a cluster: squeue, sacct, sbatch, scancel, scontrol and sinfo over one file of jobs.

It knows what our bash scripts ask for and no more; what a real Slurm does is held by tests/cluster. Queued jobs stay as they are until a
test changes them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS = ("squeue", "sacct", "sbatch", "scancel", "scontrol", "sinfo")
ALIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED"}


class SlurmDouble:
    """The double as a test sees it. `bin` is to be first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "slurm-double.json"
        self.bin = folder / "slurm-double"
        self.bin.mkdir(parents=True)
        self.state.write_text(json.dumps({"jobs": [], "faults": {}, "calls": []}))
        for name in COMMANDS:
            (self.bin / name).write_text(
                f'#!/bin/bash\nexec "{sys.executable}" -SE "{Path(__file__).resolve()}" "{self.state}" {name} "$@"\n'
            )
            (self.bin / name).chmod(0o755)

    @contextmanager
    def held(self) -> Iterator[dict[str, Any]]:
        """The state, for one alone; what is changed in it is kept."""
        with self.state.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            data = json.load(handle)
            yield data
            handle.seek(0)
            handle.truncate()
            json.dump(data, handle)

    def job(self, number: int, state: str, name: str, folder: Path | str, **fields: str) -> None:
        """Add a job, or change it. Fields: reason, depends, start, elapsed, exit (CODE:SIGNAL), user."""
        with self.held() as data:
            data["jobs"] = [job for job in data["jobs"] if job["id"] != number]
            data["jobs"].append({"id": number, "state": state, "name": name, "dir": str(folder), **fields})

    def fault(self, command: str, text: str, code: int = 1, calls: str = "all", when: str = "before") -> None:
        """Let a command fail: at all calls, or those in `calls` ("2", "1,3"); sbatch `before` it queues, or `after`, or `killed` after."""
        with self.held() as data:
            data["faults"][command] = {"text": text, "code": code, "calls": calls, "when": when}

    def greets(self, command: str, before: str, after: str = "") -> None:
        """Lines that a command prints on stdout around each answer, as wrappers on some clusters do."""
        with self.held() as data:
            data.setdefault("greetings", {})[command] = [before, after]

    def answers_for(self, cluster: str) -> None:
        """sbatch adds the name of a cluster to each id, as it does when one was named."""
        with self.held() as data:
            data["cluster"] = cluster

    def nodes_are(self, machine: str) -> None:
        """The architecture of the nodes, as `uname -m` says it; without it Slurm says none."""
        with self.held() as data:
            data["arch"] = machine

    def repaired(self) -> None:
        """No command fails any more; calls are counted again."""
        with self.held() as data:
            data["faults"], data["calls"] = {}, []

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs there ever were, by their ids."""
        with self.held() as data:
            return sorted(data["jobs"], key=lambda job: job["id"])

    def calls(self, command: str = "") -> list[str]:
        """The calls of a command, with its arguments; those of `sbatch --test-only` are not among sbatch's."""
        with self.held() as data:
            return [call for call in data["calls"] if call.startswith(command) and not (command == "sbatch" and "--test-only" in call)]


def _main(state: str, command: str, arguments: list[str]) -> int:
    double = SlurmDouble.__new__(SlurmDouble)
    double.state = Path(state)
    tests_only = "--test-only" in arguments
    with double.held() as data:
        data["calls"].append(" ".join([command, *arguments]))
        count = sum(call.split()[0] == command and "--test-only" not in call for call in data["calls"])
        fault = data["faults"].get(command)
        fails = bool(fault) and not tests_only and (fault["calls"] == "all" or str(count) in fault["calls"].split(","))
        if fails and fault["when"] == "before":
            print(fault["text"], file=sys.stderr)
            return int(fault["code"])
        before, after = data.get("greetings", {}).get(command, ["", ""])
        print(before, end="")
        code = globals()[f"_{command}"](data, arguments)
        print(after, end="")
    if fails and fault["when"] == "killed":
        for process in _scripts():
            os.kill(process, signal.SIGKILL)
    if fails:
        print(fault["text"], file=sys.stderr)
        return int(fault["code"])
    return int(code)


def _scripts() -> list[int]:
    """The `bash -s` that reads the script which called us, with its subshells: our ancestors behind the `timeout` that it started."""
    found, process = [], os.getppid()
    while process > 1:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if words[0].endswith(b"bash") and words[1:2] == [b"-s"]:
            found.append(process)
        elif found:
            break
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _options(arguments: list[str]) -> dict[str, str]:
    found = {}
    for index, word in enumerate(arguments):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = value
        elif word == "-o":
            found["-o"] = arguments[index + 1]
        elif word.startswith("-"):
            found[word] = ""
    return found


def _chosen(data: dict[str, Any], options: dict[str, str]) -> list[dict[str, Any]]:
    names, numbers = options.get("--name"), options.get("--jobs")
    return [
        job
        for job in sorted(data["jobs"], key=lambda job: job["id"])
        if (names is None or job["name"] in names.split(",")) and (numbers is None or str(job["id"]) in numbers.split(","))
    ]


def _squeue(data: dict[str, Any], arguments: list[str]) -> int:
    options = _options(arguments)
    for job in _chosen(data, options):
        if (options.get("--states") != "all" and job["state"] not in ALIVE) or job.get("forgotten"):
            continue
        values = {
            "i": job["id"], "T": job["state"], "j": job["name"], "Z": job["dir"], "r": job.get("reason", "None"),
            "E": job.get("depends", "(null)"), "S": job.get("start", "N/A"), "M": job.get("elapsed", "0:00"),
            "u": job.get("user", "somebody"), "D": 1, "P": "batch",
        }  # fmt: skip
        print(re.sub(r"%([a-zA-Z])", lambda found: str(values[found[1]]), options["-o"]))  # noqa: B023
    return 0


def _sacct(data: dict[str, Any], arguments: list[str]) -> int:
    options = _options(arguments)
    for job in _chosen(data, options):
        values = {
            "JobIDRaw": job["id"], "State": job["state"], "ExitCode": job.get("exit", "0:0"), "ElapsedRaw": 1,
            "Start": job.get("start", "Unknown"), "WorkDir": job["dir"], "JobName": job["name"],
        }  # fmt: skip
        print("|".join(str(values[name]) for name in options["-o"].split(",")))
    return 0


def _sbatch(data: dict[str, Any], arguments: list[str]) -> int:
    if "--test-only" in arguments:
        return 0
    script = Path(arguments[-1]).read_text()
    name = next(re.split(r"[ =]", line)[2] for line in script.splitlines() if line.startswith("#SBATCH --job-name"))
    number = max([100, *(job["id"] for job in data["jobs"])]) + 1
    data["jobs"].append({"id": number, "state": "PENDING", "name": name, "dir": str(Path.cwd().resolve()), "reason": "Resources"})
    print(f"{number};{data['cluster']}" if data.get("cluster") else number)
    return 0


def _scancel(data: dict[str, Any], arguments: list[str]) -> int:
    for job in data["jobs"]:
        if str(job["id"]) in arguments and job["state"] in ALIVE:
            job["state"] = "CANCELLED"
    return 0


def _scontrol(data: dict[str, Any], arguments: list[str]) -> int:
    if "node" in arguments:
        print(f"NodeName=n1 Arch={data['arch']} CoresPerSocket=1" if data.get("arch") else "")
    for job in data["jobs"]:
        if str(job["id"]) == arguments[-1]:
            print(f"JobId={job['id']} JobName={job['name']} JobState={job['state']} ExitCode={job.get('exit', '0:0')} WorkDir={job['dir']}")
    return 0


def _sinfo(_data: dict[str, Any], _arguments: list[str]) -> int:
    print("batch|infinite|up")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3:]))
