"""The test cluster as tests see it: bring it up, log in, run jobs, look at them. `up.sh` and `down.sh` do the work."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
T = TypeVar("T")


class DownError(RuntimeError):
    """The cluster does not come up; the message is the one line that says why, and the fix."""


@dataclass
class Bed:
    """A test cluster by its folder; `settings` are knobs of bed.sh (WITH_ACCT="0")."""

    folder: Path = field(default_factory=lambda: Path(os.environ.get("BED") or HERE.parent.parent / ".cluster"))
    settings: Mapping[str, str] = field(default_factory=dict)

    def _script(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [HERE / name, *arguments],
            env={**os.environ, **self.settings, "BED": str(self.folder), "BED_QUIET": "1", "BED_BY_TESTS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise DownError((done.stderr.strip() or f"{name} failed and says nothing").splitlines()[-1])

    def up(self) -> Bed:
        """Start what does not run; what runs is left alone. Raises DownError."""
        self._script("up.sh")
        return self

    def down(self, *, purge: bool = False) -> None:
        """Stop all of it; with `purge` its folder is removed too."""
        self._script("down.sh", *(["--purge"] if purge else []))

    @property
    def alias(self) -> str:
        """The name by which ssh knows the login node."""
        return self.settings.get("HOST_ALIAS") or os.environ.get("HOST_ALIAS") or "evalmake-cluster"

    @property
    def name(self) -> Path:
        """The bed's folder as its machines call it: short, and without spaces."""
        link = (self.folder / "etc/slurm.conf").read_text().partition("StateSaveLocation=")[2].partition("/state\n")[0]
        return Path(link)

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a client: env.sh's."""
        listed = subprocess.run(
            ["bash", "-c", '. "$0/env.sh" && exec env -0', self.folder], env=os.environ, capture_output=True, check=True, timeout=20
        ).stdout
        pairs = (entry.partition("=") for entry in listed.decode().split("\0") if entry)
        return {**{name: value for name, _, value in pairs}, **more}

    def pid(self, daemon: str) -> int:
        """The process id of sshd, slurmctld, slurmdbd, mariadbd, munged, registry, or of a node (n1)."""
        return int((self.folder / f"run/{daemon}.pid").read_text())

    def login(self, command: str, *, timeout: float = 60, check: bool = True) -> str:
        """What a command prints on the login node, over ssh."""
        return _said(["ssh", "-o", "BatchMode=yes", self.alias, command], self.env(), timeout, check)

    def slurm(self, *command: str, timeout: float = 20, check: bool = True) -> str:
        """What a Slurm client prints here, without ssh (5 ms instead of 150): for looking at the cluster beside what is tested."""
        return _said(list(command), {**os.environ, "SLURM_CONF": str(self.name / "etc/slurm.conf")}, timeout, check)

    def sbatch(self, script: str, *options: str) -> str:
        """Queue a job of these lines, by the login node's user; its id. Its output goes to jobs/slurm-ID.out."""
        return self.slurm(
            "sbatch", "--parsable", f"--chdir={self.name}/jobs", "--account=research", *options, f"--wrap={script}"
        ).strip()  # fmt: skip

    def state(self, job: str) -> str:
        """The state of a job in the controller's own words: RUNNING; with its reason when it is pending: PENDING Resources."""
        shown = self.slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T %r", check=False).strip()
        return shown if shown.startswith("PENDING") else shown.partition(" ")[0]

    def until_state(self, job: str, *wanted: str, seconds: float = 30) -> str:
        """Wait until the job's state is one of these."""
        return until(lambda: now if (now := self.state(job)) in wanted else "", seconds, lambda: f"job {job} is {self.state(job)}")

    def cancel_all(self) -> None:
        """Empty the queue. Half a minute at worst: processes that a job's step has lost sight of hold its output open."""
        if jobs := self.slurm("squeue", "-h", "-o", "%i").split():
            self.slurm("scancel", "--signal=KILL", "--full", *jobs, check=False)
            self.slurm("scancel", *jobs, check=False)
            until(lambda: not self.slurm("squeue", "-h"), 60)


def until(condition: Callable[[], T], seconds: float = 30, otherwise: Callable[[], str] = str) -> T:
    """The first true value of `condition`; fails after `seconds`, with what `otherwise` says."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s: {otherwise()}"
        time.sleep(0.1)
    return value


def _said(command: list[str], env: dict[str, str], timeout: float, check: bool) -> str:
    """What a command prints on stdout; without `check` its errors too, whatever its exit code."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
    if check and done.returncode:
        raise AssertionError(f"{command}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout if check else done.stdout + done.stderr
