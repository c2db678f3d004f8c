"""dev/launcher_keys.py and scripts/extract_launcher_keys.py: every key that the pinned launcher knows, and nothing that it does not."""

import json
import re
import subprocess
import sys

import pytest

from checkout import ROOT
from helpers.config import schema_keys
from helpers.dev import launcher_keys

COMMITTED = json.loads(launcher_keys.OUTPUT.read_text())
KEYS = COMMITTED["keys"]
SCRIPT = ROOT / "scripts" / "extract_launcher_keys.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def extracted():
    return launcher_keys.extract()


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
    assert KEYS[key]


def test_each_kind_of_place_is_named_without_absolute_paths():
    places = {place for found in KEYS.values() for place in found}
    assert {place.split(" nemo")[0] for place in places} == {"default file", "model", "code"}
    assert [place for place in places if not re.fullmatch(r"(default file|model|code) nemo_evaluator[\w/.]+(:\d+)?", place)] == []
    assert KEYS["execution.cpu_partition"] == [
        "code nemo_evaluator_launcher/executors/slurm/executor.py:1200",
        "default file nemo_evaluator_launcher/configs/execution/slurm/default.yaml",
    ]


def test_what_is_named_stands_in_that_line():
    folder = launcher_keys._folder(launcher_keys.LAUNCHER).parent
    checked = 0
    for key, places in KEYS.items():
        last = key.rpartition(".")[2]
        for place in places:
            _, _, where = place.rpartition(" ")
            name, _, line = where.partition(":")
            # The line begins the statement; what a template names stands elsewhere.
            if (
                place.startswith("code")
                and last != "*"
                and not key.startswith(("auxiliary_deployments.*", "evaluation.tasks", "evaluation.nemo"))
            ):
                lines = (folder / name).read_text().splitlines()[int(line) - 1 : int(line) + 12]
                assert last in "\n".join(lines), (key, place)
                checked += 1
    assert checked > 100


def test_the_dead_code_of_the_launcher_gives_no_keys():
    assert "deployment.haproxy_port" not in KEYS
    assert "deployment.health_check_status" not in KEYS


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


def test_the_launcher_is_not_imported():
    code = "import sys; from helpers.dev import launcher_keys; launcher_keys.extract(); sys.exit('nemo_evaluator_launcher' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_check_passes_on_the_committed_file_and_names_what_differs(tmp_path):
    assert run("--check").returncode == 0
    other = tmp_path / "keys.json"
    keys = {key: places for key, places in KEYS.items() if key != "execution.account"} | {"execution.gone": []}
    other.write_text(json.dumps({**COMMITTED, "keys": keys}))
    done = run("--check", "--out", str(other))
    assert done.returncode == 1
    assert "new: execution.account; gone: execution.gone" in done.stderr


def test_written_twice_it_is_the_same_byte_for_byte(tmp_path):
    assert run("--out", str(tmp_path / "a.json")).returncode == 0
    assert (tmp_path / "a.json").read_bytes() == launcher_keys.OUTPUT.read_bytes()
    assert run("--out", "-").stdout == launcher_keys.OUTPUT.read_text()
