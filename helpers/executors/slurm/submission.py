"""Submitting to Slurm with the launcher's own executor, exactly once: what it does on the cluster goes through cluster/connection.py.

nemo-evaluator-launcher 0.2.6 makes the scripts and the records; the names of its executors/slurm/executor.py that reach out are replaced,
each held by a test (tests/helpers/executors/slurm/test_submission.py):

- `generate_invocation_id`, `get_timestamp_string`: the same for a run each time, so that its folder on the cluster is the same too;
- `load_tasks_mapping`: our catalogue, read once; `get_task_definition_for_job` (in api/functional.py too): for a task
  of the catalogue, whatever its container;
- `_generate_auto_export_section`: the W&B run that an export job writes to has an id of ours;
- `generate_secrets_env`: values in single quotes, so that `$`, `"` and backticks arrive as they are;
- `master_connection`, `_validate_remote_paths_exist`, `_make_remote_execution_output_dir`, `_rsync_upload_rundirs`,
  `_sbatch_remote_runsubs`: one connection, one look before anything is queued, and no job twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, Frame
from helpers.common import console, events, run_folder, stopping_points, walltime
from helpers.common.errors import StepFailed, Unreachable, one_line
from helpers.config import catalogue
from helpers.credentials import wandb_server
from helpers.launcher import api

# Less than this on the cluster's disk is refused, and less than that is said: an evaluation writes some megabytes a task.
LEAST_BYTES, LITTLE_BYTES = 20 << 20, 1 << 30
# Slurm's words about a script that it will not take, and the mend.
REFUSALS = [
    (r"[Ii]nvalid account", "check account (and partition) in env.toml: `sacctmgr show associations user=$USER` there lists yours"),
    (r"[Ii]nvalid partition", "check partition in env.toml: `sinfo -s` there lists them"),
    (
        r"time limit is invalid|PartitionTimeLimit|MaxWallDuration",
        "the walltime is over what the partition or QOS allows: lower time, or choose another",
    ),
    (r"QOSMax|policy|limit", "a limit of your account or QOS is reached: wait for jobs of yours to end, or ask for less"),
    (
        r"[Rr]equested node configuration is not available|gres|GRES",
        "no node of the partition has what is asked for: nodes, gpus_per_node, mem",
    ),
    (r"not permitted|not accessible|access", "the partition is not open to this account or user: choose another"),
    (r"State|down|drain|not available", "the partition takes no jobs now: choose another, or wait"),
]
# Slurm does not answer at all.
SILENT = re.compile(r"Unable to contact slurm controller|Socket timed out|Connection refused|timed out|Zero Bytes|Unable to establish")


@dataclass
class Submitting:
    """One submission through the launcher's executor: how the cluster is reached, which run it is, and what came of it."""

    cluster: Cluster
    run: Path | None
    seal: str
    keep_partial: bool = False
    images: Sequence[str] = ()
    paths: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)  # of the tasks, local, in order
    remote_dir: str = ""
    names: list[str] = field(default_factory=list)

    @property
    def invocation_id(self) -> str:
        """16 hex digits: the same for a run each time; outside a run another each time."""
        mark = f"{self.run.name} {self.seal}" if self.run else os.urandom(16).hex()
        return hashlib.sha256(mark.encode()).hexdigest()[:16]

    @property
    def timestamp(self) -> str:
        """`20261122_013512`: when the run was made."""
        asked = run_folder.time_of(self.run.name) if self.run else datetime.now(timezone.utc)
        return asked.strftime("%Y%m%d_%H%M%S")

    @property
    def days(self) -> int:
        """How far back accounting is asked for jobs of this run."""
        return days_since(run_folder.time_of(self.run.name)) if self.run else 2

    @property
    def remote_folders(self) -> list[str]:
        """The folder of each task on the cluster."""
        return [f"{self.remote_dir}/{folder.name}" for folder in self.folders]

    def expected(self, data: dict[str, Any]) -> tuple[list[str], list[str]]:
        """The job name and the folder on the cluster that each task of a launcher config has, or will have."""
        execution = data["execution"]
        rundir = f"{str(execution['output_dir']).rstrip('/')}/{self.timestamp}-{self.invocation_id}"
        folders = [f"{entry['name']}.{index}" for index, entry in enumerate(data["evaluation"]["tasks"])]
        return [f"{execution['account']}-{execution['subproject']}.{name}" for name in folders], [f"{rundir}/{name}" for name in folders]

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """The launcher's Slurm executor with our names in it. Files that it makes meanwhile are for their owner alone."""
        from nemo_evaluator_launcher.api import functional
        from nemo_evaluator_launcher.executors.slurm import executor

        find = definition(executor.get_task_definition_for_job)
        places: list[tuple[Any, str, Any]] = [
            (functional, "get_task_definition_for_job", find),
            (executor, "get_task_definition_for_job", find),
            (executor, "load_tasks_mapping", api.task_mapping),
            (executor, "generate_invocation_id", lambda: self.invocation_id),
            (executor, "get_timestamp_string", lambda **_: self.timestamp),
            (executor, "generate_secrets_env", quoted_secrets),
            (executor, "_generate_auto_export_section", export_section(vars(executor)["_generate_auto_export_section"])),
            (executor, "master_connection", lambda **_: contextlib.nullcontext()),
            (executor, "_validate_remote_paths_exist", lambda *, paths, **_: self.paths.extend(paths)),
            (executor, "_make_remote_execution_output_dir", lambda **_: None),
            (executor, "_rsync_upload_rundirs", _aloud(self._upload)),
            (executor, "_sbatch_remote_runsubs", _aloud(self._queue)),
        ]
        stock = [(module, name, getattr(module, name)) for module, name, _ in places]
        was = os.umask(0o077)
        try:
            for module, name, replacement in places:
                setattr(module, name, replacement)
            yield
        finally:
            for module, name, original in stock:
                setattr(module, name, original)
            os.umask(was)

    def _upload(self, *, local_sources: list[Path], remote_target: str, **_: Any) -> None:
        """Look before anything is queued, then bring the folders of the tasks that have no job yet."""
        (rundir,) = local_sources
        self.remote_dir = f"{str(remote_target).rstrip('/')}/{rundir.name}"
        self.folders = sorted(rundir.iterdir(), key=lambda folder: int(folder.name.rpartition(".")[2]))
        scripts = [(folder / "run.sub").read_text(encoding="utf-8") for folder in self.folders]
        self.names = [job_name(script) for script in scripts]
        stopping_points.here("before-prepare")
        known = self._prepare(str(remote_target), scripts[0])
        new = [folder for index, folder in enumerate(self.folders) if index not in known]
        if known:
            console.info(f"{len(known)} of {len(self.folders)} tasks have a job already: adopted, not submitted again")
        stopping_points.here("before-upload")
        if new:
            connection.upload(self.cluster, new, f"{self.remote_dir}/")
        stopping_points.here("before-sbatch")

    def _prepare(self, output: str, script: str) -> set[int]:
        """The indices of the tasks that have a job already. Raises StepFailed for what stands against submitting, Unreachable."""
        text = connection.script(
            "prepare",
            OUTPUT=output,
            RUNDIR=self.remote_dir,
            PATHS=[*dict.fromkeys([*self.paths, *(image for image in self.images if image.startswith("/"))])],
            SCRIPT=script,
            PARTITION=option(script, "partition"),
            NAMES=self.names,
            DIRS=self.remote_folders,
            DAYS=self.days,
        )
        frames = connection.run(self.cluster, text, timeout=180)
        known = {int(frame.key) for frame in frames if frame.kind == "job" and frame.text}
        if len(known) < len(self.folders):
            refuse_problems(self.cluster, output, frames)
            for line in never_started(frames, option(script, "time")):
                console.notice(line)
        return known

    def _queue(self, *, remote_runsub_paths: list[Path], **_: Any) -> list[str]:
        """The Slurm job id of each task, in their order. Raises StepFailed when one was refused, Unreachable when it could not be asked."""
        assert [str(path.parent) for path in remote_runsub_paths] == self.remote_folders
        text = connection.script(
            "submit",
            RUNDIR=self.remote_dir,
            NAMES=self.names,
            DIRS=self.remote_folders,
            DAYS=self.days,
            KEEP_PARTIAL=int(self.keep_partial),
        )
        frames = connection.run(self.cluster, text, timeout=300 + 5 * len(self.folders))
        stopping_points.here("after-sbatch")
        ids = {int(frame.key): frame.text for frame in frames if frame.kind in ("found", "queued")}
        if ids:
            jobs = {self.folders[index].name: job for index, job in ids.items()}
            events.append(self.run, "submit_eval", event="queued", jobs=jobs)
        self._raise_for(frames, ids)
        return [ids[index] for index in range(len(self.folders))]

    def _raise_for(self, frames: list[Frame], ids: dict[int, str]) -> None:
        run = f" RUN={self.run.name}" if self.run else ""
        for frame in frames:
            if frame.kind in ("no-queue", "unsure"):
                raise Unreachable(
                    f"Slurm on {self.cluster} does not say which jobs there are ({one_line(frame.text)}): nothing more was submitted, "
                    f"nothing was lost; the same command with{run} goes on"
                )
            if frame.kind == "locked":
                raise Unreachable(
                    f"another submission of this run is at work on {self.cluster} ({frame.text}); wait for it, then try again"
                )
            if frame.kind == "gone":
                raise StepFailed(f"{self.cluster}: {frame.text} was removed while the run was submitted; give the same command{run} again")
        refused = [frame for frame in frames if frame.kind == "refused"]
        if not refused:
            if len(ids) != len(self.folders):
                raise StepFailed(f"{len(ids)} of {len(self.folders)} tasks have a job; give the same command{run} again")
            return
        for frame in refused:
            console.say(one_line(f"✗ {self.folders[int(frame.key)].name}: {_slurms_words(frame.text)}"))
        task, said = self.folders[int(refused[0].key)].name, one_line(_slurms_words(refused[0].text))
        back = {frame.kind: frame.text for frame in frames if frame.kind in ("taken-back", "left")}
        if "left" in back:
            rest = f"the jobs already queued could not all be cancelled: {back['left']}; the same command cancels them first"
        elif "taken-back" in back:
            rest = f"the jobs already queued were cancelled: {back['taken-back']} (KEEP_PARTIAL=1 keeps them)"
        elif ids:
            stay = ", ".join(ids.values())
            rest = f"{len(ids)} of {len(self.folders)} tasks are queued and stay ({stay}); the same command{run} submits the rest"
        else:
            rest = "nothing was queued"
        raise StepFailed(f"Slurm refused {task}: {said}{mend_of(said)}; {rest}")


def definition(stock: Callable[..., Any]) -> Callable[..., Any]:
    """The launcher's get_task_definition_for_job (common/mapping.py), which knows a task of the catalogue in a container of its own too.

    The stock one would read that container's catalogue, from its registry, and knows nothing of a task in a .sqsh file.
    """

    def found(*, task_query: str, container: str | None = None, **others: Any) -> Any:
        return stock(task_query=task_query, container=None if catalogue.is_known(task_query) else container, **others)

    return found


def export_section(stock: Callable[..., str]) -> Callable[..., str]:
    """The launcher's _generate_auto_export_section, with the W&B run's id in it: its exporter makes another run each time without one.

    wandb's SDK takes the id from the environment.
    """

    def made(*, cfg: Any, job_id: str, remote_task_subdir: Path, **others: Any) -> str:
        from omegaconf import OmegaConf

        own = OmegaConf.merge(cfg, {})
        known = shlex.quote(wandb_server.run_id(job_id.rpartition(".")[0], remote_task_subdir.name))
        command = own.execution.auto_export.get("launcher_install_cmd")
        if not command:  # launcher.yaml has one (launcher_yaml.py), unless somebody took it out
            return stock(cfg=cfg, job_id=job_id, remote_task_subdir=remote_task_subdir, **others)
        own.execution.auto_export.launcher_install_cmd = f"export WANDB_RUN_ID={known} WANDB_RESUME=allow\n    {command}"
        return stock(cfg=own, job_id=job_id, remote_task_subdir=remote_task_subdir, **others)

    return made


def _aloud(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ours that the launcher calls, which talks to the person and not to the launcher's log."""

    def called(**arguments: Any) -> Any:
        with api.talking_to_the_person():
            return function(**arguments)

    return called


def _where_to_look(path: str) -> str:
    """The mend of a path that is not there. An image that was squashed may have been removed since."""
    if path.endswith(".sqsh"):
        return "check the path; if it was squashed, delete images.json and launcher.yaml of the run, and the same command makes it again"
    return "check deployment.checkpoint_path, execution.mounts and the images"


def refuse_problems(cluster: Cluster, output: str, frames: list[Frame]) -> None:
    """Say on stderr what stands against submitting, a line each, and raise StepFailed; or say what is good to know.

    Raises Unreachable when Slurm does not answer.
    """
    problems = []
    for frame in frames:
        if frame.kind == "no-queue":
            raise Unreachable(f"Slurm on {cluster} does not answer ({one_line(frame.text)}); nothing was submitted, try again later")
        if frame.kind == "output":
            problems.append(f"{output} cannot be written ({one_line(frame.text)}): mend that, or give another remote_job_dir")
        if frame.kind == "missing":
            problems.append(f"{frame.text} does not exist there: {_where_to_look(frame.text)}")
        if frame.kind == "closed":
            problems.append(f"{frame.text} cannot be read there: mend its permissions")
        if frame.kind == "room" and (free := free_bytes(frame.text)) is not None and free < LITTLE_BYTES:
            text = f"{output} has {free >> 20} MiB left"
            if free < LEAST_BYTES:
                problems.append(f"{text}, and an evaluation needs {LEAST_BYTES >> 20}: free space, or give another remote_job_dir")
            else:
                console.notice(text)
        if frame.kind == "tested":
            said = _slurms_words(frame.text)
            if frame.key not in ("0", "124", "137"):
                if SILENT.search(said):
                    raise Unreachable(f"Slurm on {cluster} does not answer ({one_line(said)}); nothing was submitted, try again later")
                problems.append(f"Slurm would refuse the job: {one_line(said)}{mend_of(said)}")
            elif frame.key == "0" and (start := re.search(r"to start at (\S+) .*?(on nodes? \S+|in partition \S+)", said)):
                console.info(f"Slurm would start it at {start[1]} {start[2]} (by the cluster's clock)")
            elif frame.key != "0":
                raise Unreachable(
                    f"Slurm on {cluster} did not answer sbatch --test-only within 60 s; nothing was submitted, try again later"
                )
    for problem in problems:
        console.say(one_line(f"✗ {problem}"))
    if problems:
        raise StepFailed(
            f"{cluster}: {problems[0]}{f' (and {len(problems) - 1} more, see above)' if problems[1:] else ''}; nothing was submitted"
        )


def _slurms_words(text: str) -> str:
    return " ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines())


def mend_of(said: str) -> str:
    """`; ` and the mend for Slurm's words about a script that it will not take; empty for words that are not known."""
    return next((f"; {mend}" for pattern, mend in REFUSALS if re.search(pattern, said)), "")


def free_bytes(line: str) -> int | None:
    """What is free by a line of `df -Pk`: bytes, or None for a line that is none."""
    fields = line.split()
    return int(fields[3]) * 1024 if len(fields) > 5 and fields[3].isdecimal() else None  # noqa: PLR2004  POSIX: six fields


def never_started(frames: list[Frame], time: str) -> Iterator[str]:
    """What stands against a job ever starting in its partition, though Slurm takes it (EnforcePartLimits=NO, its default): a line each.

    The frame `partition` holds NAME|LIMIT|STATE, a line for each partition that may take the job; a QOS may allow more than the partition.
    """
    lines = [line for frame in frames if frame.kind == "partition" for line in frame.text.splitlines()]
    rows = [found.groups() for line in lines if (found := re.fullmatch(r"([^|]+)\|([^|]+)\|([^|]+)", line))]
    names = ", ".join(name for name, _, _ in rows)
    limits = [walltime.seconds(limit, name) for name, limit, _ in rows if walltime.SLURMS_FORM.fullmatch(limit)]
    if rows and len(limits) == len(rows) and time and walltime.seconds(time, "time") > max(limits):
        most = walltime.canonical(max(limits))
        yield f"walltime {time} is over the {most} of partition {names}: unless your QOS allows more, the jobs never start; lower time"
    if rows and not any(state.startswith("up") for _, _, state in rows):
        yield f"partition {names} is {rows[0][2]}: the jobs wait until it is up; or choose another partition"


def job_name(script: str) -> str:
    """The name that an sbatch script gives its job: ACCOUNT-SUBPROJECT.TASK.N."""
    found = option(script, "job-name")
    assert found, "the launcher's script has no --job-name"
    return found


def option(script: str, name: str) -> str:
    """The value of an option of an sbatch script, `#SBATCH --NAME VALUE`; empty without it."""
    found = re.search(rf"^#SBATCH --{name}[ =](\S+)$", script, re.MULTILINE)
    return found[1] if found else ""


def days_since(when: datetime) -> int:
    """Whole days from then to now, and two more: the cluster's clock and time zone are its own."""
    return max(0, (datetime.now(timezone.utc) - when).days) + 2


def quoted_secrets(env_groups: dict[str, dict[str, Any]]) -> Any:
    """The launcher's generate_secrets_env (common/env_vars.py), with each value quoted for the shell that sources the file.

    The launcher writes `export NAME="value"`, in which the shell expands `$`, backticks and backslashes.
    """
    from nemo_evaluator_launcher.common import env_vars

    result = env_vars.generate_secrets_env(env_groups)
    lines = []
    for group, remappings in result.group_remappings.items():
        for one in remappings:
            _, value = env_vars.resolve_env_var(one.original_name, env_groups[group][one.original_name])
            lines.append(f"export {one.disambiguated_name}={shlex.quote(str(value))}")
    result.secrets_content = "\n".join(lines) + ("\n" if lines else "")
    return result
