"""helpers/config/fit.py: a deployment that does not fit its GPUs or its model is found before anything is queued."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from compiled import HOSTED, SLURM, compile_text
from helpers.common.errors import BadInput
from helpers.config import fit


def sizes(text: str = "", **execution: Any) -> str:
    """A config whose deployment has these sizes."""
    found = SLURM.replace("served_model_name: m", f"served_model_name: m, {text}") if text else SLURM
    return found.replace("output_dir: /o", ", ".join(["output_dir: /o", *(f"{key}: {value}" for key, value in execution.items())]))


@pytest.mark.parametrize(
    ("text", "execution", "message"),
    [
        ("tensor_parallel_size: 16", {}, r"uses 16 GPUs \(tensor_parallel_size 16\), but the job asks for 8 GPUs"),
        ("tensor_parallel_size: 8, data_parallel_size: 2", {}, r"uses 16 GPUs \(tensor_parallel_size 8 × data_parallel_size 2\)"),
        ("tensor_parallel_size: 4, pipeline_parallel_size: 4", {}, "uses 16 GPUs"),
        ("tensor_parallel_size: 4, extra_args: '-pp 4'", {}, "uses 16 GPUs"),
        ("tensor_parallel_size: 4, extra_args: '--pipeline-parallel-size=4'", {}, "uses 16 GPUs"),
        ("tensor_parallel_size: 8", {"gres": "gpu:h100:4"}, "asks for 4 GPUs"),
        ("tensor_parallel_size: 16", {"num_nodes": 2, "num_instances": 2}, r"asks for 8 GPUs for each instance"),
    ],
)
def test_more_gpus_than_the_job_asks_for_are_refused(text: str, execution: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=rf"mine\.yaml:7: the deployment .*{message}.*; (give SET=|lower the sizes in deployment\.extra_args)"
    ) as info:
        compile_text(tmp_path, sizes(text, **execution))
    if found := re.search(r'SET="([^"]*)"', str(info.value)):
        assert compile_text(tmp_path, sizes(text, **execution), overrides=found[1].split()).definitions, "the fix works"
    else:
        assert "extra_args" in text


@pytest.mark.parametrize(
    ("text", "execution", "fixes"),
    [
        ("tensor_parallel_size: 4", {}, ["deployment.data_parallel_size=2", "execution.gres=gpu:4"]),
        ("tensor_parallel_size: 3", {}, ["execution.gres=gpu:3"]),
        ("tensor_parallel_size: 8", {"num_nodes": 2}, ["deployment.data_parallel_size=2"]),
    ],
)
def test_idle_gpus_are_a_notice_and_each_set_that_it_names_ends_it(
    text: str, execution: dict[str, Any], fixes: list[str], tmp_path: Path
) -> None:
    def told(overrides: list[str]) -> list[str]:
        return [one for one in compile_text(tmp_path, sizes(text, **execution), overrides=overrides).notices if "GPUs" in one]

    (notice,) = told([])
    for setting in fixes:
        assert f'SET="{setting}"' in notice
        assert told([setting]) == []


@pytest.mark.parametrize("text", ["tensor_parallel_size: 8", "tensor_parallel_size: 4, data_parallel_size: 2"])
def test_what_fits_is_not_talked_about(text: str, tmp_path: Path) -> None:
    assert not [one for one in compile_text(tmp_path, sizes(text)).notices if "GPU" in one]


def test_a_hosted_model_asks_for_no_gpus_unless_the_config_does(tmp_path: Path) -> None:
    text = HOSTED.replace("type: process", "type: slurm, hostname: h, account: a, output_dir: /o").replace("capitals", "ns_gpqa")
    assert compile_text(tmp_path, text).config["execution"]["gres"] is None
    assert compile_text(tmp_path, text, overrides=["execution.gres=gpu:2"]).config["execution"]["gres"] == "gpu:2"


@pytest.mark.parametrize(
    ("deployment", "model", "message"),
    [
        ({"extra_args": "--max-model-len 32768"}, {"max_position_embeddings": 2048}, "has --max-model-len 32768.* allows 2048"),
        ({"extra_args": "--max-model-len=4k"}, {"max_position_embeddings": 2048}, "has --max-model-len 4000"),
        ({"tensor_parallel_size": 8}, {"num_attention_heads": 9}, r"does not divide the model's 9 attention heads; give one of 1, 3, 9"),
    ],
)
def test_what_the_models_config_rules_out_is_refused(deployment: dict[str, Any], model: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fit.check_model(deployment, model, "place")


@pytest.mark.parametrize(
    ("deployment", "model"),
    [
        ({"extra_args": "--max-model-len 2048"}, {"max_position_embeddings": 2048}),
        ({"extra_args": "--max-model-len 4096"}, {}),
        ({"tensor_parallel_size": 3}, {"num_attention_heads": 9}),
        ({"tensor_parallel_size": 8, "extra_args": '--it"s'}, {}),
    ],
)
def test_what_it_allows_or_does_not_say_is_taken(deployment: dict[str, Any], model: dict[str, int]) -> None:
    fit.check_model(deployment, model, "place")
