"""helpers/launcher_config.py: what the launcher is handed, and what it cannot be handed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import launcher_config
from helpers.errors import BadInput

RUN = "20261122T013512Z-local-7f3a"


def config(kind: str, **execution: Any) -> dict[str, Any]:
    tasks = [{"name": "opposites"}]
    return {"execution": {"type": kind, **execution}, "deployment": {"type": "none"}, "evaluation": {"tasks": tasks}}


@pytest.mark.parametrize("kind", ["process", "local"])
def test_the_jobs_of_each_run_lie_in_a_folder_of_their_own(tmp_path: Path, kind: str) -> None:
    run = tmp_path / RUN
    assert launcher_config.make(config(kind), run)["execution"]["output_dir"] == f"{run}/jobs"
    shared = launcher_config.make(config(kind, output_dir=f"{tmp_path}/shared"), run)
    assert shared["execution"]["output_dir"] == f"{tmp_path}/shared/{RUN}/jobs"


def test_outside_of_a_run_the_jobs_lie_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert launcher_config.make(config("process"), None)["execution"]["output_dir"] == f"{tmp_path}/jobs"


def test_on_slurm_the_folder_is_the_cluster_s_and_the_run_s_id_is_in_the_job_names(tmp_path: Path) -> None:
    made = launcher_config.make(config("slurm", output_dir="/lustre/me"), tmp_path / RUN)
    assert made["execution"]["output_dir"] == "/lustre/me"
    assert made["execution"]["subproject"] == RUN
    assert made["evaluation"]["nemo_evaluator_config"]["target"]["api_endpoint"]["adapter_config"]["use_progress_tracking"]


def test_the_launcher_sees_neither_our_run_section_nor_what_is_null_and_the_config_is_as_it_was(tmp_path: Path) -> None:
    given = {**config("process"), "run": {"model": "m"}, "export": None}
    made = launcher_config.make(given, tmp_path / RUN)
    assert set(made) == {"execution", "deployment", "evaluation"}
    assert given == {**config("process"), "run": {"model": "m"}, "export": None}


def test_an_export_that_is_switched_off_is_not_handed_on(tmp_path: Path) -> None:
    export = {"env_vars": {"WANDB_API_KEY": "host:WANDB_API_KEY"}, "wandb": {"project": "p"}}
    for enabled, kept in ((False, False), (True, True)):
        given = config("process", auto_export={"enabled": enabled, "destinations": ["wandb"]})
        made = launcher_config.make({**given, "export": export}, tmp_path / RUN)
        assert ("auto_export" in made["execution"]) == kept
        assert ("env_vars" in made["export"]) == kept
        assert made["export"]["wandb"] == {"project": "p"}


@pytest.mark.parametrize("kind", ["lepton", "nebius"])
def test_what_cannot_be_submitted_to_is_named_with_what_can(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadInput, match=f"execution.type {kind}: .*process .*local .*slurm"):
        launcher_config.make(config(kind), tmp_path / RUN)


def test_a_model_that_is_named_by_artifact_is_where_model_json_says_and_refused_when_it_does_not(tmp_path: Path) -> None:
    given = config("slurm", output_dir="/o")
    given["deployment"] = {"type": "vllm", "checkpoint_path": "${art:model,path}", "extra_args": "--seed 1 --tag ${art:model, version}"}
    made = launcher_config.make(given, tmp_path / RUN, {"model": {"path": "/lustre/rl/3", "version": "v3"}})
    assert made["deployment"]["checkpoint_path"] == "/lustre/rl/3"
    assert made["deployment"]["extra_args"] == "--seed 1 --tag v3"
    with pytest.raises(BadInput, match=r"\$\{art:model,path\} is not resolved.*resolve_model.py"):
        launcher_config.make(given, tmp_path / RUN)
