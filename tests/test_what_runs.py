"""Which tests run where, what is said of those that did not, and what a failure shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """An environment in which no package seems to be installed."""
    asked = tmp_path / "dpkg-query"
    asked.write_text("#!/bin/sh\nexit 1\n")
    asked.chmod(0o755)
    return {**{name: value for name, value in os.environ.items() if name != "CI"}, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def run(env: dict[str, str], *options: str, paths: tuple[str, ...] = ("tests/cluster/test_submit.py",)) -> str:
    words = ["tests/helpers/common/test_walltime.py", *paths, "-p", "no:cacheprovider", *options]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--numprocesses=2", "--dist=loadfile")], ids=["alone", "workers"])
def test_the_last_lines_say_what_did_not_run_and_how_to_run_it(without_packages: dict[str, str], options: tuple[str, ...]) -> None:
    *_, told, closing = run(without_packages, *options).splitlines()
    assert "did not run" in told
    assert "make test-deps test" in told
    assert " passed" in closing
    assert "failed" not in closing


def test_in_ci_they_fail_instead(without_packages: dict[str, str]) -> None:
    said = run({**without_packages, "CI": "true"}, "-x")
    assert "system packages are missing" in said
    assert "1 error" in said


def test_a_check_wants_neither_the_cluster_nor_its_packages(without_packages: dict[str, str]) -> None:
    said = run({**without_packages, "CI": "true"}, "-m", "not slow", "-v")
    assert "test_walltime.py" in said
    assert "tests/cluster" not in said
    assert "did not run" not in said


# ---- A small project of tests that has the hooks of ours -------------------------------------------------------------------------------

CONFTEST = """
from failure_report import pytest_runtest_makereport
from which_run import instants, pytest_addoption, pytest_configure, pytest_configure_node, pytest_terminal_summary
import which_run
which_run.LIMIT = 0.2
def pytest_collection_modifyitems(config, items):
    dropped = which_run._instants_left_out(config, items)
    items[:] = [item for item in items if item not in dropped]
"""


def small(folder: Path, text: str, *options: str, **more: str) -> str:
    """What pytest prints of a test file with this text."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_small.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    instants\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]), **more}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False).stdout


SHOWS = """
import pytest
class Desk:
    def __init__(self, project): self.project = project
@pytest.fixture
def project(tmp_path):
    run = tmp_path / "runs/20261122T013512Z-local-7f3a"
    (run / "jobs/capitals.0/logs").mkdir(parents=True)
    (run / "logs").mkdir()
    (run / "events.jsonl").write_text("the last event\\n")
    (run / "jobs/server.log").write_text("".join(f"served {n}\\n" for n in range(500)))
    for name in "abcdefghij":
        (run / f"jobs/capitals.0/logs/{name}.log").write_text(f"{name} said\\n" * 100)
    return tmp_path
@pytest.fixture
def desk(project):
    return Desk(project)
def test_fails(desk):
    assert False
def test_fails_alone():
    assert False
def test_holds(project):
    pass
"""


def test_a_failure_shows_the_ends_of_its_runs_files(tmp_path: Path) -> None:
    said = small(tmp_path, SHOWS)
    assert said.count("end of runs/20261122T013512Z-local-7f3a/events.jsonl") == 1
    assert "the last event" in said
    assert "served 499" in said
    assert re.findall(r"served (\d+)$", said, re.MULTILINE) == [str(number) for number in range(460, 500)]
    shown = [line for line in said.splitlines() if line.startswith("served ") or re.fullmatch("(the last event|. said)", line)]
    assert len(shown) == 200


INSTANTS = """
import pytest
@pytest.mark.instants
@pytest.mark.parametrize("place", list("abcdefgh"))
def test_killed(place):
    print("PARAMETER", place)
def test_in_a_loop(instants):
    print("LOOP", instants("some kind", range(22)), instants("of two", "ab"))
"""


def test_kills_are_at_three_instants_of_a_seed_or_at_all(tmp_path: Path) -> None:
    first = small(tmp_path, INSTANTS, "-s")
    (seed,) = re.findall(r"--instants-seed=(\d+)", first)
    assert len(re.findall(r"PARAMETER \w", first)) == 3
    again = small(tmp_path, INSTANTS, "-s", f"--instants-seed={seed}")
    for pattern in (r"PARAMETER \w", r"LOOP \[\d+, \d+, \d+\] \['a', 'b'\]"):
        assert re.findall(pattern, again) == re.findall(pattern, first)
        assert re.findall(pattern, first)
    assert "3 passed" in small(tmp_path, INSTANTS.partition("def test_in")[0], "--numprocesses=2")  # all workers take the same
    every = small(tmp_path, INSTANTS, "-s", "--instants=all")
    assert re.findall(r"PARAMETER (\w)", every) == list("abcdefgh")
    assert str(list(range(22))) in every
    assert "--instants-seed" not in every


LONG = """
import pytest, time
def test_long():
    time.sleep(0.3)
@pytest.mark.slow
def test_marked():
    time.sleep(0.3)
def test_short():
    pass
"""


def test_a_long_test_without_its_mark_is_named(tmp_path: Path) -> None:
    (named,) = [line for line in small(tmp_path, LONG).splitlines() if "not marked" in line]
    assert "test_long" in named
    assert "test_marked" not in named
    assert "test_short" not in named


SIGNALS = """
import signal, subprocess, sys
def test_a_program_that_is_tested_can_be_interrupted():
    told = "import signal; print([signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGHUP)])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "[False, False]\\n"
"""


def test_what_tests_start_can_be_interrupted_though_the_tests_run_in_the_background(tmp_path: Path) -> None:
    (tmp_path / "ignore.py").write_text(
        "import os, signal, sys\n"
        "for number in (signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    small(tmp_path, SIGNALS)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    words = [sys.executable, str(tmp_path / "ignore.py"), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_small.py"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
