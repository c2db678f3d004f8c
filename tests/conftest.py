"""What tests share: a copy of the project to run Make in, with the real environment, and no trace of the person's own settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

from checkout import PERSONAL, ROOT, Make, copy_project, make_in, stop_all

CLUSTER = ROOT / "tests" / "cluster"


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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the real .venv: runs made in it are gone with the test."""
    copy = copy_project(tmp_path / "project")
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


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
    """The tests on the cluster share it, so one worker runs them all, and one, with a cluster of its own, those of images, which take
    as long as half of the others. Every other file is run whole by one worker too.

    Not xdist's groups: xdist 3.8 marks them by an attribute that pytest 9.2 does not read any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith("tests/cluster/"):
            return super()._split_scope(nodeid)
        return "images" if nodeid.startswith("tests/cluster/test_images") else "cluster"


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
