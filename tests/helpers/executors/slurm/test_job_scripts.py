"""helpers/executors/slurm/job_scripts.py: the launcher's own functions write what its own executor would submit and record.

Held here: each name that is replaced in nemo-evaluator-launcher 0.2.6 exists, and is called as our replacement takes it.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from nemo_evaluator_launcher.api import functional
from nemo_evaluator_launcher.common import env_vars, execdb
from nemo_evaluator_launcher.executors.registry import get_executor
from nemo_evaluator_launcher.executors.slurm import executor as stock
from omegaconf import OmegaConf

from cluster_double import CLUSTER, NASTY, SEAL, ClusterDouble, config, submit
from helpers.common.errors import StepFailed
from helpers.credentials.wandb_server import run_id
from helpers.executors.slurm import job_scripts, job_values
from helpers.executors.slurm.submission import Submission
from helpers.launcher import api, replacements
from helpers.steps.submit import launcher_config
from wandb_double import ENTITY, KEY, PROJECT, WandbDouble

# ---- The names that are replaced ---------------------------------------------------------------------------------------------------------


def replaced() -> dict[tuple[str, str], tuple[Any, Any]]:
    """Each name that is replaced, with what stood there and what stands there meanwhile."""
    modules = {"executor": stock, "functional": functional}
    before = {(short, name): value for short, module in modules.items() for name, value in vars(module).items()}
    with job_scripts.replaced():
        return {
            (short, name): (before[short, name], value)
            for short, module in modules.items()
            for name, value in vars(module).items()
            if before[short, name] is not value
        }


def test_four_names_are_replaced_and_are_as_they_were_afterwards() -> None:
    """With load_tasks_mapping in api.functional, which helpers/launcher/api.py replaces, these are five."""
    before = {key: was for key, (was, _) in replaced().items()}
    assert set(before) == {
        ("executor", "load_tasks_mapping"), ("executor", "get_task_definition_for_job"), ("executor", "_generate_auto_export_section"),
        ("functional", "get_task_definition_for_job"),
    }  # fmt: skip
    for (short, name), was in before.items():
        assert vars({"executor": stock, "functional": functional}[short])[name] is was


def test_each_replacement_takes_what_the_name_was_given() -> None:
    for was, now in replaced().values():
        inspect.signature(now).bind(**dict.fromkeys(inspect.signature(was).parameters))


def test_names_are_as_they_were_after_an_error_too() -> None:
    before = stock.load_tasks_mapping
    with pytest.raises(ValueError, match="in between"), job_scripts.replaced():
        raise ValueError("in between")
    assert stock.load_tasks_mapping is before


def test_the_launcher_finds_our_executor_by_the_name_slurm_and_it_is_the_stock_one_but_for_submitting() -> None:
    assert get_executor("slurm") is job_scripts.OnceExecutor
    for name in ("get_status", "kill_job", "resume_job"):
        assert getattr(job_scripts.OnceExecutor, name) is getattr(stock.SlurmExecutor, name)
    assert inspect.signature(job_scripts.OnceExecutor.execute_eval).parameters.keys() == {"cfg", "dry_run"}


@pytest.mark.parametrize("change", ["several_instances", "a_judge", "an_export", "a_hosted_model"])
def test_each_container_of_a_job_is_asked_to_be_writable(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Pyxis reads the variable in the environment of srun, into which the job's script exports it before that."""
    for name in ("MY_TOKEN", "MY_WORD"):
        monkeypatch.setenv(name, "x")
    given = config()
    globals()[change](given)
    job_values.complete(given, None)
    for _, text in job_scripts.texts(given):
        steps = [found.start() for found in re.finditer("--container-image", text)]
        assert steps
        for step in steps:
            part = text[:step].rpartition("#!/bin/bash")[2]  # the export is a job of its own
            assert re.search(r"^export PYXIS_CONTAINER_WRITABLE=", part, re.MULTILINE)


# ---- As the launcher's own executor ------------------------------------------------------------------------------------------------------


def several_instances(given: dict[str, Any]) -> None:
    given["execution"] |= {"num_nodes": 2, "num_instances": 2}


def a_judge(given: dict[str, Any]) -> None:
    given["auxiliary_deployments"] = {
        "judge": {
            **given["deployment"], "image": "judge:1", "served_model_name": "j", "port": 8100, "num_nodes": 1,
            "env_vars": {"K": "host:MY_TOKEN"},
        }
    }  # fmt: skip


def an_export(given: dict[str, Any]) -> None:
    given["execution"]["auto_export"] = {"destinations": ["local"]}


def a_hosted_model(given: dict[str, Any]) -> None:
    given["deployment"] = {"type": "none"}
    given["target"] = {"api_endpoint": {"url": "https://example.com/v1/chat/completions", "model_id": "m", "api_key_name": "MY_TOKEN"}}


@pytest.mark.parametrize("change", [lambda _: None, several_instances, a_judge, an_export, a_hosted_model])
def test_scripts_files_and_records_are_those_of_the_launcher_s_own_executor(
    cluster: ClusterDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]
) -> None:
    """The stock executor runs without its ssh and sbatch, with our ids. Secrets are quoted otherwise."""
    monkeypatch.setenv("MY_TOKEN", "t")
    monkeypatch.setenv("MY_WORD", "w")
    real = env_vars._make_disambiguated_name  # it holds four random digits
    monkeypatch.setattr(env_vars, "_make_disambiguated_name", lambda name, group, _token: real(name, group, "abcd"))
    data = config()
    change(data)
    submission = Submission(CLUSTER, run, SEAL)
    api.run_eval(data, None, job_scripts.submitting(submission))
    ours = {
        f"{submission.invocation_id}.{index}": execdb.ExecutionDB().get_job(f"{submission.invocation_id}.{index}") for index in range(3)
    }
    sent: dict[str, bytes] = {}
    paths: list[str] = []

    def upload(*, local_sources: list[Path], **_: Any) -> None:
        for path in local_sources[0].rglob("*"):
            if path.is_file():
                sent[str(path.relative_to(local_sources[0]))] = path.read_bytes()

    written: list[Any] = []
    replacements = {
        "generate_invocation_id": lambda: submission.invocation_id,
        "get_timestamp_string": lambda **_: submission.timestamp,
        "load_tasks_mapping": api.task_mapping,
        "master_connection": lambda **_: contextlib.nullcontext(),
        "_validate_remote_paths_exist": lambda **given: paths.extend(given["paths"]),
        "_make_remote_execution_output_dir": lambda **_: None,
        "_rsync_upload_rundirs": upload,
        "_sbatch_remote_runsubs": lambda **_: ["101", "102", "103"],
    }
    for name, value in replacements.items():
        monkeypatch.setattr(stock, name, value)
    monkeypatch.setattr(execdb.ExecutionDB, "write_job", lambda _self, job: written.append(job))
    stock.SlurmExecutor.execute_eval(OmegaConf.create(data))
    assert cluster.sent.keys() == sent.keys()
    for name, text in sent.items():
        if name.endswith("/.secrets.env"):
            assert re.findall(rb"(?m)^export (\w+)=", cluster.sent[name]) == re.findall(rb"(?m)^export (\w+)=", text)
        else:
            assert cluster.sent[name] == text, name
    assert set(cluster.values["prepare"]["PATHS"]) == set(paths)
    assert [job.job_id for job in written] == list(ours)
    for job in written:
        mine = ours[job.job_id]
        assert mine is not None
        assert (mine.data, mine.executor, mine.config) == (job.data, job.executor, job.config)


def test_a_dry_run_shows_the_scripts_that_are_submitted(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = env_vars._make_disambiguated_name
    monkeypatch.setattr(env_vars, "_make_disambiguated_name", lambda name, group, _token: real(name, group, "abcd"))
    submission = submit(run, monkeypatch)
    for name, text in job_scripts.texts(config()):
        sent = cluster.sent[f"{name}/run.sub"].decode()
        sent = sent.replace(f"{submission.timestamp}-{submission.invocation_id}", "INVOCATION").replace(
            submission.invocation_id, "INVOCATION"
        )
        assert text.rstrip("\n") + "\n" == sent


def test_a_command_that_nobody_allowed_is_refused_before_anything_is_contacted(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    monkeypatch.setenv("MY_WORD", "x")
    given = config()
    given["evaluation"]["pre_cmd"] = "reboot"
    with pytest.raises(StepFailed, match="export NEMO_EVALUATOR_TRUST_PRE_CMD=1"):
        api.run_eval(given, None, job_scripts.submitting(Submission(CLUSTER, run, SEAL)))
    assert cluster.calls == []
    monkeypatch.setenv("NEMO_EVALUATOR_TRUST_PRE_CMD", "1")
    api.run_eval(given, None, job_scripts.submitting(Submission(CLUSTER, run, SEAL)))
    assert "submit" in cluster.calls


def test_a_container_of_a_task_s_own_needs_no_registry(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    monkeypatch.setenv("MY_WORD", "x")
    given = config()
    given["evaluation"]["tasks"][1]["container"] = "/images/own.sqsh"
    api.run_eval(given, None, job_scripts.submitting(Submission(CLUSTER, run, SEAL)))
    assert b"--container-image /images/own.sqsh " in cluster.sent["adlr_mmlu.1/run.sub"]
    assert b"--container-image /images/own.sqsh " not in cluster.sent["hellaswag.0/run.sub"]


def test_a_task_s_definition_is_found_without_reading_its_container() -> None:
    asked: list[dict[str, Any]] = []
    find = partial(replacements.task_definition, lambda **words: asked.append(words))
    find(task_query="hellaswag", base_mapping={}, container="registry.example/own:1", endpoint_type="chat")
    assert asked == [{"task_query": "hellaswag", "base_mapping": {}, "endpoint_type": "chat"}]
    found = find(task_query="own.new", base_mapping={}, container="registry.example/own:1", endpoint_type="completions")
    assert len(asked) == 1, "the launcher would read the container's catalogue from its registry"
    assert (found["task"], found["harness"], found["endpoint_type"], found["is_unlisted"]) == ("new", "own", "completions", True)


# ---- Secrets -----------------------------------------------------------------------------------------------------------------------------


def test_secrets_go_up_for_their_owner_alone_and_stand_in_no_script(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(run, monkeypatch)
    for name, mode in cluster.modes.items():
        assert mode & 0o077 == 0, name
    for folder in ("hellaswag.0", "adlr_mmlu.1", "hellaswag.2"):
        assert b"hf_$ecret" in cluster.sent[f"{folder}/.secrets.env"]
        assert b"ecret" not in cluster.sent[f"{folder}/run.sub"].replace(b".secrets.env", b"")


def test_what_the_secrets_file_says_arrives_in_the_job_s_own_variables(
    cluster: ClusterDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of run.sub that source the file and hand the values on, by a real bash."""
    submit(run, monkeypatch)
    (tmp_path / ".secrets.env").write_bytes(cluster.sent["hellaswag.0/.secrets.env"])
    exports = [line for line in cluster.sent["hellaswag.0/run.sub"].decode().splitlines() if re.match(r"export \w+=\"\$\{\w+\}\"", line)]
    assert len(exports) == 2
    text = f"source {tmp_path}/.secrets.env\n" + "\n".join(exports) + '\nprintf "%s\\0%s" "$WORD" "$HF_TOKEN"\n'
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True, env={"PATH": os.environ["PATH"], "HOME": "/wrong"})
    assert done.stdout.decode().split("\0") == [NASTY, "hf_$ecret"]
    assert done.stderr == b""


VALUES = [
    NASTY,
    "",
    " ",
    "plain",
    "'",
    "''",
    '"',
    "\\",
    "a\\'b",
    "\n",
    "$(touch /tmp/evalmake-was-here)",
    "-n",
    "=",
    "x" * 5000,
    "漢\u202e",
]


def test_every_value_arrives_through_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", NASTY)
    group: dict[str, Any] = {f"V{number}": env_vars.EnvVarLiteral(value) for number, value in enumerate(VALUES)}
    group |= {"H": env_vars.EnvVarFromHost("SECRET"), "R": env_vars.EnvVarRuntime("ELSEWHERE")}
    groups: dict[str, dict[str, Any]] = {"my.task.0": group, "deployment": {"V0": env_vars.EnvVarLiteral("other's")}}
    made = env_vars.generate_secrets_env(groups)
    path = tmp_path / ".secrets.env"
    path.write_text(replacements.quoted(made, groups))
    done = subprocess.run(["bash", "-c", f"source {path}; env -0"], capture_output=True, check=True)
    assert done.stderr == b""
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if "=" in entry)
    names = {one.original_name: one.disambiguated_name for one in made.group_remappings["my.task.0"]}
    assert [found[names[f"V{number}"]] for number in range(len(VALUES))] == VALUES
    assert found[names["H"]] == NASTY
    (other,) = made.group_remappings["deployment"]
    assert found[other.disambiguated_name] == "other's"
    assert "R" not in names
    assert [one.original_name for one in made.runtime_vars["my.task.0"]] == ["R"]
    assert not Path("/tmp/evalmake-was-here").exists()


def test_without_values_the_file_is_empty_as_the_launcher_s() -> None:
    for groups in ({}, {"g": {}}, {"g": {"R": env_vars.EnvVarRuntime("X")}}):
        made = env_vars.generate_secrets_env(groups)
        assert replacements.quoted(made, groups) == made.secrets_content == ""


# ---- The export job ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_export_job_and_we_write_to_the_same_wandb_run_with_the_key_out_of_the_secrets_file(
    cluster: ClusterDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's export.sbatch, run by a real bash with stand-ins for srun and pip, and its real exporter with the real SDK."""
    lustre, tools, venv = tmp_path / "lustre", tmp_path / "bin", Path(sys.executable).parent
    sections = config()
    sections["execution"] |= {"output_dir": str(lustre), "auto_export": {"enabled": True, "destinations": ["wandb"]}}
    with WandbDouble() as double:
        values = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": double.url, "WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT}
        for name, value in {**values, "MY_TOKEN": "hf_$ecret", "MY_WORD": NASTY}.items():
            monkeypatch.setenv(name, value)
        wandb = {"mode": "online", "server": double.url, "entity": ENTITY, "project": PROJECT}
        data = launcher_config({**sections, "run": {}}, run, wandb=wandb)
        submission = Submission(CLUSTER, run, SEAL)
        api.run_eval(data, None, job_scripts.submitting(submission))
        name = "hellaswag.2"
        there = Path(submission.remote_dir) / name
        for file, content in cluster.sent.items():
            if KEY.encode() in content:
                assert file.endswith("/.secrets.env"), file
            (Path(submission.remote_dir) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(submission.remote_dir) / file).write_bytes(content)
        script = cluster.sent[f"{name}/run.sub"].decode()
        (sbatch,) = re.findall(r"<< 'EXPORT_EOF'\n(.*?)\nEXPORT_EOF\n", script, re.DOTALL)
        (settings,) = re.findall(r"cat > export_config.yml << 'EOF'\n(.*?)\nEOF\n", script, re.DOTALL)
        artifacts = there / "artifacts"
        artifacts.mkdir()
        (artifacts / "export_config.yml").write_text(settings)
        scores = {"acc": {"scores": {"acc": {"value": 0.5, "stats": {"stderr": 0.25, "count": 4}}}}}
        result = {"results": {"tasks": {"hellaswag": {"metrics": scores}}}, "config": {"type": "lm-eval.hellaswag"}}
        result["target"] = {"api_endpoint": {"model_id": "m"}}
        (artifacts / "results.yml").write_text(json.dumps(result))
        (artifacts / "metadata.yaml").write_text(json.dumps({"launcher_resolved_config": data}))
        (artifacts / "run_config.yml").write_text(json.dumps(result))
        (artifacts / "eval_factory_metrics.json").write_text("{}")
        tools.mkdir()
        (tools / "srun").write_text('#!/bin/bash\nwhile [ "$1" != bash ]; do shift; done\nexec "$@"\n')
        (tools / "pip").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/installed\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        home = tmp_path / "elsewhere"
        home.mkdir()
        environ = {"PATH": f"{tools}:{venv}:{os.environ['PATH']}", "HOME": str(home), "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0"}
        for _ in range(2):
            done = subprocess.run(["bash", "-c", sbatch], env=environ, capture_output=True, text=True, timeout=120, check=False)
            assert "'successful_jobs': 1" in done.stdout, done.stdout + done.stderr
        assert f"wandb=={version('wandb')}" in (tmp_path / "installed").read_text().splitlines()
        known = run_id(submission.invocation_id, name)
        held = double.run(known)
        assert list(double.runs) == [(ENTITY, PROJECT, known)]
        assert held.summary["hellaswag_acc"] == 0.5
        assert "hellaswag_acc_stderr" not in held.summary, "what the launcher's exporter leaves out"
        assert double.keys_seen() == {KEY, None}
