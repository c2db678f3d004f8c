"""What prepare.sh found on the cluster before a submission: obstacles and notices."""

import re
from collections.abc import Iterator

from helpers.cluster import slurm_words
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import console, walltime
from helpers.common.errors import StepFailed, Unreachable, one_line

# With less free space than this a submission is refused, or mentioned: an evaluation writes some megabytes per task.
LEAST_BYTES, LITTLE_BYTES = 20 << 20, 1 << 30


def refuse_problems(cluster: Cluster, output: str, frames: list[Frame]) -> None:
    """Print each obstacle on stderr, one per line, and raise StepFailed; if there are none, print the notices.

    Raises Unreachable if Slurm does not answer.
    """
    problems = []
    for frame in frames:
        if frame.kind == "no-queue":
            raise _silent(cluster, frame.text)
        if frame.kind == "output":
            problems.append(f"{output} cannot be written ({one_line(frame.text)}): fix that, or choose another remote_job_dir")
        if frame.kind == "missing":
            problems.append(f"{frame.text} does not exist there: {_where_to_look(frame.text)}")
        if frame.kind == "closed":
            problems.append(f"{frame.text} cannot be read there: fix its permissions")
        if frame.kind == "room" and (free := free_bytes(frame.text)) is not None and free < LITTLE_BYTES:
            text = f"{output} has {free >> 20} MiB left"
            if free < LEAST_BYTES:
                problems.append(f"{text}, and an evaluation needs {LEAST_BYTES >> 20}: free space, or choose another remote_job_dir")
            else:
                console.notice(text)
        if frame.kind == "tested" and (problem := _tested(cluster, frame)):
            problems.append(problem)
    for problem in problems:
        console.say(one_line(f"✗ {problem}"))
    if problems:
        others = f" (and {len(problems) - 1} more, see above)" if problems[1:] else ""
        raise StepFailed(f"{cluster}: {problems[0]}{others}; nothing was submitted")


def _tested(cluster: Cluster, frame: Frame) -> str:
    """What `sbatch --test-only` has against the job; empty if nothing. Raises Unreachable if Slurm does not answer."""
    if frame.key in slurm_words.STOPPED_BY_TIMEOUT:
        raise Unreachable(f"Slurm on {cluster} did not answer sbatch --test-only within 60 s; nothing was submitted, try again later")
    said = slurm_words.plain(frame.text)
    if frame.key == "0":
        if start := re.search(r"to start at (\S+) .*?(on nodes? \S+|in partition \S+)", said):
            console.info(f"Slurm would start it at {start[1]} {start[2]} (by the cluster's clock)")
        return ""
    if slurm_words.SILENT.search(said):
        raise _silent(cluster, said)
    return f"Slurm would refuse the job: {slurm_words.refusal(frame.text)}"


def _silent(cluster: Cluster, said: str) -> Unreachable:
    return Unreachable(f"Slurm on {cluster} does not answer ({one_line(said)}); nothing was submitted, try again later")


def _where_to_look(path: str) -> str:
    """The fix for a missing path. An image that was squashed may have been removed since."""
    if path.endswith(".sqsh"):
        return "check the path; if it was squashed, delete images.json and launcher.yaml of the run, and the same command makes it again"
    return "check deployment.checkpoint_path, execution.mounts and the images"


def free_bytes(line: str) -> int | None:
    """The free space in a line of `df -Pk`, in bytes; None for anything else."""
    fields = line.split()
    return int(fields[3]) * 1024 if len(fields) > 5 and fields[3].isdecimal() else None  # noqa: PLR2004  POSIX: six fields


def never_started(frames: list[Frame], time: str) -> Iterator[str]:
    """Why a job may never start in its partition though Slurm accepts it (EnforcePartLimits=NO, its default): a line for each reason.

    The frame `partition` holds a line NAME|LIMIT|STATE for each partition that may take the job. A QOS may allow more than its partition.
    """
    lines = [line for frame in frames if frame.kind == "partition" for line in frame.text.splitlines()]
    rows = [found.groups() for line in lines if (found := re.fullmatch(r"([^|]+)\|([^|]+)\|([^|]+)", line))]
    names = ", ".join(name for name, _, _ in rows)
    limits = [walltime.seconds(limit, name) for name, limit, _ in rows if walltime.SLURMS_FORM.fullmatch(limit)]
    if rows and len(limits) == len(rows) and time and walltime.seconds(time, "time") > max(limits):
        most = walltime.canonical(max(limits))
        yield f"walltime {time} is over the limit {most} of partition {names}: the jobs never start unless your QOS allows more; lower time"
    if rows and not any(state.startswith("up") for _, _, state in rows):
        yield f"partition {names} is {rows[0][2]}: the jobs wait until it is up; or choose another partition"
