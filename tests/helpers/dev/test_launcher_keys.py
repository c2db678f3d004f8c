"""dev/launcher_keys.py and scripts/extract_launcher_keys.py: every key that the pinned launcher knows, and no other."""

import json
import re
import subprocess
import sys

import pytest

from checkout import ROOT
from helpers.config import config_files, schema_keys
from helpers.dev import launcher_keys

COMMITTED = json.loads(launcher_keys.OUTPUT.read_text())
KEYS = COMMITTED["keys"]
SCRIPT = ROOT / "scripts" / "extract_launcher_keys.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def extracted():
    return launcher_keys.extract()


@pytest.mark.slow
def test_the_committed_file_is_what_the_installed_launcher_says(extracted):
    assert extracted == COMMITTED


@pytest.mark.parametrize(
    "key",
    [
        # Read by its code, but in none of its default files.
        "deployment.hf_model_handle",
        "deployment.cache_path",
        "deployment.pre_cmd",
        "deployment.lepton_config",
        "deployment.lepton_config.mounts.enabled",
        "execution.auto_export.destinations",
        "execution.auto_export.export_image",
        "execution.auto_export.export_mounts",
        "execution.auto_export.launcher_install_cmd",
        "execution.cpu_partition",
        "execution.gpus_per_node",
        "execution.evaluation_gpu_visible",
        "execution.mounts.deployment.*",
        "execution.mounts.evaluation.*",
        "execution.mounts.mount_home",
        "execution.num_instances",
        "execution.proxy.config.haproxy_port",
        "execution.proxy.image",
        "execution.sbatch_extra_flags",
        "execution.sbatch_extra_flags.*",
        "execution.lepton_platform.tasks.mounts.*.path",
        "target.api_endpoint.api_key_name",
        "export.env_vars",
        "user_config_path",
        # Through local names, an object of its own, and a template.
        "auxiliary_deployments.*.env_prefix",
        "auxiliary_deployments.*.cache_path",
        "auxiliary_deployments.*.endpoints.health",
        "auxiliary_deployments.*.gpu_memory_utilization",
        # Its models, and those of nemo-evaluator.
        "execution.mounts.auxiliary",
        "evaluation.tasks.*.dataset_mount_path",
        "export.wandb.log_mode",
        "export.wandb.copy_logs",
        "export.mlflow.tracking_uri",
        "export.gsheets.spreadsheet_id",
        "export.local.format",
        "evaluation.nemo_evaluator_config.config.params.limit_samples",
        "evaluation.nemo_evaluator_config.target.api_endpoint.adapter_config.process_reasoning_traces",
        # Its default files, and what they interpolate.
        "execution.walltime",
        "deployment.base_command",
        "deployment.distributed_executor_backend",
    ],
)
def test_a_key_that_the_launcher_knows_is_found(key):
    assert any(f"{known}.".startswith(f"{key}.") for known in KEYS)


def test_each_kind_of_place_is_named_without_absolute_paths():
    places = {place for found in KEYS.values() for place in found}
    assert {re.match(r"default file|model|code", place)[0] for place in places} == {"default file", "model", "code"}
    assert [place for place in places if not re.fullmatch(r"(default file nemo_evaluator|model nemo_evaluator)[\w/.]+|code", place)] == []
    assert KEYS["execution.walltime"] == ["default file nemo_evaluator_launcher/configs/execution/slurm/default.yaml"]


# Of the launcher's code, the parts that read a config of an evaluation.
CODE = {
    path: path.read_text()
    for path in sorted(config_files.launcher_configs().parent.rglob("*.py"))
    if not path.relative_to(config_files.launcher_configs().parent).as_posix().startswith(("watcher", "cli", "common/container_metadata"))
}


@pytest.mark.parametrize("key", [key for key in launcher_keys.read_by_code() if not key.endswith("*")])
def test_a_key_of_the_list_by_hand_is_read_by_the_code_and_stands_nowhere_else(key, extracted):
    assert extracted["keys"][key] == ["code"]
    last = key.rpartition(".")[2]
    assert any(re.search(rf"""[."'{{]{last}\b""", text) for text in CODE.values())


# Read by functions of the launcher that nothing calls.
DEAD = {"deployment.haproxy_port", "deployment.health_check_status"}


def test_what_the_code_reads_directly_is_known():
    """`cfg.execution.x`, `cfg["execution"]["x"]` and `cfg.execution.get("x")`: a new key in them fails here."""
    read = set()
    for text in CODE.values():
        for chain in re.findall(r'\bcfg((?:(?:\.(?:get|pop)\(\s*|\[)"\w+"(?:,[^(),\[\]]*)?[)\]]|\.\w+\b(?!\())+)', text):
            read.add(".".join(name for name in re.findall(r'(?:\(\s*"|\["|\.)(\w+)', chain) if name not in ("get", "pop")))
    read = {key for key in read if key.partition(".")[0] in launcher_keys.SECTIONS and not key.startswith(tuple(COMMITTED["refused"]))}
    unknown = {key for key in read if not any(f"{known}.".startswith(f"{key}.") for known in KEYS)}
    assert len(read) > 60
    assert unknown == DEAD


def test_each_key_is_in_the_schema_of_configs_or_below_a_free_form_one():
    concrete = {key.replace(".*", ".0") if "tasks" in key or "mounts.*" in key else key.replace("*", "x") for key in KEYS}
    concrete = {key.removesuffix(".0").removesuffix(".x") for key in concrete}
    lists = (".interceptors.*", ".post_eval_hooks.*", ".api_tokens.*")
    concrete = {key for key in concrete if not any(name.replace("*", "x") in key for name in lists)}
    assert [key for key in sorted(concrete) if not schema_keys.is_known(key)] == []
    assert len(concrete) > 300


def test_what_the_launcher_refuses_is_no_key_of_its_own_and_an_old_form_in_ours():
    for key in COMMITTED["refused"]:
        assert key not in KEYS
        schema = schema_keys.subschema(key.replace("*", "0"))
        assert schema is None or schema["deprecated"]


@pytest.mark.slow
def test_check_passes_on_the_committed_file_and_names_what_differs(tmp_path):
    assert run("--check").returncode == 0
    other = tmp_path / "keys.json"
    keys = {key: places for key, places in KEYS.items() if key != "execution.account"} | {"execution.gone": []}
    other.write_text(json.dumps({**COMMITTED, "keys": keys}))
    done = run("--check", "--out", str(other))
    assert done.returncode == 1
    assert "new: execution.account; missing: execution.gone" in done.stderr


@pytest.mark.slow
def test_written_twice_it_is_the_same_byte_for_byte(tmp_path):
    assert run("--out", str(tmp_path / "a.json")).returncode == 0
    assert (tmp_path / "a.json").read_bytes() == launcher_keys.OUTPUT.read_bytes()
    assert run("--out", "-").stdout == launcher_keys.OUTPUT.read_text()
