"""The pipeline as a person at a terminal uses it, on the test cluster: a copy of the project, Make in it, and what Slurm says of its runs.

pipeline = Pipeline.made(cluster, tmp_path)       a copy of the project, with a home and a job database of its own
done = pipeline.make("batch", *pipeline.sleeping)  a completed `make`; pipeline.run is the run's folder
pipeline.jobs(run)                                 the Slurm jobs of a run, by their names: squeue's and sacct's
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from checkout import PERSONAL, ROOT, copy_project
from cluster.testbed import Bed, until
from helpers.config.tasks import TRUST

# A job that stays in the queue until it is released: nothing is started, no successor comes, and cancelling it takes no time.
HELD = "+execution.sbatch_extra_flags.hold=true"
ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL", "REVOKED")


@dataclass(frozen=True)
class Job:
    """A job as Slurm knows it. `successor`: queued by a job for the case that it is cut short, not by a submission."""

    id: str
    name: str
    state: str
    folder: str
    successor: bool

    @property
    def task(self) -> str:
        """`toy.sums.0`"""
        return self.name.partition(".")[2]

    @property
    def lives(self) -> bool:
        """Whether it holds or wants nodes."""
        return self.state not in ENDED


@dataclass
class Pipeline:
    """A copy of the project and a client's environment, on a test cluster."""

    bed: Bed
    project: Path
    environment: dict[str, str]
    config: str
    profile: str = "CLUSTER"

    @classmethod
    def made(cls, bed: Bed, folder: Path, tasks: Sequence[str] = ("toy.sums", "toy.differences")) -> Pipeline:
        """A copy of the project in `folder`/project, with a config of these tasks."""
        project = copy_project(folder / "project")
        (project / ".venv").symlink_to(ROOT / ".venv")
        home = folder / "home"
        home.mkdir()
        (home / ".ssh").symlink_to(bed.folder / "home/.ssh")  # paramiko's, for the stock launcher
        ours = {name: value for name, value in bed.env().items() if not name.startswith(PERSONAL) or name == "EVALMAKE_ENV_FILE"}
        pipeline = cls(bed, project, {**ours, "HOME": str(home), "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0", TRUST: "1"}, "")
        pipeline.config = pipeline.write_config("toy", tasks)
        return pipeline

    # ---- What is asked for -----------------------------------------------------------------------------------------------------------

    def write_config(self, name: str, tasks: Sequence[str] = ("toy.sums", "toy.differences"), **values: Any) -> str:
        """configs/NAME.yaml in the copy: the bed's cluster-eval.yaml with these tasks and values (`execution={…}`); its name for CONFIG."""
        document = yaml.safe_load((self.bed.folder / "cluster-eval.yaml").read_text())
        entry = document["evaluation"]["tasks"][0]
        document["evaluation"]["tasks"] = [{**entry, "name": task} for task in tasks]
        document["deployment"]["checkpoint_path"] = str(self.checkpoint())
        _merge(document, values)
        (self.project / "configs" / f"{name}.yaml").write_text(json.dumps(document))
        return name

    def checkpoint(self) -> Path:
        """A folder on the cluster that stands for a model's checkpoint; the toy model reads nothing of it."""
        folder = self.bed.name / "jobs/checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_profile(self, name: str, **fields: Any) -> str:
        """A profile in an env.toml of this copy's own, the bed's with this one added; its name."""
        own = self.project / "env.toml"
        if not own.exists():
            shutil.copy(self.bed.folder / "env.toml", own)
            self.environment["EVALMAKE_ENV_FILE"] = str(own)
        given = {"extends": "CLUSTER", **fields}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items() if value is not None)
        kept = re.sub(rf"^\[{name}\]\n.*?(?=^\[|\Z)", "", own.read_text(), flags=re.DOTALL | re.MULTILINE)
        own.write_text(f"{kept}\n[{name}]\n{text}")
        return name

    # ---- Make ------------------------------------------------------------------------------------------------------------------------

    def words(self, target: str, *words: str) -> list[str]:
        """`make TARGET …`, with PROFILE and CONFIG if they are not given and no run is continued."""
        given = {word.partition("=")[0] for word in words}
        own = [] if target not in ("eval", "batch", "dry-run") or "RUN" in given else [("PROFILE", self.profile), ("CONFIG", self.config)]
        return ["make", target, *(f"{name}={value}" for name, value in own if name not in given), *words]

    def make(
        self, target: str, *words: str, env: dict[str, str] | None = None, timeout: float = 200, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """The completed `make TARGET …`, both streams as text."""
        return subprocess.run(
            [*prefix, *self.words(target, *words)],
            cwd=self.project,
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def start(self, target: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """`make TARGET …` at work, in a session of its own as at a terminal; stderr is in stdout. `ended` ends it whatever happens."""
        return subprocess.Popen(
            self.words(target, *words),
            cwd=self.project,
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def at_work(self, target: str, *words: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """`start`, killed at the end with all that it started on this machine, should it still be at work."""
        process = self.start(target, *words, env=env)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    # ---- Runs ------------------------------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> list[Path]:
        """The folders of all runs of this copy, oldest first."""
        return sorted((self.project / "runs").glob("*Z-*"), key=lambda folder: folder.stat().st_mtime_ns)

    @property
    def run(self) -> Path:
        """The newest run's folder."""
        return max(self.runs, key=lambda folder: (folder.name.partition("-")[0], (folder / "request.json").stat().st_mtime_ns))

    def document(self, run: Path, name: str = "submission") -> dict[str, Any]:
        """A JSON file of a run: submission, status, results, request."""
        document: dict[str, Any] = json.loads((run / f"{name}.json").read_text())
        return document

    # ---- What Slurm knows ------------------------------------------------------------------------------------------------------------

    def jobs(self, run: Path | str, successors: bool = False) -> list[Job]:
        """The jobs of a run, by the run's id in their names: those in squeue and those in sacct, ended ones too, by their ids."""
        mark = run.name if isinstance(run, Path) else run
        found: dict[str, Job] = {}
        for line in self.bed.slurm(
            "sacct", "-X", "-P", "-n", "-a", "-S", "now-1days", "-o", "jobidraw,jobname,state,workdir,submitline"
        ).splitlines():
            number, name, state, folder, submitted = line.split("|", 4)
            if mark in name:
                found[number] = Job(number, name, state.split()[0], folder, "--dependency" in submitted)
        for line in self.bed.slurm("squeue", "-h", "--states=all", "-o", "%i|%j|%T|%Z|%E").splitlines():
            number, name, state, folder, waits = line.split("|", 4)
            if mark in name:
                successor = waits.startswith("after") or (number in found and found[number].successor)
                found[number] = Job(number, name, state, folder, successor)
        return [found[number] for number in sorted(found, key=int) if successors or not found[number].successor]

    def per_task(self, run: Path | str, *, alive: bool = False) -> dict[str, int]:
        """How many jobs were submitted for each task of a run; with `alive` only those that hold or want nodes."""
        return dict(Counter(job.task for job in self.jobs(run) if job.lives or not alive))

    def release(self, run: Path) -> None:
        """Let held jobs of a run start."""
        for job in self.jobs(run):
            self.bed.slurm("scontrol", "release", job.id, check=False)

    def scancel(self, run: Path | str | None = None) -> None:
        """Cancel what is in the queue (of a run), and wait until it is gone."""
        listed = [job for job in self.jobs(run or "", successors=True) if job.lives]
        if listed:
            self.bed.slurm("scancel", *(job.id for job in reversed(listed)), check=False)
            until(lambda: not [job for job in self.jobs(run or "", successors=True) if job.lives], 30)

    # ---- The line --------------------------------------------------------------------------------------------------------------------

    def connections(self) -> int:
        """How many ssh connections the login node has accepted since it was brought up."""
        return len(re.findall(r"^Accepted \S+ for ", (self.bed.folder / "log/sshd.log").read_text(errors="replace"), re.MULTILINE))

    def disconnect(self, *hosts: str) -> None:
        """End the master connections to these hosts (the bed's login node), so that the next command opens its own."""
        code = (
            "import sys\nfrom helpers.cluster.connection import Cluster, close\nfor host in sys.argv[1:]:\n    close(Cluster(host, 'root'))"
        )
        argv = [ROOT / ".venv/bin/python", "-c", code, *(hosts or [self.bed.alias])]
        subprocess.run(argv, cwd=self.project, env={**self.environment, "PYTHONPATH": str(self.project)}, check=True, timeout=30)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command printed."""
    return done.stdout + done.stderr


def exit_code(done: subprocess.CompletedProcess[str]) -> int:
    """The exit code of the script that failed, which Make shows and hides: `make: *** [Makefile:122: …] Error 3`. 0 when all went well."""
    found = re.findall(r"^make: \*\*\* .*Error (\d+)$", done.stderr, re.MULTILINE)
    assert bool(found) == bool(done.returncode), said(done)
    return int(found[-1]) if found else 0


def _merge(document: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            _merge(document[key], value)
        else:
            document[key] = value
