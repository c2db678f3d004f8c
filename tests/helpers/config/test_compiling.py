"""The compile step as a whole: our configs, precedence, what stays open, and messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT
from compiled import HOSTED, PROFILE, SLURM, at, compile_text, launcher_dry_run
from helpers.common.errors import BadInput

OURS: dict[str, dict[str, Any]] = {
    "default": {"overrides": ["deployment.checkpoint_path=/ckpt"]},
    "nemotron-3-nano-nemo-ray": {"overrides": ["deployment.checkpoint_path=/ckpt"]},
    "template": {},
    "local": {},
    "hosted": {"overrides": ["target.api_endpoint.url=http://h/v1/chat/completions", "target.api_endpoint.model_id=m"]},
}


def test_every_config_that_comes_with_the_project_is_tested() -> None:
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_config_that_comes_with_the_project_compiles_with_what_it_needs(name: str, tmp_path: Path, clean_env: dict[str, str]) -> None:
    on_slurm = "slurm" in (ROOT / "configs" / f"{name}.yaml").read_text().partition("_self_")[0]
    env = (PROFILE, "C") if on_slurm and name != "template" else (None, None)
    done = compile_text(tmp_path, ROOT / "configs" / f"{name}.yaml", *env, **OURS[name])
    assert [text for text in done.notices if "no key" in text] == []
    if env[0]:
        assert launcher_dry_run(done.config).count("#SBATCH --account acc") >= len(done.definitions)
        assert done.config["export"]["wandb"] == {"entity": "e", "project": "p"}
    else:
        assert done.config["execution"]["type"] == "process"


def test_the_default_config_evaluates_the_last_model_of_the_training(tmp_path: Path) -> None:
    done = compile_text(tmp_path, ROOT / "configs" / "default.yaml", PROFILE + "nodes = 2\n", "C")
    assert done.config["run"]["model"] == "rl:latest"
    assert done.config["deployment"]["checkpoint_path"] == "${art:model,path}"
    assert [entry["name"] for entry in done.config["evaluation"]["tasks"]] == ["adlr_mmlu", "hellaswag", "arc_challenge"]
    assert done.config["execution"]["num_nodes"] == 2, done.notices


@pytest.mark.parametrize(
    ("profile", "config", "override", "value"),
    [(False, False, False, 1), (True, False, False, 2), (True, True, False, 3), (True, True, True, 4), (False, True, False, 3)],
)
def test_group_defaults_are_below_the_profile_below_the_config_below_overrides(
    profile: bool, config: bool, override: bool, value: int, tmp_path: Path
) -> None:
    text = SLURM.replace("{hostname", "{num_nodes: 3, hostname") if config else SLURM
    env = PROFILE + ("nodes = 2\n" if profile else "")
    done = compile_text(tmp_path, text, env, "C", overrides=["execution.num_nodes=4"] if override else [])
    assert done.config["execution"]["num_nodes"] == value


def test_everything_is_resolved_but_the_artifact_and_nothing_is_open(tmp_path: Path) -> None:
    done = compile_text(tmp_path, ROOT / "configs" / "default.yaml", PROFILE, "C")
    texts = {key.rpartition(".")[2]: history[-1].value for key, history in done.keys.items() if "${" in str(history[-1].value)}
    assert texts == {"checkpoint_path": "${art:model,path}", "tokenizer": "${art:model,path}"}
    assert not any(history[-1].value == "???" for history in done.keys.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SLURM.replace("hostname: h, ", ""), r"execution\.hostname has no value; give SET=\"execution\.hostname=…\", or a PROFILE"),
        (SLURM.replace("hostname: h, account: a, ", ""), r"execution\.hostname, execution\.account have no value"),
        (SLURM.replace("hostname: h", "hostname: null"), r"mine\.yaml:6: execution\.hostname has no value"),
        (SLURM.replace("checkpoint_path: /c, ", ""), r"deployment\.checkpoint_path has no value; give SET="),
        (SLURM.replace("checkpoint_path: /c", "checkpoint_path: null"), r"mine\.yaml:7: deployment\.checkpoint_path has no value"),
        (SLURM.replace("/c,", "'${art:model,path}',"), r"run\.model has no value"),
        (SLURM.replace("vllm", "generic"), r"deployment\.image, deployment\.command have no value"),
        (HOSTED.replace(", model_id: m", ""), r"target\.api_endpoint\.model_id has no value"),
        (SLURM + "export: {wandb: {project: '???'}}\n", r"mine\.yaml:9: export\.wandb\.project has no value"),
    ],
)
def test_what_is_required_and_open_is_named_with_the_fix(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        compile_text(tmp_path, text)


@pytest.mark.parametrize(
    ("deployment", "name"),
    [
        ("checkpoint_path: /ckpts/my model.v2", "my-model.v2"),
        ("checkpoint_path: null, hf_model_handle: org/model-1", "model-1"),
        ("hf_model_handle: org/model-1", "model-1"),
    ],
)
def test_the_served_name_that_nobody_gives_is_the_checkpoints(deployment: str, name: str, tmp_path: Path) -> None:
    text = (
        SLURM.replace("checkpoint_path: /c, served_model_name: m", deployment)
        .replace("slurm/default", "local")
        .replace("hostname: h, account: a, ", "")
    )
    done = compile_text(tmp_path, text)
    assert done.config["deployment"]["served_model_name"] == name
    assert done.keys["deployment.served_model_name"][-1].set_by.startswith("default: ")
    assert name in done.config["deployment"]["command"]


def test_a_model_that_nothing_takes_is_said_to_have_no_effect(tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM, model="rl:v3")
    assert [text for text in done.notices if "run.model has no effect" in text and "mine.yaml:7 sets deployment.checkpoint_path" in text]


def test_a_hosted_model_beside_a_deployment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"mine\.yaml:9: target\.api_endpoint\.url names a hosted model, but deployment\.type vllm .* remove it"
    ):
        compile_text(tmp_path, SLURM + "target: {api_endpoint: {url: http://h}}\n")
    done = compile_text(tmp_path, SLURM + "target: {api_endpoint: {url: '???', model_id: '???', api_key_name: K}}\n")
    assert done.config["target"]["api_endpoint"] == {"api_key_name": "K"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("deploymnt: {a: b}\n", r"mine\.yaml:9: unknown key deploymnt \(did you mean deployment\?\)"),
        ("env_var: {a: b}\n", r"mine\.yaml:9: unknown key env_var \(did you mean env_vars\?\)"),
        ("target: {api_endpont: {a: b}}\n", r"mine\.yaml:9: unknown key target\.api_endpont \(did you mean api_endpoint\?\)"),
    ],
)
def test_an_unknown_key_near_a_known_one_is_refused(more: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        compile_text(tmp_path, SLURM + more)


def test_other_unknown_keys_are_a_notice_and_those_that_the_config_uses_are_none(tmp_path: Path) -> None:
    done = compile_text(tmp_path, SLURM + "zzz: {a: 1}\nmine: {size: 3}\nexport: {wandb: {project: 'p-${mine.size}'}}\n")
    assert [text.partition(": ")[2] for text in done.notices] == [
        "neither the launcher nor evalmake knows the key zzz; it is passed on unchanged"
    ]
    assert at(done.config, "export.wandb.project") == "p-3"


def test_every_source_is_listed_with_its_hash(tmp_path: Path) -> None:
    sources = compile_text(tmp_path, SLURM).sources
    launcher = "nemo_evaluator_launcher/configs"
    assert set(sources) == {f"{launcher}/execution/slurm/default.yaml", f"{launcher}/deployment/vllm.yaml", f"{tmp_path}/mine.yaml"}
    assert all(value.startswith("sha256:") for value in sources.values())


def test_a_variable_that_is_not_set_never_fails_the_compile_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EM_NOT_SET", raising=False)
    done = compile_text(tmp_path, SLURM + "env_vars: {A: 'host:EM_NOT_SET'}\n")
    assert done.config["env_vars"] == {"A": "host:EM_NOT_SET"}


def test_docker_without_an_output_dir_writes_into_the_runs_own_folder(tmp_path: Path) -> None:
    text = """
    defaults: [{execution: local}, {deployment: none}, _self_]
    target: {api_endpoint: {url: "http://127.0.0.1:9/v1/chat/completions", model_id: m}}
    evaluation: {tasks: [{name: gsm8k_cot_instruct}]}
    """
    compiled = compile_text(tmp_path, text)
    assert compiled.config["execution"]["output_dir"] is None
    assert compiled.keys["execution.output_dir"][-1].set_by == "default: the run's own folder"
