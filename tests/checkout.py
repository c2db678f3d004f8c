"""A copy of the project to run Make in, and what a person's own settings are called. Not in conftest.py: several files have that name."""

from __future__ import annotations

import compileall
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a person's shell may hold that would change what a test sees.
PERSONAL = ("WANDB_", "EVALMAKE_", "NEMO_EVALUATOR_", "NEMOTRON_", "OPENAI_", "NO_COLOR", "MAKE", "MFLAGS", "CI")


def copy_project(copy: Path) -> Path:
    """A copy of the project's files (as git knows them), without .venv, at this path. The bytecode of helpers/ comes with it: to compile
    its modules takes 15 ms in each of the interpreters of a chain.
    """
    for name in _files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


@cache
def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    names = [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]
    compileall.compile_dir(ROOT / "helpers", quiet=2)
    compiled = [cache_from_source(name) for name in names if name.startswith("helpers/") and name.endswith(".py")]
    return [*names, *(name for name in compiled if (ROOT / name).is_file())]


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
        jobs.stop(plan.parent, jobs.CANCELLED_CODE)
