"""What tests share: a copy of the project to run Make in, with the real environment, and no trace of the person's own settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What a person's shell may hold that would change what a test sees.
PERSONAL = ("WANDB_", "EVALMAKE_", "NEMO_EVALUATOR_", "NEMOTRON_", "OPENAI_", "NO_COLOR", "MAKE", "MFLAGS", "CI")


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """What a test, or the code it calls in this process, sets in the environment does not reach the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def clean_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without personal settings, with a home and a job database of its own; also set for this process."""
    for name in list(os.environ):
        if name.startswith(PERSONAL):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return dict(os.environ)


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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the real .venv: runs made in it are gone with the test."""
    copy = copy_project(tmp_path / "project")
    (copy / ".venv").symlink_to(ROOT / ".venv")
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
    from helpers import process_jobs

    for plan in project.glob("runs/*/jobs/plan.json"):
        process_jobs.cancel(plan.parent)


@pytest.fixture
def make(project: Path, clean_env: dict[str, str]) -> Iterator[Make]:
    """Run Make in the project's copy."""
    yield make_in(project, clean_env)
    stop_all(project)
