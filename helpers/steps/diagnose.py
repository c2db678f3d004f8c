"""Why tasks of a run failed, or what any log shows: the line that tells, the cause, and the fix. Contacts nothing."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.common import causes, console, files
from helpers.common.causes import ANY
from helpers.common.errors import BadInput, one_line
from helpers.common.files import shown
from helpers.config import tasks
from helpers.executors import job_folder, states, submissions

BYTES = 200_000
NAMED = re.compile(r"(client|server|slurm)[-_.]")
# What enroot and the programs that it runs print while they import an image.
OF_IMPORT = re.compile(r"\[(INFO|WARN|ERROR)\] |\[evalmake\]|enroot|curl: \(|(pigz|gzip|zstd|tar|mksquashfs|parallel): |Checksum mismatch")


def show_logs(paths: Sequence[str]) -> None:
    """Print what each of these logs shows (`-`: stdin), of whichever kind it is. Raises BadInput for one that cannot be read."""
    for path in paths:
        try:
            lines = [line.strip() for line in sys.stdin.read().splitlines()] if path == "-" else job_folder.tail(Path(path), BYTES)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise BadInput(f"LOG={path}: {why}; name the log of an import, a job, a model server or an evaluation") from error
        print("standard input" if path == "-" else path)
        _show(_guesses(Path(path).name, lines), lines, "no known text is in it: read what is before this line")


def _guesses(name: str, lines: list[str]) -> list[Mapping[str, list[str]]]:
    """The log as the kinds that it may be of, the likeliest first."""
    if named := NAMED.match(name):
        return [{named[1]: lines}, {ANY: lines}]
    guesses: list[Mapping[str, list[str]]] = [{ANY: lines}, {"import": lines}]
    return guesses[::-1] if any(OF_IMPORT.match(line) for line in lines) else guesses


def show_tasks(submission_path: str) -> None:
    """Print why each failed task of a run failed, from its logs here and from status.json.

    Raises BadInput for a run that was not submitted, or whose states are not known.
    """
    submission = submissions.read(submission_path)
    path = Path(submission_path).with_name("status.json")
    again = f" RUN={path.parent.name}"
    if not path.exists():
        raise BadInput(f"{shown(path)} does not exist: `make status{again}` writes it")
    folders, labels = {job["index"]: job["job_dir"] for job in submission["jobs"]}, tasks.labels(submission["jobs"])
    failed = [row for row in files.read_json(path, "status")["jobs"] if states.has_failed(row)]
    if not failed:
        console.info(f"no task of {path.parent.name} has failed, according to {shown(path)}; `make status{again}` asks again")
    for row in failed:
        print(f"{labels[row['index']]}: {row['state']}")
        found = job_folder.logs(Path(folders[row["index"]])) if folders[row["index"]] else {}
        logs = {kind: job_folder.tail(log, BYTES) for kind, log in found.items()}
        if not logs:
            console.notice(f"its logs are not here: `make results{again}` copies them")
        # What a cancelled task printed when it was stopped is no cause.
        lines = next((logs[kind] for kind in ("client", "server", "slurm") if logs.get(kind)), [])
        _show([logs] if row["state"] != states.CANCELLED else [], lines, str(row["reason"] or "not known: read its logs (`make logs`)"))


def _show(guesses: Sequence[Mapping[str, list[str]]], lines: list[str], unknown: str) -> None:
    """Print the line that tells, the cause and the fix; `unknown`: the cause if no guess shows one."""
    logs, found = next(((logs, found) for logs in guesses if (found := causes.find(logs))), ({}, None))
    line = found.line if found else ""
    if not found or found.cause.read in logs or causes.SUMMARY.search(line):
        line = next(iter(causes.telling(logs[found.cause.read or found.log] if found else lines)[-1:]), line)
    for name, text in (("line", line), ("cause", found.what if found else unknown), ("fix", found.fix if found else "")):
        if text:
            print(f"  {name:<6} {one_line(text)[: causes.MOST_CHARACTERS]}")
