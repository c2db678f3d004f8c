"""What compiling costs: hardly more for many tasks, and a fraction of the launcher's own dry run."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from checkout import ROOT, Make
from compiled import SLURM, compile_text

MANY, SOME = 400, 20
LIMIT_MANY, LIMIT_SOME, LIMIT_LAUNCHER, LIMIT_IMPORTS = 2.0, 1.3, 1 / 25, 4.0


def config_of(count: int) -> str:
    from helpers.config import catalogue

    names = [task.full_name for task in catalogue.load().values() if task.endpoint_types[0] in ("chat", "completions") and task.container]
    tasks = [{"name": names[index % len(names)]} for index in range(count)]
    return SLURM.partition("evaluation:")[0] + yaml.safe_dump({"evaluation": {"tasks": tasks}})


def once(command: list[str], env: dict[str, str], cwd: Path) -> float:
    """Seconds of processor time that a command and all that it starts take. Unlike those on the clock, other work hardly changes them."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_many_tasks_cost_hardly_more_than_three(tmp_path: Path, clean_env: dict[str, str]) -> None:
    """The script as people run it: a process each, the best of five."""
    seconds = {}
    for count in (3, SOME, MANY):
        (tmp_path / f"{count}.yaml").write_text(config_of(count))
        command = [sys.executable, str(ROOT / "scripts" / "compile_config.py"), "--config", f"./{count}.yaml"]
        seconds[count] = min(once(command, clean_env, tmp_path) for _ in range(5))
    print({count: round(value, 3) for count, value in seconds.items()})
    assert seconds[SOME] <= LIMIT_SOME * seconds[3]
    assert seconds[MANY] <= LIMIT_MANY * seconds[3]


def test_in_one_process_the_part_that_grows_is_small(tmp_path: Path) -> None:
    """Without start-up and imports: milliseconds per task."""
    seconds = {}
    for count in (3, MANY):
        text = config_of(count)
        compile_text(tmp_path, text)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            compile_text(tmp_path, text)
            times.append(time.perf_counter() - started)
        seconds[count] = statistics.median(times)
    print({count: round(value, 3) for count, value in seconds.items()})
    assert (seconds[MANY] - seconds[3]) / MANY <= 0.002


@pytest.fixture
def bench(make: Make, project: Path) -> str:
    """The name of a Slurm config with 20 tasks; what can be compiled or cached before is."""
    (project / "configs" / "bench.yaml").write_text(config_of(SOME))
    assert make("dry-run", "CONFIG=bench").returncode == 0
    return "bench"


def test_a_dry_run_takes_at_most_four_times_what_its_packages_take_to_import(make: Make, project: Path, clean_env: dict[str, str]) -> None:
    """`make dry-run` in a terminal, and one interpreter that imports what compiling needs: each the best of seven, in turns."""
    assert make("dry-run").returncode == 0
    rival, ours = [], []
    for _ in range(7):
        rival.append(once([sys.executable, "-c", "import hydra, omegaconf, jsonschema, yaml"], clean_env, project))
        ours.append(once(["make", "dry-run"], clean_env, project))
    print(f"\nmake dry-run {min(ours):.2f} s, the imports {min(rival):.2f} s: ratio {min(ours) / min(rival):.2f}")
    assert min(ours) <= LIMIT_IMPORTS * min(rival)


def test_a_dry_run_takes_a_twenty_fifth_of_the_launchers(bench: str, project: Path, clean_env: dict[str, str]) -> None:
    """The same Slurm config with 20 tasks: `make dry-run`, and `nemo-evaluator-launcher run --dry-run`."""
    tool = Path(sys.executable).with_name("nemo-evaluator-launcher")
    assert tool.exists()
    rival = [str(tool), "run", "--config", str(project / "configs" / f"{bench}.yaml"), "--dry-run"]
    rivals_env = {**clean_env, "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0", "USER": "me"}
    ours, theirs = [], []
    for _ in range(2):
        ours += [once(["make", "dry-run", f"CONFIG={bench}"], clean_env, project) for _ in range(3)]
        theirs.append(once(rival, rivals_env, project))
    print(f"\nours {min(ours):.2f} s, the launcher's {min(theirs):.2f} s: 1/{min(theirs) / min(ours):.1f}")
    assert min(ours) <= LIMIT_LAUNCHER * min(theirs)
