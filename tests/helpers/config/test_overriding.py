"""Overrides: Hydra's types, known keys without `+`, and everything a shell can carry in a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiled import SLURM, at, compile_text
from helpers.common.errors import BadInput

PARAMS = "evaluation.nemo_evaluator_config.config.params"
TAKEN: list[tuple[str, str, Any]] = [
    ("deployment.tensor_parallel_size=4", "deployment.tensor_parallel_size", 4),
    ("deployment.gpu_memory_utilization=0.5", "deployment.gpu_memory_utilization", 0.5),
    ("execution.sbatch_extra_flags.exclusive=false", "execution.sbatch_extra_flags.exclusive", False),
    ("execution.max_walltime=null", "execution.max_walltime", None),
    ("execution.auto_export.destinations=[wandb,mlflow]", "execution.auto_export.destinations", ["wandb", "mlflow"]),
    ("execution.mounts.deployment={/data/v1.0: /data}", "execution.mounts.deployment", {"/data/v1.0": "/data"}),
    (f"{PARAMS}={{temperature: 0.5, extra: {{a: [1, b]}}}}", PARAMS, {"temperature": 0.5, "extra": {"a": [1, "b"]}}),
    ("deployment.endpoints={health: /up}", "deployment.endpoints.chat", "/v1/chat/completions"),
    ("deployment.endpoints={health: /up}", "deployment.endpoints.health", "/up"),
    ("deployment.extra_args='--a b=c'", "deployment.extra_args", "--a b=c"),
    ("deployment.extra_args=--a b=c --d", "deployment.extra_args", "--a b=c --d"),
    ('deployment.extra_args="it\'s"', "deployment.extra_args", "it's"),
    ("deployment.extra_args=--x it's", "deployment.extra_args", "--x it's"),
    ('deployment.extra_args=--json {"a": "b c"}', "deployment.extra_args", '--json {"a": "b c"}'),
    ("deployment.extra_args=$HOME/$x", "deployment.extra_args", "$HOME/$x"),
    ("deployment.extra_args=", "deployment.extra_args", ""),
    ("deployment.extra_args=it's a\\b\\", "deployment.extra_args", "it's a\\b\\"),
    ("deployment.extra_args=--x=${deployment.port}", "deployment.extra_args", "--x=8000"),
    ("deployment.port=${deployment.tensor_parallel_size}", "deployment.port", 8),
    ("deployment.served_model_name=a,b", "deployment.served_model_name", "a,b"),
    ("deployment.served_model_name=choice(a,b)", "deployment.served_model_name", "choice(a,b)"),
    ("deployment.served_model_name=1e3", "deployment.served_model_name", "1e3"),
    ("deployment.served_model_name=007", "deployment.served_model_name", "007"),
    ("execution.walltime=30", "execution.walltime", "00:30:00"),
    ("execution.walltime=12:30:45", "execution.walltime", "12:30:45"),
    ("execution.gres=gpu:h100:16", "execution.gres", "gpu:h100:16"),
    (f"{PARAMS}.limit_samples=10", f"{PARAMS}.limit_samples", 10),
    (f"{PARAMS}.extra.anything.goes=x", f"{PARAMS}.extra.anything.goes", "x"),
    (f"++{PARAMS}.request_timeout=7200", f"{PARAMS}.request_timeout", 7200),
    ("+run.mine=1", "run.mine", 1),
    ("+mine.own={a: 1}", "mine.own.a", 1),
    ("++deployment.port=4", "deployment.port", 4),
    ("evaluation.tasks.0.name=openbookqa", "evaluation.tasks.0.name", "openbookqa"),
    ("evaluation.tasks[0].name=openbookqa", "evaluation.tasks.0.name", "openbookqa"),
    (
        "evaluation.tasks.0.nemo_evaluator_config.config.params.parallelism=2",
        "evaluation.tasks.0.nemo_evaluator_config.config.params.parallelism",
        2,
    ),
    ("evaluation.tasks.0.env_vars.A=lit:x y", "evaluation.tasks.0.env_vars.A", "lit:x y"),
    ("evaluation.tasks=[{name: openbookqa}, {name: hellaswag}]", "evaluation.tasks.1.name", "hellaswag"),
    ("deployment.env_vars.HF_TOKEN=host:HF_TOKEN", "deployment.env_vars.HF_TOKEN", "host:HF_TOKEN"),
    ("run.model=sft:latest", "run.model", "sft:latest"),
    ("run.model=my-team/nemotron/M:v2", "run.model", "my-team/nemotron/M:v2"),
    ("deployment=sglang", "deployment.type", "sglang"),
    ("deployment.image=nvcr.io/nvidia/nemo:25.01", "deployment.image", "nvcr.io/nvidia/nemo:25.01"),
]


@pytest.mark.parametrize(("text", "key", "value"), TAKEN, ids=[f"{text}-{key}" for text, key, _ in TAKEN])
def test_an_override_is_taken_with_its_type(text: str, key: str, value: Any, tmp_path: Path) -> None:
    found = at(compile_text(tmp_path, SLURM, overrides=[text]).config, key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_of_a_key_wins(tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM, overrides=["deployment.port=1", "deployment.port=2"])
    assert done.config["deployment"]["port"] == 2


def test_a_deletion_takes_the_key_away(tmp_path: Path) -> None:
    config = compile_text(tmp_path, SLURM, overrides=["~deployment.endpoints.embedding", "~execution.max_walltime"]).config
    assert "embedding" not in config["deployment"]["endpoints"]
    assert "max_walltime" not in config["execution"]


@pytest.mark.slow
def test_a_group_of_the_persons_own_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("big", "small"):
        (tmp_path / "model" / f"{name}.yaml").write_text(f"# @package _global_\ndeployment: {{served_model_name: {name}}}\n")
    text = SLURM.replace("  - _self_", "  - _self_\n  - model: big")
    assert compile_text(tmp_path, text).config["deployment"]["served_model_name"] == "big"
    assert compile_text(tmp_path, text, overrides=["model=small"]).config["deployment"]["served_model_name"] == "small"


REFUSED = [
    ("noequal", "has no `=`"),
    ("=4", "has no key before `=`"),
    ("a b=4", "is not a valid key"),
    ("deployment.tensor_paralel_size=4", "(did you mean deployment.tensor_parallel_size?); +deployment.tensor_paralel_size="),
    ("tensor_parallel_size=4", "(did you mean deployment.tensor_parallel_size?)"),
    ("deployment.endpoints={healt: {a: 1}}", "expected"),
    ("execution={walltme: '1:00:00'}", "execution"),
    ("evaluation.tasks.1.name=x", "has no entry 1: it has 1, counted from 0; to add a task, name it in TASKS"),
    ("~deployment.prt", "the config has no such key (did you mean deployment.port?)"),
    ("+deployment.port=4", "the config already has this key"),
    ("deployment=vlm", "there is no deployment called vlm (did you mean vllm?)"),
    ("hydra.run.dir=x", "cannot be overridden"),
    ("+hydra.run.dir=x", "cannot be overridden"),
    ("defaults=[x]", "cannot be overridden"),
    ("deployment.port=abc", "expected a whole number"),
    ("deployment.port=${nosuch}", "${nosuch}: the config has no such key"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_an_override_that_means_nothing_is_refused_with_the_fix(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        compile_text(tmp_path, SLURM, overrides=[text])
    assert message in str(caught.value)


def test_the_variable_that_an_override_was_typed_in_is_named(tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM, model="rl:v1", quick=3)
    assert done.keys["run.model"][-1].set_by == "MODEL run.model"
    assert done.keys[f"{PARAMS}.limit_samples"][-1].set_by == f"QUICK {PARAMS}.limit_samples"
