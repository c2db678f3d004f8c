"""What tests share: a copy of the project to run Make in, with the real environment, and no trace of the person's own settings."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import PERSONAL, ROOT, Make, copy_project, make_in, stop_all
from failure_report import pytest_runtest_makereport
from which_run import (
    instants,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_xdist_make_scheduler,
)

__all__ = [  # hooks and fixtures: pytest finds them here by their names
    "instants",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "pytest_xdist_make_scheduler",
]


@contextlib.contextmanager
def _environment_as_it_was() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="module")
def _environment_after_a_module() -> Iterator[None]:
    """What the fixtures of a module set in the environment does not reach the next module."""
    with _environment_as_it_was():
        yield


@pytest.fixture(autouse=True)
def _environment_after_a_test() -> Iterator[None]:
    """What a test, or the code it calls in this process, sets in the environment does not reach the next test.

    Nor does the logging that nemo_evaluator configures for the whole process when it is first imported.
    """
    root = logging.getLogger()
    for handler in [one for one in root.handlers if not type(one).__module__.startswith("_pytest.")]:
        root.removeHandler(handler)
    with _environment_as_it_was():
        yield


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
