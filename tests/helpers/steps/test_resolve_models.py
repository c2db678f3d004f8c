"""helpers/steps/resolve_models.py: one look at the checkpoint, and what it rules out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.steps import resolve_models


def config(path: Path, **deployment: Any) -> dict[str, Any]:
    extra = {"tokenizer": str(path), "tokenizer_backend": "huggingface"}
    task = {"name": "hellaswag", "nemo_evaluator_config": {"config": {"params": {"extra": extra}}}}
    return {
        "execution": {"type": "docker"},
        "deployment": {"type": "vllm", "checkpoint_path": str(path), **deployment},
        "evaluation": {"tasks": [task]},
    }


def test_the_tokenizer_and_the_numbers_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").touch()
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 9, "hidden_size": 576}))
    found = resolve_models.checkpoint(config(tmp_path, tensor_parallel_size=3), {})
    assert found == {"path": str(tmp_path), "tokenizer": f"{tmp_path}/tokenizer", "numbers": {"num_attention_heads": 9}}


def test_a_checkpoint_without_the_tokenizer_that_tasks_need_is_refused_with_the_set(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no tokenizer, which tasks need: .*; give SET=\"evaluation\..*=NAME\""):
        resolve_models.checkpoint(config(tmp_path), {})


def test_a_deployment_that_the_model_rules_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 9}))
    with pytest.raises(BadInput, match=rf"deployment\.checkpoint_path: {tmp_path}: .*9 attention heads"):
        resolve_models.checkpoint(config(tmp_path, tensor_parallel_size=8), {})


def test_nothing_is_looked_at_that_nothing_depends_on(tmp_path: Path) -> None:
    given = config(tmp_path / "nowhere", type="generic")
    given["evaluation"]["tasks"] = [{"name": "adlr_mmlu"}]
    assert resolve_models.checkpoint(given, {}) is None
