"""A task of lm-evaluation-harness in local files, which needs no network: questions with choices, scored by log-likelihoods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: " "
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""


def write_task(folder: Path, name: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write a task with these items (`question`, `choices`, and the place of the right one, `answer`).

    Returns an entry of `evaluation.tasks` that runs it: by the name of one of the catalogue that scores log-likelihoods.
    """
    folder.mkdir(parents=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data))
    params = {"task": name, "extra": {"args": f"--include_path {folder}"}}
    return {"name": "piqa", "nemo_evaluator_config": {"config": {"params": params}}}
