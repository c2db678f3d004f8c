"""The record of a run: out of the files of its folder, and of what nemo-evaluator and lm-eval leave."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.common import files
from helpers.executors import record

DIGEST = "sha256:" + "a" * 64
RESULT = {
    "config": {"params": {"task": "t", "temperature": 0.0, "limit_samples": 10, "extra": {"num_fewshot": 5, "tokenizer": "org/model"}}},
    "target": {
        "api_endpoint": {
            "type": "chat",
            "adapter_config": {
                "interceptors": [
                    {"name": "caching", "enabled": True, "config": {"cache_dir": "artifacts/cache"}},
                    {"name": "reasoning", "enabled": True, "config": {"end_reasoning_token": "</think>"}},
                    {"name": "system_message", "enabled": False, "config": {}},
                ]
            },
        }
    },
    "metadata": {"versioning": {"nemo_evaluator": "0.2.8"}},
}


def run_with_images(tmp_path: Path) -> Path:
    run = tmp_path / "20261122T013512Z-mine-7f3a"
    run.mkdir()
    row = {"reference": "nvcr.io/eval:25.10", "users": ["task mmlu"], "digest": DIGEST, "platform": None, "path": None, "state": "left"}
    images = [{**row, "why": "", "seconds": 0, "job": None}]
    files.write_json(run / "images.json", {"made_by": "t", "made_from": {}, "cluster": None, "folder": None, "images": images}, "images")
    return run


def test_a_task_has_its_image_its_parameters_and_what_the_proxy_changes(tmp_path: Path) -> None:
    about = record.of_run(run_with_images(tmp_path))
    found = record.of_task("mmlu", tmp_path / "none", about, RESULT)
    assert found == {
        "task_versions": {},
        "evaluator": "0.2.8",
        "image": "nvcr.io/eval:25.10",
        "digest": DIGEST,
        "endpoint_type": "chat",
        "few_shot": 5,
        "prompt": {},
        "tokenizer": "org/model",
        "params": {"temperature": 0.0, "limit_samples": 10},
        "adapter": {"reasoning": {"end_reasoning_token": "</think>"}},
    }
    assert record.of_task("gsm8k", tmp_path / "none", about, RESULT)["digest"] is None


def test_lm_evals_own_file_gives_the_versions_of_the_tasks_and_the_examples(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "org__model"
    folder.mkdir(parents=True)
    for time, version in (("2026-11-27T10-00-00", 1), ("2026-11-27T11-00-00", 2)):
        said = {"versions": {"arc": version}, "n-shot": {"arc": 25}, "chat_template_sha": "abc", "system_instruction_sha": None}
        (folder / f"results_{time}.json").write_text(json.dumps(said))
    found = record.of_task("arc", tmp_path / "artifacts", record.of_run(tmp_path), {})
    assert (found["task_versions"], found["few_shot"], found["prompt"]) == ({"arc": 2}, {"arc": 25}, {"chat_template_sha": "abc"})


def test_a_tokenizer_in_the_models_folder_is_the_models_own(tmp_path: Path) -> None:
    """Otherwise two checkpoints could never be compared."""
    about = record.of_run(tmp_path)
    about["model"]["path"] = "/lustre/v2"
    for path, expected in (("/lustre/v2", record.OWN), ("/lustre/v2/tokenizer", record.OWN), ("/lustre/v20", "/lustre/v20"), (None, None)):
        result = {"config": {"params": {"extra": {"tokenizer": path, "ruler": {"tokenizer_path": path}}}}}
        found = record.of_task("t", tmp_path, about, result)
        assert (found["tokenizer"], found["params"]["ruler"]["tokenizer_path"]) == (expected, expected)


def test_of_a_foreign_result_nothing_is_known(tmp_path: Path) -> None:
    found = record.of_task("t", tmp_path, record.of_run(tmp_path), {"config": [1], "target": None, "metadata": "x"})
    assert not any(found.values())
