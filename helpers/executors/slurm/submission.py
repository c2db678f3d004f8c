"""Copying the job scripts of a run to its cluster and queueing them, exactly once.

The invocation's id is the same for a run each time, so its folder on the cluster and the names of its jobs are too. prepare.sh looks for
jobs that exist already and for obstacles, one upload brings the folders of the other tasks, and submit.sh queues those.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from helpers.cluster import copying, scripts, slurm_words
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import console, events, run_folder, stopping_points
from helpers.common.errors import StepFailed, Unreachable, one_line
from helpers.executors.slurm import checks


@dataclass
class Submission:
    """One submission: the cluster, the run with the seal of its launcher.yaml, and its outcome. `run` is None outside a run."""

    cluster: Cluster
    run: Path | None
    seal: str
    keep_partial: bool = False
    images: Sequence[str] = ()
    # Known once the job scripts are written.
    folders: list[Path] = field(default_factory=list)  # of the tasks, on this machine, in order
    remote_dir: str = ""
    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)  # of the Slurm jobs
    submitted_at: float = 0.0

    def __post_init__(self) -> None:
        """Choose the ids: `invocation_id` has 16 hex digits, the same for a run each time; `timestamp` says when the run was made."""
        mark = f"{self.run.name} {self.seal}" if self.run else os.urandom(16).hex()
        made = run_folder.time_of(self.run.name) if self.run else datetime.now(timezone.utc)
        self.invocation_id = hashlib.sha256(mark.encode()).hexdigest()[:16]
        self.timestamp = made.strftime("%Y%m%d_%H%M%S")
        self.days = days_since(made)  # how far back accounting is asked

    @property
    def remote_folders(self) -> list[str]:
        """The folder of each task on the cluster."""
        return [f"{self.remote_dir}/{folder.name}" for folder in self.folders]

    def expected(self, data: dict[str, Any]) -> tuple[list[str], list[str]]:
        """The job name, and the folder on the cluster, that each task of a launcher config has or will have."""
        execution = data["execution"]
        rundir = f"{str(execution['output_dir']).rstrip('/')}/{self.timestamp}-{self.invocation_id}"
        folders = [f"{entry['name']}.{index}" for index, entry in enumerate(data["evaluation"]["tasks"])]
        return [f"{execution['account']}-{execution['subproject']}.{name}" for name in folders], [f"{rundir}/{name}" for name in folders]

    def bring(self, rundir: Path, folders: list[Path], output_dir: str, mounts: Sequence[str]) -> None:
        """Queue each task once, from its folder in `rundir`, and keep the job ids in the tasks' order.

        `mounts`: paths on the cluster that jobs read. Raises StepFailed for obstacles and refusals, Unreachable.
        """
        self.remote_dir = f"{output_dir.rstrip('/')}/{rundir.name}"
        self.folders = folders
        job_scripts = [(folder / "run.sub").read_text(encoding="utf-8") for folder in folders]
        self.names = [option(script, "job-name") for script in job_scripts]
        assert all(self.names), "the launcher's script has no --job-name"
        stopping_points.here("before-prepare")
        known = self._prepare(output_dir, job_scripts[0], mounts)
        new = [folder for index, folder in enumerate(folders) if index not in known]
        if known:
            console.info(f"{len(known)} of {len(folders)} tasks already have a job: adopted, not submitted again")
        stopping_points.here("before-upload")
        if new:
            copying.upload(self.cluster, new, f"{self.remote_dir}/")
        stopping_points.here("before-sbatch")
        self.ids = self._queue()

    def _prepare(self, output: str, script: str, mounts: Sequence[str]) -> set[int]:
        """The indices of the tasks that have a job already. Raises StepFailed for obstacles, Unreachable."""
        paths = list(dict.fromkeys([*mounts, *(image for image in self.images if image.startswith("/"))]))
        more = {"OUTPUT": output, "PATHS": paths, "SCRIPT": script, "PARTITION": option(script, "partition")}
        text = script_for("prepare.sh", self.names, self.remote_folders, self.days, **more)
        frames = scripts.run(self.cluster, text, timeout=180)
        known = {int(frame.key) for frame in frames if frame.kind == "job" and frame.text}
        if len(known) < len(self.folders):
            checks.refuse_problems(self.cluster, output, frames)
            for line in checks.never_started(frames, option(script, "time")):
                console.notice(line)
        return known

    def _queue(self) -> list[str]:
        """The Slurm job id of each task, in order. Raises StepFailed if one was refused, Unreachable if Slurm did not answer."""
        text = script_for("submit.sh", self.names, self.remote_folders, self.days, KEEP_PARTIAL=int(self.keep_partial))
        frames = scripts.run(self.cluster, text, timeout=300 + 5 * len(self.folders))
        stopping_points.here("after-sbatch")
        ids = {int(frame.key): frame.text for frame in frames if frame.kind in ("found", "queued")}
        if ids:
            jobs = {self.folders[index].name: job for index, job in ids.items()}
            events.append(self.run, "submit_eval", event="queued", jobs=jobs)
        self._raise_for(frames, ids)
        return [ids[index] for index in range(len(self.folders))]

    def _raise_for(self, frames: list[Frame], ids: dict[int, str]) -> None:
        run = f" with RUN={self.run.name}" if self.run else ""
        for frame in frames:
            if frame.kind in ("no-queue", "unsure"):
                raise Unreachable(
                    f"Slurm on {self.cluster} does not say which jobs exist ({one_line(frame.text)}): nothing more was submitted, and "
                    f"nothing is lost; the same command{run} continues"
                )
            if frame.kind == "locked":
                raise Unreachable(f"another submission of this run is active on {self.cluster} ({frame.text}); wait for it, then try again")
            if frame.kind == "gone":
                raise StepFailed(f"{self.cluster}: {frame.text} was removed during the submission; run the same command{run} again")
        refused = [frame for frame in frames if frame.kind == "refused"]
        if not refused:
            if len(ids) != len(self.folders):
                raise StepFailed(f"{len(ids)} of {len(self.folders)} tasks have a job; run the same command{run} again")
            return
        for frame in refused:
            console.say(one_line(f"✗ {self.folders[int(frame.key)].name}: {slurm_words.plain(frame.text)}"))
        left = {frame.kind: frame.text for frame in frames if frame.kind in ("taken-back", "left")}
        if "left" in left:
            rest = f"some jobs that were already queued could not be cancelled: {left['left']}; the same command cancels them first"
        elif "taken-back" in left:
            rest = f"the jobs that were already queued were cancelled: {left['taken-back']} (KEEP_PARTIAL=1 keeps them)"
        elif ids:
            stay = ", ".join(ids.values())
            rest = f"{len(ids)} of {len(self.folders)} tasks are queued and stay ({stay}); the same command{run} submits the rest"
        else:
            rest = "nothing was queued"
        task, said = self.folders[int(refused[0].key)].name, one_line(slurm_words.refusal(refused[0].text))
        raise StepFailed(f"Slurm refused {task}: {said}; {rest}")


def script_for(name: str, names: Sequence[str], folders: Sequence[str], days: int, **more: str | int | Sequence[str]) -> str:
    """The script executors/slurm/NAME for tasks of a run, by their job names and folders; `days`: how far back accounting is asked."""
    rundir = folders[0].rpartition("/")[0]
    return scripts.script(f"executors/slurm/{name}", RUNDIR=rundir, NAMES=names, DIRS=folders, DAYS=days, **more)


def option(script: str, name: str) -> str:
    """The value of an option of an sbatch script, `#SBATCH --NAME VALUE`; empty if it is not set."""
    found = re.search(rf"^#SBATCH --{name}[ =](\S+)$", script, re.MULTILINE)
    return found[1] if found else ""


def days_since(when: datetime) -> int:
    """Whole days from then to now, plus two, since the cluster has its own clock and time zone."""
    return max(0, (datetime.now(timezone.utc) - when).days) + 2
