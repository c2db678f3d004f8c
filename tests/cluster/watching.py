"""For tests that watch runs: tasks that misbehave (odd/), several jobs on one node, and the output of a `make` that is still at work."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from checkout import ROOT
from cluster.pipeline import Pipeline
from cluster.testbed import HERE, Bed, until

MODEL = "python3 /opt/toy/toy_model.py --port ${deployment.port}"


def odd_config(pipeline: Pipeline, name: str, tasks: Sequence[str], samples: int = 20, seconds: float = 0.02, **values: Any) -> str:
    """A config with tasks of odd/, which is mounted into the evaluation's container; `samples` lines, `seconds` after each."""
    folder = pipeline.bed.name / "jobs/odd"
    shutil.copytree(HERE / "odd", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pipeline.write_config(name, tasks, execution={"mounts": {"evaluation": {str(folder): "/opt/toy/core_evals/odd"}}})
    path = pipeline.project / "configs" / f"{name}.yaml"
    document = json.loads(path.read_text())
    document["evaluation"]["nemo_evaluator_config"] = {"config": {"params": {"limit_samples": samples, "extra": {"seconds": seconds}}}}
    for group, keys in values.items():
        document[group] |= keys
    path.write_text(json.dumps(document))
    return name


def sharing(port: int, node: str | None = None, **more: Any) -> dict[str, Any]:
    """Values of `execution` and `deployment` with which jobs of several runs share a node: one GPU, a port of their own."""
    flags = {"exclusive": False, **({"nodelist": node} if node else {})}
    return {"execution": {"gres": "gpu:1", "sbatch_extra_flags": flags, **more}, "deployment": {"port": port}}


@dataclass
class Shown:
    """A command at work, and what it has printed so far, both streams."""

    process: subprocess.Popen[bytes]
    path: Path

    @property
    def text(self) -> str:
        """What was printed by now."""
        return self.path.read_text(errors="replace")

    def until(self, words: str, seconds: float = 60) -> str:
        """Wait until it has printed these words (a pattern)."""
        until(lambda: re.search(words, self.text) or self.process.poll() is not None, seconds, lambda: self.text[-1500:])
        assert re.search(words, self.text), f"it ended with {self.process.poll()} and without {words!r}:\n{self.text[-1500:]}"
        return self.text

    def ended(self, seconds: float = 60) -> int:
        """Wait until it has ended; its exit code."""
        until(lambda: self.process.poll() is not None, seconds, lambda: self.text[-1500:])
        return int(self.process.returncode)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to all of its process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def child(self, script: str) -> int:
        """The process id of a script of ours that it has started."""

        def find() -> int:
            below = psutil.Process(self.process.pid).children(recursive=True)
            return next((one.pid for one in below if any(word.endswith(script) for word in _words(one.pid))), 0)

        return until(find, 30, lambda: f"no {script} among its children:\n{self.text[-1500:]}")


@contextlib.contextmanager
def at_work(pipeline: Pipeline, target: str, *words: str, env: dict[str, str] | None = None) -> Iterator[Shown]:
    """`make TARGET …` in a session of its own; what is still at work at the end is killed."""
    descriptor, name = tempfile.mkstemp(prefix=f"{target}-", dir=pipeline.project.parent)
    with os.fdopen(descriptor, "wb") as out:
        process = subprocess.Popen(
            pipeline.words(target, *words),
            cwd=pipeline.project,
            env={**pipeline.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Shown(process, Path(name))
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def statuses(pipeline: Pipeline, *runs: Path) -> dict[str, dict[str, Any]]:
    """The rows of `scripts/status.py --json`, by task; of several runs, by `RUN/task` in numbers."""
    words = [f"--submission=runs/{run.name}/submission.json" for run in runs]
    done = subprocess.run(
        [ROOT / ".venv/bin/python", "scripts/status.py", "--json", *words],
        cwd=pipeline.project, env=pipeline.environment, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout + done.stderr
    rows = {}
    for number, line in enumerate(done.stdout.splitlines()):
        for job in json.loads(line)["jobs"]:
            rows[job["task"] if len(runs) == 1 else f"{number}/{job['task']}"] = job
    return rows


def until_row(pipeline: Pipeline, run: Path, task: str, states: Sequence[str], seconds: float = 90) -> dict[str, Any]:
    """Wait until `status` shows a task in one of these states; its row."""
    last: dict[str, Any] = {}

    def look() -> bool:
        last.update(statuses(pipeline, run)[task])
        return last["state"] in states

    until(look, seconds, lambda: f"{task} is {last}")
    return last


def alive(bed: Bed, run: Path) -> list[str]:
    """The jobs of a run that squeue shows: id, state, reason."""
    return [line for line in bed.slurm("squeue", "-h", "-o", "%i %T %r %j").splitlines() if run.name in line]


def numbered(text: str, task: str = "odd.numbers") -> list[int]:
    """The numbers of the lines of `odd.numbers` that were shown, in their order."""
    return [int(number) for number in re.findall(rf"^{re.escape(task)} \| line (\d+) of \d+\.$", text, re.MULTILINE)]


def _words(pid: int) -> list[str]:
    """The words of a process's command line: the shell of a recipe has all of the recipe as one."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
