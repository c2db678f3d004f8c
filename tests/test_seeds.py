"""The examples of the documents in tests/seeds, cut out unchanged, compile, and the launcher accepts what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled import at, compile_text, fenced, launcher_dry_run

FRAMEWORK, STAGE = "evaluator.md", "nano3-eval.md"
# name: document, heading of the config, heading of the profile, the profile's name.
EXAMPLES = {
    "example": (FRAMEWORK, "Example Config", "Profile with Auto-Squash", "MY-CLUSTER"),
    "custom": (FRAMEWORK, "Step 1: Create Config File", "Basic Profile", "MY-CLUSTER"),
    "stage": (STAGE, "Key Configuration Sections", "Running with NeMo-Run", "YOUR-CLUSTER"),
}


def example(name: str) -> tuple[str, str, str]:
    document, config, env, profile = EXAMPLES[name]
    return fenced(document, config, "yaml"), fenced(document, env, "toml"), profile


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_config_compiles_with_its_env_toml_and_passes_the_launchers_validation_and_dry_run(
    name: str, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    # The stage's checkpoint is the artifact of run.model, left open for the step that resolves models.
    done = compile_text(tmp_path, *example(name), overrides=["deployment.checkpoint_path=/ckpt"] if name == "stage" else [])
    scripts = launcher_dry_run(done.config)
    assert scripts.count("#SBATCH --account my-account" if name != "stage" else "#SBATCH --account YOUR-ACCOUNT") >= len(
        done.config["evaluation"]["tasks"]
    )


def test_an_example_takes_its_values_from_the_profile(tmp_path: Path) -> None:
    config = compile_text(tmp_path, *example("example")).config
    expected = {
        "execution.hostname": "cluster.example.com",
        "execution.account": "my-account",
        "execution.partition": "batch",
        "execution.username": "myuser",
        "execution.output_dir": "/lustre/fsw/users/myuser/.nemotron/evaluations",
        "execution.auto_export.destinations.0": "wandb",
        "deployment.image": "nvcr.io/nvidia/nemo:25.01",
        "deployment.command": "python deploy_ray_inframework.py --megatron_checkpoint /checkpoint/ --num_gpus 8",
    }
    assert {key: at(config, key) for key in expected} == expected


def test_the_wandb_section_fills_what_a_config_leaves_null(tmp_path: Path) -> None:
    config = compile_text(tmp_path, *example("custom")).config
    assert config["export"]["wandb"] == {"entity": "my-team", "project": "nemotron"}


def test_a_model_reference_stays_open_for_the_step_that_resolves_models(tmp_path: Path) -> None:
    config = compile_text(tmp_path, *example("stage")).config
    assert config["deployment"]["checkpoint_path"] == "${art:model,path}"
    assert "--tensor-parallel-size=4" in config["deployment"]["command"]


COMMANDS = [
    ("run.model=sft:latest", "run.model", "sft:latest"),
    ("run.model=pretrain:latest", "run.model", "pretrain:latest"),
    ("run.model=rl:v2", "run.model", "rl:v2"),
    ("deployment.tensor_parallel_size=8", "deployment.tensor_parallel_size", 8),
    ("evaluation.nemo_evaluator_config.config.params.limit_samples=10", "evaluation.nemo_evaluator_config.config.params.limit_samples", 10),
    (
        "evaluation.nemo_evaluator_config.config.params.request_timeout=7200",
        "evaluation.nemo_evaluator_config.config.params.request_timeout",
        7200,
    ),
    ("deployment.checkpoint_path=/path/to/your/checkpoint", "deployment.checkpoint_path", "/path/to/your/checkpoint"),
]


@pytest.mark.parametrize(("override", "key", "value"), COMMANDS)
def test_every_override_of_the_documents_works_as_written(override: str, key: str, value: object, tmp_path: Path) -> None:
    assert at(compile_text(tmp_path, *example("stage"), overrides=[override]).config, key) == value


@pytest.mark.parametrize(
    ("name", "tasks", "chosen"),
    [
        ("stage", ["adlr_mmlu"], ["adlr_mmlu"]),
        ("stage", ["adlr_mmlu", "hellaswag", "arc_challenge"], ["adlr_mmlu", "hellaswag", "arc_challenge"]),
        ("stage", ["gsm8k"], ["gsm8k"]),
        ("example", ["adlr_mmlu", "hellaswag"], ["adlr_mmlu", "hellaswag"]),
        ("example", ["adlr_winogrande_5_shot"], ["adlr_winogrande_5_shot"]),
    ],
)
def test_the_documents_tasks_can_be_chosen(name: str, tasks: list[str], chosen: list[str], tmp_path: Path) -> None:
    done = compile_text(tmp_path, *example(name), tasks=tasks)
    assert [entry["name"] for entry in done.config["evaluation"]["tasks"]] == chosen


def test_every_task_that_the_documents_name_is_in_the_catalogue(tmp_path: Path) -> None:
    text = fenced(STAGE, "Key Configuration Sections", "yaml")
    listed = ["adlr_mmlu", "hellaswag", "arc_challenge", "openbookqa", "truthfulqa", "gsm8k"]
    listed += ["adlr_arc_challenge_llama_25_shot", "adlr_winogrande_5_shot"]
    done = compile_text(tmp_path, text, *example("stage")[1:], tasks=listed)
    assert {entry["name"] for entry in done.config["evaluation"]["tasks"]} == set(listed)
