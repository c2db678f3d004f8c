"""What the chain costs beyond the model: `make bench`. Each figure stands beside a rival measured in the same run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from checkout import ROOT, Make
from helpers.executors.process import ports

CHAIN_LIMIT, LOOK_LIMIT = 1.10, 1.0  # a ratio, and seconds
RUNS = 10_000
BY_HAND = """
set -e
python -m helpers.executors.process.local_model --checkpoint "$CHECKPOINT" --served-model-name m --port "$PORT" > server.log 2>&1 &
server=$!
trap 'kill $server' EXIT
until curl -fs --noproxy '*' "http://127.0.0.1:$PORT/health" > /dev/null; do sleep 0.1; done
for task in capitals continents languages opposites; do
  ADAPTER_PORT=$((PORT + 1)) PORT=$((PORT + 1))
  export ADAPTER_PORT
  python -m nemo_evaluator.core.entrypoint run_eval --run_config "$task.yml" > "$task.log" 2>&1
done
"""


@pytest.mark.timeout(900)
def test_the_whole_chain_costs_at_most_a_tenth_more_than_the_same_by_hand(
    make: Make, project: Path, clean_env: dict[str, str], tmp_path: Path
) -> None:
    """The rival is the least that anybody must do: the same server and the same four harness runs, from a shell loop.

    Each is the best of three, in turns, since other work on the machine slows down both.
    """
    weights = next((ROOT / ".venv" / "weights").rglob("*.gguf"))
    env = {
        **clean_env,
        "CHECKPOINT": str(weights),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), clean_env["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "helpers" / "harness")]),
        "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
    }
    ours, theirs = [], []
    for number in range(3):
        before = set((project / "runs").glob("*"))
        started = time.monotonic()
        assert make("eval").returncode == 0
        ours.append(time.monotonic() - started)
        (run,) = set((project / "runs").glob("*")) - before
        hand = tmp_path / f"by-hand-{number}"
        port = configure_by_hand(run, hand)
        started = time.monotonic()
        subprocess.run(["bash", "-c", BY_HAND], cwd=hand, env={**env, "PORT": str(port)}, check=True)
        theirs.append(time.monotonic() - started)
    ratio = min(ours) / min(theirs)
    print(f"\nwhole chain {min(ours):.1f} s, the same by hand {min(theirs):.1f} s: ratio {ratio:.2f}, of {ours} and {theirs}")
    assert ratio <= CHAIN_LIMIT


def configure_by_hand(run: Path, hand: Path) -> int:
    """Make the folder `hand` with the harness's config of each task of a run, for a server on a port of its own, which is returned."""
    hand.mkdir()
    port = ports.reserve().number
    for folder in sorted(run.glob("jobs/*.[0-9]")):
        config = yaml.safe_load((folder / "run_config.yml").read_text())
        name = folder.name.partition(".")[0]
        config["target"]["api_endpoint"]["url"] = f"http://127.0.0.1:{port}/v1/chat/completions"
        config["target"]["api_endpoint"]["model_id"] = "m"
        config["config"]["output_dir"] = str(hand / name)
        (hand / f"{name}.yml").write_text(yaml.safe_dump(config))
    return port


@pytest.fixture
def many_runs(project: Path, clean_env: dict[str, str]) -> Path:
    """10,000 run folders, and as many jobs in the launcher's job database."""
    request = json.dumps({"mode": "eval", "config": "local", "tasks": ["capitals"]})
    database = Path(clean_env["HOME"]) / ".nemo-evaluator" / "exec-db" / "exec.v1.jsonl"
    database.parent.mkdir(parents=True)
    with database.open("w") as jobs:
        for number in range(RUNS):
            folder = project / "runs" / f"20260101T{number // 3600 % 24:02}{number // 60 % 60:02}{number % 60:02}Z-local-{number:04x}"
            folder.mkdir(parents=True)
            (folder / "request.json").write_text(request)
            invocation = f"{number:016x}"
            data = {"output_dir": str(folder / "jobs" / "capitals.0"), "container": "", "eval_image": ""}
            record = {
                "invocation_id": invocation,
                "job_id": f"{invocation}.0",
                "timestamp": 1.0,
                "executor": "local",
                "data": data,
                "config": {},
            }
            jobs.write(json.dumps(record) + "\n")
    return project


def timed(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    """The best of three runs, in seconds."""
    best = float("inf")
    for _ in range(3):
        started = time.monotonic()
        subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        best = min(best, time.monotonic() - started)
    return best


@pytest.mark.parametrize(("target", "rival"), [("help", ["--help"]), ("runs", ["ls", "runs"])])
def test_looking_takes_less_than_a_second_with_ten_thousand_runs(
    target: str, rival: list[str], many_runs: Path, clean_env: dict[str, str]
) -> None:
    """The rival is the launcher's own command for the same question."""
    launcher = shutil.which("nemo-evaluator-launcher", path=str(Path(sys.executable).parent))
    assert launcher
    ours = timed(["make", target], many_runs, clean_env)
    theirs = timed([launcher, *rival], many_runs, clean_env)
    print(f"\nmake {target} {ours:.2f} s, nemo-evaluator-launcher {' '.join(rival)} {theirs:.2f} s: ratio {ours / theirs:.2f}")
    assert ours < LOOK_LIMIT
