"""Composition: what the launcher composes itself, from any folder, with groups of the person's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiled import HOSTED, PROFILE, SLURM, compile_text, launcher_dry_run
from helpers.common.errors import BadInput
from helpers.config import config_files
from helpers.config.tracing import leaves
from helpers.executors import registry

EXECUTIONS = {
    "slurm/default": "{hostname: h, account: a, output_dir: /o, username: me}",
    "local": "{output_dir: nel-results}",
    "docker": "{output_dir: nel-results}",
}
DEPLOYMENTS = {
    "none": "{}",
    "generic": "{image: i, command: serve, served_model_name: m}",
    "vllm": "{checkpoint_path: /c, served_model_name: m}",
    "vllm_ray": "{checkpoint_path: /c, served_model_name: m}",
    "sglang": "{checkpoint_path: /c, served_model_name: m, hf_model_handle: a/b}",
    "trtllm": "{checkpoint_path: /c, served_model_name: m}",
    "nim": "{image: i, served_model_name: m}",
}


def text_of(execution: str, deployment: str) -> str:
    text = f"defaults: [{{execution: {execution}}}, {{deployment: {deployment}}}, _self_]\n"
    text += f"execution: {EXECUTIONS[execution]}\ndeployment: {DEPLOYMENTS[deployment]}\nevaluation: {{tasks: [{{name: ns_gpqa}}]}}\n"
    if deployment == "none":
        text += "target: {api_endpoint: {url: http://h/v1/chat/completions, model_id: m, api_key_name: null}}\n"
    return text


@pytest.mark.slow
@pytest.mark.parametrize("deployment", DEPLOYMENTS)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_executor_of_the_launcher_with_every_deployment_composes_as_the_launcher_composes_it(
    execution: str, deployment: str, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    from nemo_evaluator_launcher.api.types import RunConfig
    from omegaconf import OmegaConf

    path = tmp_path / "mine.yaml"
    path.write_text(text_of(execution, deployment).replace("docker", "local"))
    theirs: Any = OmegaConf.to_container(RunConfig.from_hydra(str(path)), resolve=True)
    path.write_text(text_of(execution, deployment))
    ours = compile_text(tmp_path, path).config
    executor = registry.describe(theirs["execution"]["type"])
    assert ours["execution"]["type"] == executor.name
    theirs["execution"]["type"] = executor.name
    if deployment == "none" and "gres" in theirs["execution"]:
        theirs["execution"]["gres"] = None  # a hosted model needs no GPUs
    # Ours leaves out the path of the config and empty sections.
    expected = {key: value for key, value in leaves(theirs) if key != "user_config_path" and not (value == {} and "." not in key)}
    assert dict(leaves(ours)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["none", "generic", "vllm", "nim"])
@pytest.mark.parametrize("execution", ["slurm/default", "local"])
def test_what_is_composed_passes_the_launchers_dry_run(
    execution: str, deployment: str, tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = compile_text(tmp_path, text_of(execution, deployment))
    assert "ns_gpqa" in launcher_dry_run(done.config)


def test_a_config_without_defaults_gets_those_of_its_types(tmp_path: Path) -> None:
    with_defaults = compile_text(tmp_path, SLURM).config
    without = (
        SLURM.partition("  - _self_")[2].replace("{hostname", "{type: slurm, hostname").replace("{checkpoint", "{type: vllm, checkpoint")
    )
    assert compile_text(tmp_path, without).config == with_defaults


def test_the_profiles_executor_gives_the_execution_type_that_a_config_leaves_out(tmp_path: Path) -> None:
    text = "deployment: {type: vllm, checkpoint_path: /c}\nevaluation: {tasks: [{name: hellaswag}]}\n"
    assert compile_text(tmp_path, text, PROFILE, "C").config["execution"]["type"] == "slurm"


def test_without_profile_the_missing_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mine.yaml:1: execution.type has no value; .* process, docker, slurm, .* or a PROFILE"):
        compile_text(tmp_path, "evaluation: {tasks: [{name: hellaswag}]}\n")


@pytest.mark.parametrize(
    ("execution", "name"),
    [
        ("execution: {type: local, output_dir: o}", "docker"),
        ("execution: {type: docker, output_dir: o}", "docker"),
        ("defaults: [{execution: local}, {deployment: vllm}]", "docker"),
        ("defaults: [{execution: docker}, {deployment: vllm}]", "docker"),
        ("execution: {type: '${run.kind}', output_dir: o}\nrun: {kind: local}", "docker"),
    ],
)
def test_the_launchers_word_for_an_executor_becomes_ours(execution: str, name: str, tmp_path: Path) -> None:
    text = f"{execution}\ndeployment: {{type: vllm, checkpoint_path: /c}}\nevaluation: {{tasks: [{{name: hellaswag}}]}}\n"
    if "run.kind" in execution:
        text = "defaults: [{deployment: vllm}, _self_]\n" + text
    done = compile_text(tmp_path, text)
    assert done.config["execution"]["type"] == name
    assert done.keys["execution.type"][-1].value == name
    assert done.notices == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("execution: {type: lepton}\n", r"mine\.yaml:1: execution\.type: executor lepton: .* process, docker, slurm"),
        ("defaults: [{execution: lepton/default}, {deployment: none}]\n", r"execution\.type: executor lepton: .* process, docker, slurm"),
        ("execution: {type: slrm}\n", r"mine\.yaml:1: execution\.type: executor 'slrm' does not exist \(did you mean slurm\?\)"),
    ],
)
def test_an_executor_that_does_not_exist_or_is_not_supported_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        compile_text(tmp_path, text + "evaluation: {tasks: [{name: hellaswag}]}\n")


def test_sections_with_nothing_below_them_change_nothing(tmp_path: Path) -> None:
    assert compile_text(tmp_path, SLURM + "run:\nexport:\nenv_vars:\n").config == compile_text(tmp_path, SLURM).config


def test_a_config_can_be_built_upon_another_and_groups_beside_it_count_before_those_of_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "deployment").mkdir()
    (tmp_path / "deployment" / "vllm.yaml").write_text(
        "type: vllm\nimage: mine\ncommand: serve\ncheckpoint_path: /c\nserved_model_name: m\n"
    )
    (tmp_path / "base.yaml").write_text(SLURM.replace("deployment: {checkpoint_path: /c, served_model_name: m}", ""))
    done = compile_text(tmp_path, "defaults: [base, _self_]\nexecution: {num_nodes: 3}\n")
    assert done.config["execution"]["num_nodes"] == 3
    assert done.config["deployment"]["image"] == "mine"
    assert done.keys["deployment.image"][-1].set_by == f"{tmp_path}/deployment/vllm.yaml:2"
    assert set(done.sources) >= {f"{tmp_path}/base.yaml", f"{tmp_path}/mine.yaml", f"{tmp_path}/deployment/vllm.yaml"}


def test_what_a_profile_says_does_not_overrule_a_config_that_this_one_is_built_upon(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SLURM.replace("{hostname: h", "{num_nodes: 2, hostname: h"))
    done = compile_text(tmp_path, "defaults: [base]\n", PROFILE + "nodes = 4\n", "C")
    assert done.config["execution"]["num_nodes"] == 2
    assert any("nodes has no effect" in text and "base.yaml" in text for text in done.notices)


@pytest.mark.parametrize(
    "name", ["with space", "quote's", 'double"quote', "a,b", "k=v", "ünïcode ☃", "do$llar", "in${ter}polated", "back\\slash", "[x]{y}"]
)
def test_the_path_of_a_config_may_hold_anything(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    (folder / "deployment").mkdir(parents=True)
    (folder / "deployment" / "own.yaml").write_text("type: generic\nimage: i\ncommand: c\nserved_model_name: m\n")
    done = compile_text(folder, SLURM.replace("deployment: vllm", "deployment: own"), name=f"{name}.yaml")
    assert done.config["deployment"]["image"] == "i"
    assert done.keys["deployment.image"][-1].set_by == f"{folder}/deployment/own.yaml:2"


def test_a_yml_file_compiles(tmp_path: Path) -> None:
    assert compile_text(tmp_path, HOSTED, name="mine.yml").config["evaluation"]["tasks"] == [{"name": "capitals"}]


def test_several_configs_compile_one_after_another_in_one_process(tmp_path: Path) -> None:
    first = compile_text(tmp_path, SLURM).config
    compile_text(tmp_path, HOSTED, name="other.yaml")
    assert compile_text(tmp_path, SLURM).config == first


TEMPLATES = config_files.launcher_configs().parent / "resources" / "config_templates"
NEEDED = {
    "tokenizer": "evaluation.nemo_evaluator_config.config.params.extra.tokenizer=org/tokenizer",
    "reasoning": "evaluation.nemo_evaluator_config.target.api_endpoint.adapter_config.params_to_add={skip_special_tokens: false}",
    "nim": "deployment.image=nvcr.io/nim/m:1",
    "trtllm": "deployment.checkpoint_path=/c",
    "hf": "deployment.hf_model_handle=org/model",
    "hosted": "target.api_endpoint.model_id=org/model",
    "mlflow": ["export.mlflow.tracking_uri=http://h:5000", "export.mlflow.experiment_name=e"],
    "wandb": ["export.wandb.project=p", "export.wandb.entity=e"],
}


def template(folder: Path, *parts: str) -> str:
    """A config built upon the launcher's templates, as its wizard puts them together."""
    names = []
    for part in parts:
        names.append(part.replace("/", "-"))
        (folder / f"{names[-1]}.yaml").write_bytes((TEMPLATES / f"{part}.yaml").read_bytes())
    return f"defaults: [{', '.join(names)}, _self_]\n"


@pytest.mark.parametrize(
    ("deployment", "export"), [("none", "none"), ("vllm", "wandb"), ("sglang", "mlflow"), ("trtllm", "wandb"), ("nim", "mlflow")]
)
@pytest.mark.parametrize("execution", ["slurm", "local"])
def test_the_launchers_own_templates_compile_with_the_values_that_they_ask_for(
    execution: str, deployment: str, export: str, tmp_path: Path
) -> None:
    chat = deployment == "none"
    general = "chat_reasoning/default" if chat else "base/default"
    tasks = "chat_reasoning/core_reasoning" if chat else "base/general_knowledge"
    wanted = ["tokenizer", *(["reasoning"] if chat else []), *([] if export == "none" else [export])]
    wanted.append({"none": "hosted", "nim": "nim", "trtllm": "trtllm"}.get(deployment, "hf"))
    overrides = [text for name in wanted for text in ([NEEDED[name]] if isinstance(NEEDED[name], str) else NEEDED[name])]
    if deployment != "none":
        overrides.append("deployment.served_model_name=org/model")
        if deployment == "nim":
            tasks = "chat_reasoning/core_reasoning"
    if execution == "slurm":
        overrides += ["execution.hostname=h", "execution.account=a", "execution.output_dir=/o"]
    parts = [f"execution/{execution}", f"deployment/{deployment}", f"evaluation/{general}", f"evaluation/{tasks}", f"export/{export}"]
    text = template(tmp_path, *(part for part in parts if part != "export/none"))
    config = compile_text(tmp_path, text, overrides=overrides).config
    assert config["execution"]["type"] == registry.describe(execution).name
    assert config["evaluation"]["tasks"]


@pytest.mark.parametrize(
    "tasks",
    sorted(str(path.relative_to(TEMPLATES).with_suffix("")) for path in TEMPLATES.glob("evaluation/*/*.yaml") if path.stem != "default"),
)
def test_every_list_of_tasks_among_the_launchers_templates_compiles(tasks: str, tmp_path: Path) -> None:
    """The two that are called default hold no tasks: the test above takes them."""
    overrides = ["execution.hostname=h", "execution.account=a", "execution.output_dir=/o", NEEDED["hf"]]
    if tasks == "evaluation/chat_reasoning/long_context":
        overrides += [f"evaluation.tasks.{i}.nemo_evaluator_config.config.params.extra.tokenizer=t" for i in range(3)]
    text = template(tmp_path, "execution/slurm", "deployment/vllm", tasks)
    assert compile_text(tmp_path, text, overrides=overrides).definitions
