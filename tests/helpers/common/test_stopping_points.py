"""helpers/common/stopping_points.py: a process ends at the place that it was told, as by a power cut, and at no other."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from checkout import ROOT
from helpers.common import stopping_points
from helpers.steps import variables

CODE = """
import atexit
from helpers.common import stopping_points
atexit.register(print, "tidied up")
try:
    stopping_points.here("before")
    print("between", flush=True)
    stopping_points.here("after")
finally:
    print("the end")
"""


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["before", "after"])
def test_it_ends_there_with_sigkill_and_nothing_is_tidied_up(clean_env: dict[str, str], name: str) -> None:
    done = run({**clean_env, stopping_points.VARIABLE: name})
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ("" if name == "before" else "between\n")


@pytest.mark.parametrize("name", [None, "", "elsewhere", "befor"])
def test_another_name_or_none_stops_nothing(clean_env: dict[str, str], name: str | None) -> None:
    done = run({**clean_env, **({} if name is None else {stopping_points.VARIABLE: name})})
    assert done.returncode == 0
    assert done.stdout == "between\nthe end\ntidied up\n"


def test_make_takes_the_variable_for_one_that_it_knows() -> None:
    assert stopping_points.VARIABLE.removeprefix(variables.PREFIX) in variables.OTHER_ENVIRONMENT
    variables.check([], {}, {stopping_points.VARIABLE: "before-sbatch"})


def test_each_stop_of_a_submission_has_a_name_of_its_own() -> None:
    """One name at two places would be one stop that no test reaches."""
    names = [
        name
        for path in (ROOT / "helpers").rglob("*.py")
        for name in re.findall(r'stopping_points\.here\("([a-z-]+)"\)', path.read_text(encoding="utf-8"))
    ]
    assert sorted(names) == sorted(set(names))
    assert {"before-prepare", "before-upload", "before-sbatch", "after-sbatch", "before-submission"} <= set(names)
