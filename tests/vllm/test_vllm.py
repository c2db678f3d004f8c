"""A real vLLM on this machine's CPUs: the scores are those of lm-evaluation-harness without us, and nothing outlives a stop.

`make test-vllm` installs it (4 GB) and runs this; no other command does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from checkout import ROOT, Make
from helpers.common import processes
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import ports, server
from lm_eval_task import write_task
from local_jobs import supervisor_pid, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

VLLM = ROOT / ".venv" / "vllm"
CHOICES = 4
FLAGS = "--max-model-len 2048 --enforce-eager"
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}  # GB
START_SECONDS = 600


def items() -> list[dict[str, Any]]:
    """The starter task's 40 capitals, each with three wrong ones."""
    lines = (ROOT / "helpers/harness/core_evals/starter/data/capitals.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    made = []
    for place, row in enumerate(rows):
        choices = [rows[(place + 7 * step) % len(rows)]["answer"] for step in range(CHOICES)]
        choices = choices[-(place % CHOICES) :] + choices[: -(place % CHOICES)]
        made.append({"question": f"The capital of {row['question']} is", "choices": choices, "answer": choices.index(row["answer"])})
    return made


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


@pytest.fixture
def config(project: Path, tasks: Path) -> str:
    """A config with the task and a deployment of vllm."""
    document = {
        "defaults": [{"execution": "process"}, {"deployment": "vllm"}, "_self_"],
        "deployment": {
            "venv": str(VLLM),
            "checkpoint_path": str(VLLM / "checkpoint"),
            "served_model_name": "smollm2",
            "port": 0,
            "tensor_parallel_size": 1,
            "extra_args": FLAGS,
            "env_vars": {name: f"lit:{value}" for name, value in ENVIRONMENT.items()},
        },
        "evaluation": {"tasks": [write_task(tasks, "capitals_by_choice", items())]},
    }
    (project / "configs/real.yaml").write_text(json.dumps(document))
    return "CONFIG=real"


@pytest.fixture
def bare(tmp_path: Path, clean_env: dict[str, str]) -> Iterator[str]:
    """The URL of a vLLM that is started without us."""
    port = ports.reserve()
    command = [str(VLLM / "bin/vllm"), "serve", str(VLLM / "checkpoint"), "--port", str(port.number), "--served-model-name", "smollm2"]
    log = tmp_path / "bare.log"
    process = processes.start([*command, *FLAGS.split()], log, tmp_path, {**clean_env, **ENVIRONMENT})
    until(lambda: server.answers(f"http://127.0.0.1:{port.number}/health"), START_SECONDS)
    yield f"http://127.0.0.1:{port.number}/v1/completions"
    processes.end_group(process, "none")
    port.release()


def loglikelihoods(folder: Path) -> dict[int, list[float]]:
    """For each item the log-likelihood of each of its choices, as the harness logged them."""
    (log,) = folder.glob("**/samples_*.jsonl")
    return {row["doc_id"]: [float(one[0][0]) for one in row["resps"]] for row in map(json.loads, log.read_text().splitlines())}


def test_the_scores_are_those_of_the_harness_without_us(
    make: Make, project: Path, config: str, tasks: Path, tmp_path: Path, bare: str, clean_env: dict[str, str]
) -> None:
    url = f"base_url={bare},model=smollm2,tokenizer={VLLM}/checkpoint,tokenizer_backend=huggingface,num_concurrent=4"
    harness = [str(ROOT / ".venv/bin/lm-eval"), "--model", "local-completions", "--model_args", f"{url},tokenized_requests=False"]
    harness += ["--tasks", "capitals_by_choice", "--include_path", str(tasks), "--log_samples", "--output_path", str(tmp_path / "bare")]
    subprocess.run(harness, env={**clean_env, **ENVIRONMENT}, cwd=tmp_path, check=True, timeout=START_SECONDS)
    (theirs,) = (tmp_path / "bare").glob("**/results_*.json")
    expected = json.loads(theirs.read_text())["results"]["capitals_by_choice"]

    done = make("eval", config, timeout=START_SECONDS * 2)
    assert done.returncode == 0, done.stderr
    (run,) = project.glob("runs/*Z-*")
    rows = json.loads((run / "results.json").read_text())["rows"]
    assert {row["metric"]: row["value"] for row in rows} == {name: expected[f"{name},none"] for name in ("acc", "acc_norm")}
    assert {row["n"] for row in rows} == {len(items())}
    ours, bare_ones = loglikelihoods(run / "jobs"), loglikelihoods(tmp_path / "bare")
    assert sum(map(len, ours.values())) == CHOICES * len(items())
    for item, values in ours.items():
        assert values == pytest.approx(bare_ones[item], abs=1e-3)


def test_a_real_vllm_is_gone_after_cancel_though_its_supervisor_was_killed(make: Make, project: Path, config: str) -> None:
    assert make("batch", config).returncode == 0
    (jobs,) = project.glob("runs/*/jobs")
    until((jobs / "piqa.0/logs/stage.running").exists, START_SECONDS)
    own = psutil.Process(supervisor_pid(jobs)).children(recursive=True)
    renamed = [process for process in own if "VLLM::" in " ".join(process.cmdline())]
    assert renamed
    assert not any(process.environ().get(process_jobs.MARK) for process in renamed)
    os.kill(supervisor_pid(jobs), signal.SIGKILL)
    cancelled = make("cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    assert "nothing is left running" in cancelled.stderr
    assert not any(processes.is_alive(process) for process in own)
