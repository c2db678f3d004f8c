"""What comparing costs: 20 tasks with 200,000 samples of 1 KB in all, within 10 s and 1 GB."""

from __future__ import annotations

import json
import random
import resource
import time
from pathlib import Path

import pytest

from helpers.executors import samples
from helpers.steps import compare
from scored_runs import Runs

TASKS, SAMPLES, LIMIT_SECONDS, LIMIT_BYTES = 20, 5_000, 10.0, 2**30


@pytest.mark.parametrize("is_rate", [True, False], ids=["0 and 1", "any number"])
def test_reading_and_comparing_many_samples(tmp_path: Path, is_rate: bool, capsys: pytest.CaptureFixture[str]) -> None:
    chance, runs = random.Random(1), Runs(tmp_path)

    def values() -> list[float]:
        return [float(chance.random() < 0.7) if is_rate else chance.random() for _ in range(SAMPLES)]

    names = [runs.add({f"t{number}": values() for number in range(TASKS)}) for _ in range(2)]
    for path in tmp_path.rglob("predictions.jsonl"):
        lines = [{**json.loads(line), "prompt": "x" * 800} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = time.process_time()
    for folder in tmp_path.rglob("artifacts"):  # as the record does
        assert len(samples.read(folder)) == SAMPLES
    compare.show(" ".join(names), "", None, tmp_path)
    seconds, used = time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with capsys.disabled():
        print(f"\n{TASKS} tasks, {2 * TASKS * SAMPLES} samples: {seconds:.1f} s, {used / 2**20:.0f} MB")
    assert seconds < LIMIT_SECONDS
    assert used < LIMIT_BYTES
