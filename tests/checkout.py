"""A copy of the project to run Make in, and what a person's own settings are called. Not in conftest.py: several files have that name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a person's shell may hold that would change what a test sees.
PERSONAL = ("WANDB_", "EVALMAKE_", "NEMO_EVALUATOR_", "NEMOTRON_", "OPENAI_", "NO_COLOR", "MAKE", "MFLAGS", "CI")


def copy_project(copy: Path) -> Path:
    """A copy of the project's files (as git knows them), without .venv, at this path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


Make = Callable[..., "subprocess.CompletedProcess[str]"]


def make_in(project: Path, environment: dict[str, str]) -> Make:
    """Run Make in this copy of the project: `make("eval", "QUICK=1", env={...})` gives the completed process, both streams as text."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, timeout: float = 240, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, "make", *arguments],
            cwd=project,
            env={**environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run


def stop_all(project: Path) -> None:
    """Stop whatever a test left running in this copy, by its own record, never by name."""
    from helpers.executors.process import jobs

    for plan in project.glob("runs/*/jobs/plan.json"):
        jobs.cancel(plan.parent)
