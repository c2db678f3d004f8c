"""Which tests run where: those on the test cluster need its packages and root, and when they are left out that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """An environment in which no package seems to be installed."""
    asked = tmp_path / "dpkg-query"
    asked.write_text("#!/bin/sh\nexit 1\n")
    asked.chmod(0o755)
    return {**{name: value for name, value in os.environ.items() if name != "CI"}, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def run(env: dict[str, str], *options: str) -> str:
    words = ["tests/helpers/common/test_walltime.py", "tests/cluster/test_submit.py", "-p", "no:cacheprovider", *options]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--numprocesses=2", "--dist=loadfile")], ids=["alone", "workers"])
def test_what_did_not_run_is_said_in_the_last_lines_with_the_mend(without_packages: dict[str, str], options: tuple[str, ...]) -> None:
    *_, told, closing = run(without_packages, *options).splitlines()
    assert "tests on the test cluster did not run: " in told
    assert told.endswith("; `make test-deps test` as root runs them")
    assert " passed" in closing
    assert "failed" not in closing


def test_in_ci_they_fail_instead(without_packages: dict[str, str]) -> None:
    said = run({**without_packages, "CI": "true"}, "-x")
    assert "system packages are missing" in said
    assert "1 error" in said
