"""The folder of a job on this machine, in the layout of the launcher's local executor.

    TASK.N/logs/stage.pre-start, stage.running, stage.exit ("TIME CODE"), client_stdout.log, server_stdout.log
    TASK.N/artifacts/            what the harness writes; `progress` holds the number of answered requests, `total` that of all samples
    TASK.N/run_config.yml        nemo-evaluator's config
    TASK.N/answers.json          once it has ended: what its answers carried, counted by us

So the stock `nemo-evaluator-launcher status|info|logs|export` read it. Nothing heavy is imported here: each status call pays for it.
"""

import contextlib
import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from helpers.common import causes, yaml_files
from helpers.executors import answers

ANSWERS = "answers.json"

LM_EVAL_REQUESTS = re.compile(rb"Cached requests: (\d+), Requests remaining: (\d+)")
HEAD = 500_000  # bytes; that line comes before the first request, and each request adds two lines to the log


def stage(job_dir: Path, name: str, code: int | None = None) -> None:
    """Write a stage file (`pre-start`, `running`, `exit`): the UTC time, and for `exit` the exit code."""
    path = job_dir / "logs" / f"stage.{name}"
    time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    temporary = path.with_name(f".stage.{name}.{os.getpid()}.part")
    temporary.write_text(time + ("" if code is None else f" {code}") + "\n")
    temporary.replace(path)


def stage_time(job_dir: Path, name: str) -> float | None:
    """When a stage was reached, in seconds since 1970; None when it was not."""
    try:
        text = (job_dir / "logs" / f"stage.{name}").read_text().split()[0]
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (OSError, IndexError, ValueError):
        return None


def exit_code(job_dir: Path) -> int | None:
    """The exit code of a job; None while it has not ended."""
    try:
        return int((job_dir / "logs" / "stage.exit").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None


def requests_done(job_dir: Path, finished: bool) -> int | None:
    """How many requests were answered. Two threads write the running count, which may end too low; the final count is exact."""
    if finished:
        stats = (read(job_dir / "artifacts" / "eval_factory_metrics.json") or {}).get("response_stats")
        if isinstance(stats, dict) and isinstance(stats.get("successful_count"), int):
            return int(stats["successful_count"])
    return number_in(job_dir / "artifacts" / "progress")


def samples_asked(job_dir: Path) -> int | None:
    """How many requests the task takes: by the harness's artifacts/total or its log, else by limit_samples; None when none says so.

    lm-evaluation-harness sends several for a sample with choices, and writes into its log how many it has in all.
    """
    if (total := number_in(job_dir / "artifacts" / "total")) is not None:
        return total
    with contextlib.suppress(OSError), (job_dir / "logs" / "client_stdout.log").open("rb") as log:
        if found := LM_EVAL_REQUESTS.findall(log.read(HEAD)):
            return max(int(cached) + int(remaining) for cached, remaining in found)
    path = job_dir / "run_config.yml"
    try:
        # In a container nemo-evaluator writes it beside the results.
        config = yaml_files.load((path if path.exists() else job_dir / "artifacts" / path.name).read_text(encoding="utf-8"))
        limit = config["config"]["params"]["limit_samples"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return None
    return limit if isinstance(limit, int) else None


def of_lm_eval(artifacts: Path) -> dict[str, Any]:
    """The newest of lm-evaluation-harness's own results files, whose names end in the time; empty for other harnesses."""
    found = sorted(artifacts.glob("**/results_*.json"), key=lambda path: path.name)
    data = read(found[-1]) if found else None
    return data if isinstance(data, dict) else {}


def answers_of(job_dir: Path) -> dict[str, Any] | None:
    """What the answers of a job that has ended carried (answers.count), counted once and kept in answers.json; None when nothing says."""
    kept = job_dir / ANSWERS
    with contextlib.suppress(OSError):
        if kept.stat().st_mtime_ns >= (job_dir / "logs" / "stage.exit").stat().st_mtime_ns:
            return (read(kept) or {}).get("answers")
    found = answers.count(job_dir / "artifacts")
    with contextlib.suppress(OSError):  # the folder may belong to a container's user
        temporary = kept.with_name(f".answers.{os.getpid()}.part")
        temporary.write_text(json.dumps({"answers": found}), encoding="utf-8")
        temporary.replace(kept)
    return found


def last_error(job_dir: Path) -> str:
    """The line of the job's logs that says best why it failed (see causes.telling), else the last line."""
    for name in ("client_stdout.log", "server_stdout.log"):
        try:
            lines = tail(job_dir / "logs" / name)
        except OSError:
            continue
        if found := causes.telling(lines):
            return found[-1].removeprefix("error: ")
    return "its logs are empty"


def logs(job_dir: Path) -> dict[str, Path]:
    """The newest log here of each kind (slurm, server, client) of a job, whichever executor wrote it.

    After a failed job on Slurm its successor starts, sees that, and says so in a log of its own, which tells nothing.
    """
    found: dict[str, Path] = {}
    for kind in causes.NODE.split():
        paths = [path for path in (job_dir / "logs").glob(f"{kind}[-_]*.log") if path.exists()]
        for path in sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)]):
            if not any(line.endswith("state. EXIT!") for line in tail(path)):
                found[kind] = path
    return found


def tail(path: Path, size: int = 20_000) -> list[str]:
    """The last lines of a log that are not empty, out of its last `size` bytes. Raises OSError."""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - size))
        text = handle.read().decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def number_in(path: Path) -> int | None:
    """The whole number in a file, or None."""
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def read(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file, or None when it is missing or torn."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data
