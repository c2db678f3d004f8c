"""The public lm-evaluation-harness, real, on a task of local files, through `make eval`: a deployment of vllm whose model is a double.

`make test` installs the harness (`make .venv/installed/lm-eval`: 120 packages, 830 MB, 80 s). Where it is missing, this file is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from checkout import Make
from lm_eval_task import write_task
from local_jobs import left, states
from logprob_server import loglikelihood, write_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None and not os.environ.get("CI"),
        reason="lm-evaluation-harness is not installed: make .venv/installed/lm-eval",
    ),
]

CHOICES = ["a cat", "a blue whale", "an ant", "the horse"]
ITEMS = [{"question": f"Which animal is number {n}?", "choices": CHOICES, "answer": n % 4} for n in range(24)]


def expected() -> dict[str, float]:
    """The scores by hand: the share of items whose right choice is the likeliest, also by character."""
    right = {"acc": 0, "acc_norm": 0}
    for item in ITEMS:
        chances = [loglikelihood(str(item["question"]), f" {choice}") for choice in CHOICES]
        by_character = [chance / len(choice) for chance, choice in zip(chances, CHOICES, strict=True)]
        right["acc"] += max(range(4), key=chances.__getitem__) == item["answer"]
        right["acc_norm"] += max(range(4), key=by_character.__getitem__) == item["answer"]
    return {name: number / len(ITEMS) for name, number in right.items()}


@pytest.fixture
def config(project: Path, tmp_path: Path) -> str:
    """A config with the task, the checkpoint and a virtual environment whose vllm is the double."""
    own = tmp_path / "own files"
    write_checkpoint(own / "checkpoint")
    tool = own / "venv/bin/vllm"
    tool.parent.mkdir(parents=True)
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent}/doubles/logprob_server.py" "$@"\n')
    tool.chmod(0o755)
    deployment = {"checkpoint_path": str(own / "checkpoint"), "served_model_name": "toy", "port": 0, "tensor_parallel_size": 1}
    document = {
        "defaults": [{"execution": "process"}, {"deployment": "vllm"}, "_self_"],
        "deployment": {**deployment, "venv": str(own / "venv")},
        "evaluation": {"tasks": [write_task(tmp_path / "tasks", "animals", ITEMS)]},
    }
    (project / "configs/animals.yaml").write_text(json.dumps(document))
    return "CONFIG=animals"


def results_of(project: Path) -> dict[str, Any]:
    (path,) = project.glob("runs/*/results.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_log_likelihoods_of_a_vllm_on_this_machine_give_the_scores_that_follow_from_them(make: Make, project: Path, config: str) -> None:
    done = make("eval", config, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    rows = {row["metric"]: row for row in results_of(project)["rows"]}
    assert {name: row["value"] for name, row in rows.items()} == pytest.approx(expected())
    assert {row["n"] for row in rows.values()} == {len(ITEMS)}
    (run,) = project.glob("runs/*Z-*")
    assert states(run / "jobs") == ["SUCCEEDED"]
    assert left(run / "jobs") == []
    (row,) = json.loads((run / "status.json").read_text())["jobs"]
    assert row["requests_done"] == row["requests_total"] == len(ITEMS) * len(CHOICES)
    assert "deployment.image has no effect: execution.type process starts no container" in done.stderr


def test_without_a_vllm_nothing_starts(make: Make, project: Path, config: str) -> None:
    done = make("eval", config, "SET=deployment.venv=/nowhere")
    assert "error: deployment.venv: /nowhere is no virtual environment" in done.stderr
    assert done.returncode == 2
    assert not list(project.glob("runs/*/submission.json"))
    assert not list(project.glob("runs/*/jobs"))
