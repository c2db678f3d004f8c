"""Every field of a profile has its effect on the compiled config, and on what the launcher submits, or says that it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiled import HOSTED, PROFILE, at, compile_text
from helpers.common.errors import BadInput
from helpers.config import clusters, profile_fields
from helpers.executors import registry

OPEN = """
defaults: [{execution: slurm/default}, {deployment: generic}, _self_]
deployment: {checkpoint_path: /c, command: serve, image: i}
evaluation: {tasks: [{name: hellaswag}]}
"""
# field: its line, the key and value that it gives, what the sbatch script holds (None: nothing of it).
SLURM_FIELDS: dict[str, tuple[str, str, Any, str | None]] = {
    "executor": ("", "run.env.executor", "slurm", None),
    "account": ("", "execution.account", "acc", "#SBATCH --account acc"),
    "partition": ("", "execution.partition", "part", "#SBATCH --partition part"),
    "run_partition": ('run_partition = "rp"', "execution.partition", "rp", "#SBATCH --partition rp"),
    "nodes": ("nodes = 2", "execution.num_nodes", 2, "#SBATCH --nodes 2"),
    "ntasks_per_node": ("ntasks_per_node = 4", "execution.ntasks_per_node", 4, "#SBATCH --ntasks-per-node 4"),
    "gpus_per_node": ("gpus_per_node = 4", "execution.gres", "gpu:4", "#SBATCH --gres gpu:4"),
    "cpus_per_task": ("cpus_per_task = 16", "execution.sbatch_extra_flags.cpus-per-task", 16, "#SBATCH --cpus-per-task 16"),
    "time": ('time = "04:00:00"', "execution.walltime", "04:00:00", "#SBATCH --time 04:00:00"),
    "mem": ('mem = "100G"', "execution.sbatch_extra_flags.mem", "100G", "#SBATCH --mem 100G"),
    "exclusive": ("exclusive = false", "execution.sbatch_extra_flags.exclusive", False, None),
    "mounts": ('mounts = ["/data:/d"]', "execution.mounts.evaluation./data", "/d", "/data:/d"),
    "startup_commands": (
        'startup_commands = ["module load x", "true"]',
        "deployment.pre_cmd",
        "module load x\ntrue",
        "deployment_pre_cmd.sh",
    ),
    "container_image": ('container_image = "nemo:1"', "deployment.image", "nemo:1", "--container-image nemo:1"),
    "container": ('container = "nemo:1"', "deployment.image", "nemo:1", "--container-image nemo:1"),
    "remote_job_dir": ("", "execution.output_dir", "/remote/evaluations", "/remote/evaluations"),
    "tunnel": ('tunnel = "ssh"', "run.env.tunnel", "ssh", None),
    "host": ("", "execution.hostname", "host.example", None),
    "user": ("", "execution.username", "me", None),
    "identity": ('identity = "~/.ssh/id"', "run.env.identity", "~/.ssh/id", None),
    "port": ("port = 2222", "run.env.port", 2222, None),
    "build_partition": ('build_partition = "cpu"', "run.env.build_partition", "cpu", None),
    "build_time": ('build_time = "01:00:00"', "run.env.build_time", "01:00:00", None),
    "build_include_gpus": ("build_include_gpus = true", "run.env.build_include_gpus", True, None),
    "build_gpus_per_node": ("build_gpus_per_node = 1", "run.env.build_gpus_per_node", 1, None),
    "wandb": ('wandb = {project = "q"}', "run.wandb.project", "q", None),
}


def value_of(config: dict[str, Any], key: str) -> Any:
    parent, _, last = key.partition("./")
    return at(config, parent)[f"/{last}"] if last else at(config, key)


def sbatch_script(config: dict[str, Any]) -> str:
    """The script that a compiled config with one task submits."""
    data = {name: section for name, section in config.items() if name != "run"}
    executor = registry.get(config["execution"]["type"])
    executor.complete(data, None)
    [(_, text)] = executor.job_scripts(data)
    return text


@pytest.mark.slow
@pytest.mark.parametrize("field", SLURM_FIELDS)
def test_a_field_has_its_effect_on_a_slurm_config_and_on_the_script_that_is_submitted(
    field: str, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    line, key, value, script = SLURM_FIELDS[field]
    done = compile_text(tmp_path, OPEN.replace(", image: i", "" if "container" in field else ", image: i"), PROFILE + line + "\n", "C")
    assert value_of(done.config, key) == value
    assert "env.toml:" in done.keys[key][-1].set_by
    assert not any(f"{field} has no effect" in text for text in done.notices)
    if script:
        text = sbatch_script(done.config)
        assert script in text


def test_every_field_of_the_table_is_tested() -> None:
    assert set(profile_fields.FIELDS) == {*SLURM_FIELDS, "extends", "batch_partition"}


@pytest.mark.parametrize(("mode", "partition"), [("eval", "rp"), ("dry-run", "rp"), ("batch", "bp")])
@pytest.mark.parametrize("own", ["", "execution: {partition: '${run.env.partition}'}\n"])
def test_eval_and_batch_go_to_their_own_partitions(mode: str, partition: str, own: str, tmp_path: Path) -> None:
    done = compile_text(tmp_path, OPEN + own, PROFILE + 'run_partition = "rp"\nbatch_partition = "bp"\n', "C", mode=mode)
    assert done.config["execution"]["partition"] == partition
    assert not any("partition" in text for text in done.notices)


@pytest.mark.parametrize("mode", ["eval", "batch"])
def test_without_them_partition_counts(mode: str, tmp_path: Path) -> None:
    assert compile_text(tmp_path, OPEN, PROFILE, "C", mode=mode).config["execution"]["partition"] == "part"


@pytest.mark.slow
def test_exclusive_false_takes_the_launchers_default_away(tmp_path: Path, clean_env: dict[str, str]) -> None:
    for line, count in (("", 1), ("exclusive = false\n", 0), ("exclusive = true\n", 1)):
        config = compile_text(tmp_path, OPEN, PROFILE + line, "C").config
        text = sbatch_script(config)
        assert text.count("#SBATCH --exclusive") == count


@pytest.mark.slow
def test_no_gpus_means_no_gres(tmp_path: Path, clean_env: dict[str, str]) -> None:
    config = compile_text(tmp_path, OPEN, PROFILE + "gpus_per_node = 0\n", "C").config
    text = sbatch_script(config)
    assert "--gres" not in text


def test_the_container_image_is_the_deployments_where_the_config_leaves_it_open(tmp_path: Path) -> None:
    text = OPEN.replace(", image: i", "")
    assert compile_text(tmp_path, text, PROFILE + 'container_image = "nemo:1"\n', "C").config["deployment"]["image"] == "nemo:1"
    done = compile_text(tmp_path, OPEN, PROFILE + 'container_image = "nemo:1"\n', "C")
    assert done.config["deployment"]["image"] == "i"
    assert any("container_image has no effect" in notice and "mine.yaml:3 sets deployment.image" in notice for notice in done.notices)


def test_on_a_login_node_the_host_is_this_one(tmp_path: Path) -> None:
    env = PROFILE.replace('host = "host.example"', 'tunnel = "local"')
    assert compile_text(tmp_path, OPEN, env, "C").config["execution"]["hostname"] == "localhost"


@pytest.mark.parametrize(
    ("word", "kind", "without"),
    [
        ("local", "process", {"account", "nodes", "mem", "mounts", "startup_commands", "container_image", "remote_job_dir", "tunnel"}),
        ("docker", "docker", {"account", "nodes", "mem", "startup_commands", "remote_job_dir", "tunnel"}),
    ],
)
def test_a_field_that_only_slurm_uses_says_that_it_has_no_effect(word: str, kind: str, without: set[str], tmp_path: Path) -> None:
    env = f"""
[D]
executor = "{word}"
account = "a"
nodes = 2
mem = "1G"
mounts = ["/x"]
startup_commands = ["true"]
container_image = "i"
remote_job_dir = "/r"
tunnel = "ssh"
"""
    text = f"execution: {{type: {kind}, output_dir: o}}\n" + HOSTED.partition("\n")[2].partition("\n")[2]
    if kind != "process":
        text = f"execution: {{type: {kind}, output_dir: o}}\ndeployment: {{type: vllm, checkpoint_path: /c}}\n"
        text += "evaluation: {tasks: [{name: hellaswag}]}\n"
    notices = compile_text(tmp_path, text, env, "D").notices
    said = {field for field in profile_fields.FIELDS for notice in notices if f": {field} has no effect" in notice}
    assert said - {"container_image"} == without - {"container_image"}


def test_what_the_config_says_wins_over_the_profile_with_a_notice(tmp_path: Path) -> None:
    done = compile_text(tmp_path, OPEN + "execution: {num_nodes: 3}\n", PROFILE + "nodes = 2\n", "C")
    assert done.config["execution"]["num_nodes"] == 3
    assert any("env.toml:13 [C]: nodes has no effect: " in text and "mine.yaml:5 sets execution.num_nodes" in text for text in done.notices)


def test_overrides_win_over_config_and_profile(tmp_path: Path) -> None:
    done = compile_text(tmp_path, OPEN, PROFILE + "nodes = 2\n", "C", overrides=["execution.num_nodes=5"])
    assert done.config["execution"]["num_nodes"] == 5
    assert any("nodes has no effect: SET execution.num_nodes sets" in text for text in done.notices)


def test_run_env_is_the_configs_below_the_parents_below_the_profiles_below_overrides(tmp_path: Path) -> None:
    env = PROFILE.replace("[C]", "[P]") + 'b = "parent"\nc = "parent"\nd = "parent"\n\n[C]\nextends = "P"\nc = "profile"\nd = "profile"\n'
    text = OPEN + "run: {env: {a: config, b: config, c: config, d: config}}\n"
    found = compile_text(tmp_path, text, env, "C", overrides=["run.env.d=override"]).config["run"]["env"]
    assert [found[name] for name in "abcd"] == ["config", "parent", "profile", "override"]


def test_a_field_that_nobody_knows_is_named_and_can_be_interpolated(tmp_path: Path) -> None:
    done = compile_text(tmp_path, OPEN + "export: {wandb: {project: '${run.env.zone}'}}\n", PROFILE + 'zone = "z"\n', "C")
    assert done.config["export"]["wandb"]["project"] == "z"
    assert any("evalmake does not know the field zone" in text for text in done.notices)


@pytest.mark.parametrize(
    "line", ['mounts = ["relative:/x"]', 'mounts = "/x"', 'startup_commands = "x"', 'wandb = "x"', "gpus_per_node = -1"]
)
def test_a_field_of_the_wrong_kind_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"env\.toml:13 \[C\]: "):
        compile_text(tmp_path, OPEN, PROFILE + line + "\n", "C")


def test_without_a_user_it_is_the_one_that_ssh_would_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ssh_user", lambda host: f"ssh-user-of-{host}")
    text = OPEN + "execution: {username: '${oc.env:USER}'}\n"
    monkeypatch.delenv("USER", raising=False)
    done = compile_text(tmp_path, text, PROFILE.replace('user = "me"\n', ""), "C")
    assert done.config["execution"]["username"] == "ssh-user-of-host.example"
    assert done.keys["execution.username"][-1].set_by == "default: the user that ssh logs in as on host.example"
    assert compile_text(tmp_path, text, PROFILE, "C").config["execution"]["username"] == "me"


def test_ssh_itself_is_asked_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "ssh"
    tool.write_text('#!/bin/sh\nprintf "hostname h\\nuser of-%s-%s\\n" "$1" "$2"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    clusters.ssh_user.cache_clear()
    assert clusters.ssh_user("h") == "of--G-h"
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert clusters.ssh_user("h") == "of--G-h"  # asked once
    monkeypatch.setenv("PATH", "/nowhere")
    assert clusters.ssh_user("other")
    assert clusters.ssh_user("-oProxyCommand=x")
    clusters.ssh_user.cache_clear()
