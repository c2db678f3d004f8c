"""Runs that have ended, for the tests that compare them: results.json, made from artifacts by the code that always makes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers.common import files, yaml_files
from helpers.executors import job_folder, record, scores
from helpers.steps import status

RUN = "20261122T01351{}Z-mine-7f3a"


class Runs:
    """A folder of runs. Each run is given as the scores of the samples of its tasks, in the order of their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        tasks: dict[str, Sequence[float]],
        *,
        keeps: bool = True,
        params: dict[str, Any] | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
        **said: Any,
    ) -> str:
        """Add a run and return its id. `keeps`: whether the harness left its samples; `said`: what differs in results.yml and samples.json.

        `change` gets the content of results.json before it is sealed.
        """
        run = self.folder / RUN.format(len(list(self.folder.glob("*"))))
        jobs = []
        for index, (task, right) in enumerate(tasks.items()):
            job = run / "jobs" / f"{task}.{index}"
            (job / "logs").mkdir(parents=True)
            (job / "artifacts").mkdir()
            job_folder.stage(job, "running")
            job_folder.stage(job, "exit", 0)
            lines = [
                {
                    "prompt": f"question {number}", "response": f"answer {number} {value}", "target": "t", "status": "scored",
                    "scores": {"correct": value}, "metadata": {"id": f"{task}-{number}"},
                }
                for number, value in enumerate(right)
            ]  # fmt: skip
            if keeps:
                (job / "artifacts/predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            if "answers" in said:
                (job / "artifacts/samples.json").write_text(json.dumps({"answers": said["answers"]}))
            mean = sum(right) / len(right)
            spread = (sum((value - mean) ** 2 for value in right) / len(right)) ** 0.5
            stats = {"count": len(right), "stderr": spread / len(right) ** 0.5}
            result = {
                "config": {"params": {"max_new_tokens": 16, **(params or {})}},
                "target": {"api_endpoint": {"type": said.get("endpoint", "chat"), "model_id": said.get("model", "m")}},
                "results": {"tasks": {task: {"metrics": {"accuracy": {"scores": {"accuracy": {"value": mean, "stats": stats}}}}}}},
            }
            (job / "artifacts/results.yml").write_text(yaml_files.dump(result))
            jobs.append({"task": task, "index": index, "harness": "h", "job_id": f"i.{index}", "job_dir": str(job)})
        submission = {"executor": "process", "invocation_id": "i", "seal": "sha256:" + "0" * 64, "jobs": jobs}
        found = scores.collect(submission, status.ask(submission), record.of_run(run))
        if change:
            change(found)
        files.write_json(run / "results.json", found, "results")
        return run.name


def rates(right: int, count: int) -> list[float]:
    """The scores of `count` samples of which the first `right` are right."""
    return [1.0] * right + [0.0] * (count - right)
