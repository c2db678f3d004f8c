"""helpers/steps/submit.py: what the launcher gets, and what cannot be submitted."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.config import tokenizers
from helpers.steps.submit import launcher_config

RUN = "20261122T013512Z-local-7f3a"


def config(kind: str, **execution: Any) -> dict[str, Any]:
    tasks = [{"name": "opposites"}]
    return {"execution": {"type": kind, **execution}, "deployment": {"type": "none"}, "evaluation": {"tasks": tasks}}


@pytest.mark.parametrize("kind", ["process", "docker", "local"])
def test_the_jobs_of_each_run_lie_in_a_folder_of_their_own(tmp_path: Path, kind: str) -> None:
    run = tmp_path / RUN
    assert launcher_config(config(kind), run)["execution"]["output_dir"] == f"{run}/jobs"
    shared = launcher_config(config(kind, output_dir=f"{tmp_path}/shared"), run)
    assert shared["execution"]["output_dir"] == f"{tmp_path}/shared/{RUN}/jobs"


def test_images_that_pyxis_pulls_are_written_as_both_versions_of_enroot_read_them(tmp_path: Path) -> None:
    given = config("slurm", output_dir="/lustre/me")
    given["evaluation"]["tasks"] = [{"name": "opposites", "container": f"10.0.0.1:5000/a/{name}:1"} for name in ("left", "squashed")]
    made = launcher_config(given, tmp_path / RUN, paths={"10.0.0.1:5000/a/squashed:1": "/lustre/a.sqsh"})
    assert [task["container"] for task in made["evaluation"]["tasks"]] == ["10.0.0.1:5000#a/left:1", "/lustre/a.sqsh"]
    on_docker = launcher_config({**given, "execution": {"type": "docker"}}, tmp_path / RUN)
    assert on_docker["evaluation"]["tasks"][0]["container"] == "10.0.0.1:5000/a/left:1"


def test_outside_of_a_run_the_jobs_lie_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert launcher_config(config("process"), None)["execution"]["output_dir"] == f"{tmp_path}/jobs"


def test_on_slurm_the_folder_is_the_cluster_s_and_the_run_s_id_is_in_the_job_names(tmp_path: Path) -> None:
    made = launcher_config(config("slurm", output_dir="/lustre/me"), tmp_path / RUN)
    assert made["execution"]["output_dir"] == "/lustre/me"
    assert made["execution"]["subproject"] == RUN
    assert made["evaluation"]["nemo_evaluator_config"]["target"]["api_endpoint"]["adapter_config"]["use_progress_tracking"]


def test_the_launcher_sees_neither_our_run_section_nor_what_is_null_and_the_config_is_as_it_was(tmp_path: Path) -> None:
    given = {**config("process"), "run": {"model": "m"}, "export": None}
    made = launcher_config(given, tmp_path / RUN)
    assert set(made) == {"execution", "deployment", "evaluation"}
    assert given == {**config("process"), "run": {"model": "m"}, "export": None}


def test_an_export_that_is_switched_off_is_not_handed_on(tmp_path: Path) -> None:
    export = {"env_vars": {"WANDB_API_KEY": "host:WANDB_API_KEY"}, "wandb": {"project": "p"}}
    for enabled, kept in ((False, False), (True, True)):
        given = config("process", auto_export={"enabled": enabled, "destinations": ["wandb"]})
        made = launcher_config({**given, "export": export}, tmp_path / RUN)
        assert ("auto_export" in made["execution"]) == kept
        assert ("env_vars" in made["export"]) == kept
        assert made["export"]["wandb"] == {"project": "p"}


@pytest.mark.parametrize("kind", ["lepton", "nebius"])
def test_what_cannot_be_submitted_to_is_named_with_what_can(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadInput, match=f"{kind}.* process, docker, slurm"):
        launcher_config(config(kind), tmp_path / RUN)


def test_a_model_that_is_named_by_artifact_is_where_model_json_says_and_refused_when_it_does_not(tmp_path: Path) -> None:
    given = config("slurm", output_dir="/o")
    given["deployment"] = {"type": "vllm", "checkpoint_path": "${art:model,path}", "extra_args": "--seed 1 --tag ${art:model, version}"}
    made = launcher_config(given, tmp_path / RUN, models={"model": {"path": "/lustre/rl/3", "version": "v3"}})
    assert made["deployment"]["checkpoint_path"] == "/lustre/rl/3"
    assert made["deployment"]["extra_args"] == "--seed 1 --tag v3"
    with pytest.raises(BadInput, match=r"\$\{art:model,path\} is not in model\.json; .*resolve_model.py"):
        launcher_config(given, tmp_path / RUN)


@pytest.mark.parametrize("kind", ["slurm", "docker", "process"])
def test_the_evaluation_may_read_the_tokenizer_where_it_was_found(kind: str, tmp_path: Path) -> None:
    given = config(kind, output_dir="/o")
    extra = {"tokenizer": "/ckpt", "tokenizer_backend": "huggingface"}
    given["deployment"] = {"type": "vllm", "checkpoint_path": "/ckpt"}
    given["evaluation"]["tasks"] = [{"name": "hellaswag", "nemo_evaluator_config": {"config": {"params": {"extra": extra}}}}]
    made = launcher_config(given, tmp_path / RUN, tokenizer="/ckpt/tokenizer")
    assert tokenizers.folders(made) == ["/ckpt/tokenizer"]
    assert extra["tokenizer"] == "/ckpt", "the compiled config stays as it is"
    assert tokenizers.folders(launcher_config(given, None)) == ["/ckpt"], "a dry run assumes the checkpoint's own folder"
    extra["tokenizer"] = "/my-own/tokenizer"
    own = launcher_config(given, tmp_path / RUN, tokenizer="/ckpt/tokenizer")
    assert tokenizers.folders(own) == ["/my-own/tokenizer"]
    if kind == "slurm":
        assert made["execution"]["mounts"] == {"evaluation": {"/ckpt": "/ckpt:ro"}}
        assert own["execution"]["mounts"] == {"evaluation": {"/my-own/tokenizer": "/my-own/tokenizer:ro"}}
        given["execution"]["mounts"] = {"evaluation": {"/my-own": "/my-own"}}
        assert launcher_config(given, tmp_path / RUN)["execution"]["mounts"] == {"evaluation": {"/my-own": "/my-own"}}
    if kind == "docker":
        assert made["execution"]["extra_docker_args"].startswith("--volume /ckpt:/ckpt:ro ")
        assert own["execution"]["extra_docker_args"].startswith("--volume /my-own/tokenizer:/my-own/tokenizer:ro ")


WANDB = {"mode": "online", "export": True, "server": "https://api.wandb.ai", "entity": "my-team", "project": "nemotron"}


def exporting_config(kind: str, destinations: Any = ("wandb",), **wandb: Any) -> dict[str, Any]:
    auto_export = {"enabled": True, "destinations": list(destinations)} if isinstance(destinations, tuple) else destinations
    return {**config(kind, output_dir="/lustre/me", auto_export=auto_export), "export": {"wandb": wandb}}


def test_a_job_on_the_cluster_exports_with_pinned_packages_and_variables_by_name(tmp_path: Path) -> None:
    made = launcher_config(exporting_config("slurm", tags=["rl"]), tmp_path / RUN, wandb=WANDB)
    command = made["execution"]["auto_export"]["launcher_install_cmd"]
    for package in ("nemo-evaluator-launcher[wandb]", "nemo-evaluator", "wandb"):
        assert f'"{package}=={version(package.partition("[")[0])}"' in command
    assert "'" not in command
    assert made["export"]["wandb"] == {"tags": ["rl"], "entity": "my-team", "project": "nemotron"}
    assert made["export"]["env_vars"] == {name: f"host:{name}" for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT")}
    own = launcher_config(exporting_config("slurm"), tmp_path / RUN, wandb=WANDB | {"server": "https://wandb.example.com"})
    assert own["export"]["env_vars"]["WANDB_BASE_URL"] == "host:WANDB_BASE_URL"


def test_what_the_config_says_of_its_export_job_stays(tmp_path: Path) -> None:
    given = exporting_config("slurm", {"destinations": ["wandb"], "launcher_install_cmd": "true", "export_image": "/i.sqsh"})
    given["export"]["env_vars"] = {"WANDB_API_KEY": "host:MY_KEY"}
    made = launcher_config(given, tmp_path / RUN, wandb=WANDB)
    assert made["execution"]["auto_export"] == {"destinations": ["wandb"], "launcher_install_cmd": "true", "export_image": "/i.sqsh"}
    assert made["export"]["env_vars"]["WANDB_API_KEY"] == "host:MY_KEY"
    given["execution"]["auto_export"]["launcher_install_cmd"] = "echo 'it breaks'"
    with pytest.raises(BadInput, match="launcher_install_cmd"):
        launcher_config(given, tmp_path / RUN, wandb=WANDB)


@pytest.mark.parametrize(
    ("kind", "destinations", "mode", "log_mode", "left"),
    [
        ("slurm", ("wandb",), "online", "per_task", ["wandb"]),
        ("slurm", ["wandb"], "online", "per_task", ["wandb"]),  # the launcher takes a list too
        ("slurm", ("wandb", "mlflow"), "offline", "per_task", ["mlflow"]),
        ("slurm", ("wandb",), "offline", "per_task", None),
        ("slurm", ("wandb",), "disabled", "per_task", None),
        ("slurm", ("wandb",), "online", "multi_task", None),  # of one W&B run there is one writer
        ("local", ("wandb",), "online", "per_task", None),
        ("process", ("wandb",), "offline", "multi_task", ["wandb"]),
    ],
)
def test_to_the_launcher_is_left_what_is_its_own(
    tmp_path: Path, kind: str, destinations: Any, mode: str, log_mode: str, left: list[str] | None
) -> None:
    made = launcher_config(exporting_config(kind, destinations, log_mode=log_mode), tmp_path / RUN, wandb=WANDB | {"mode": mode})
    assert made["execution"].get("auto_export", {}).get("destinations") == left
    if left is None:
        assert "env_vars" not in made["export"]
