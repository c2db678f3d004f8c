"""What tests share: a copy of the project to run Make in, with the real environment, and no trace of the person's own settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "tests" / "cluster"
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


# ---- Which tests run, and where ----------------------------------------------------------------------------------------------------------


def cluster_is_missing() -> str:
    """What the test cluster lacks on this machine, in words; empty when it can be brought up."""
    if os.geteuid() != 0:
        return "they need root"
    missing = subprocess.run(["bash", ROOT / "tests/install_deps.sh", "--missing"], capture_output=True, text=True, check=False)
    return (
        f"system packages are missing: {missing.stdout.strip() or missing.stderr.strip()}"
        if missing.stdout.strip() or missing.returncode
        else ""
    )


class ClusterAndFiles(LoadFileScheduling):
    """The tests on the cluster share it, so one worker runs them all; every other file is run whole by one worker too.

    Not xdist's groups: xdist 3.8 marks them by an attribute that pytest 9.2 does not read any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith("tests/cluster/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ClusterAndFiles:
    """Which worker runs what."""
    return ClusterAndFiles(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests on the cluster come first, since they take longest.

    Where the cluster cannot be brought up they are left out, which the last lines say; in CI they fail then.
    """
    on_cluster = [item for item in items if item.path.is_relative_to(CLUSTER)]
    others = [item for item in items if not item.path.is_relative_to(CLUSTER)]
    if on_cluster and not os.environ.get("CI") and (why := cluster_is_missing()):
        config.stash[NOT_RUN] = f"{len(on_cluster)} tests on the test cluster did not run: {why}; `make test-deps test` as root runs them"
        if hasattr(config, "workeroutput"):  # a worker's way to tell the process that prints
            config.workeroutput["not_run"] = config.stash[NOT_RUN]
        config.hook.pytest_deselected(items=on_cluster)
        on_cluster = []
    items[:] = [*on_cluster, *others]


NOT_RUN = pytest.StashKey[str]()


def pytest_testnodedown(node: WorkerController) -> None:
    """What a worker left out is told by the process that prints."""
    if text := getattr(node, "workeroutput", {}).get("not_run"):
        node.config.stash[NOT_RUN] = text


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say what did not run in the last lines, below the list of failures: pytest prints that after all summaries but an outermost one."""
    yield
    if text := config.stash.get(NOT_RUN, ""):
        terminalreporter.write_line(text, yellow=True)
