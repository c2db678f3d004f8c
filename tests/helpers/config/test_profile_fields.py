"""Every field of a profile has its effect on the compiled config, and on what the launcher submits, or says that it has none."""

from __future__ import annotations

import json
import re
import shlex
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
FLAGS = "execution.sbatch_extra_flags"
# field: its line, the key and value that it gives, what the sbatch script holds (None: nothing of it).
SLURM_FIELDS: dict[str, tuple[str, str, Any, str | None]] = {
    "executor": ("", "run.env.executor", "slurm", None),
    "account": ("", "execution.account", "acc", "#SBATCH --account acc"),
    "partition": ("", "execution.partition", "part", "#SBATCH --partition part"),
    "run_partition": ('run_partition = "rp"', "execution.partition", "rp", "#SBATCH --partition rp"),
    "nodes": ("nodes = 2", "execution.num_nodes", 2, "#SBATCH --nodes 2"),
    "ntasks_per_node": ("ntasks_per_node = 4", "execution.ntasks_per_node", 4, "#SBATCH --ntasks-per-node 4"),
    "gpus_per_node": ("gpus_per_node = 4", "execution.gres", "gpu:4", "#SBATCH --gres gpu:4"),
    "gres": ('gres = "gpu:h100:4,nvme:1"', "execution.gres", "gpu:h100:4,nvme:1", "#SBATCH --gres gpu:h100:4,nvme:1"),
    "cpus_per_task": ("cpus_per_task = 16", "execution.sbatch_extra_flags.cpus-per-task", 16, "#SBATCH --cpus-per-task 16"),
    "time": ('time = "04:00:00"', "execution.walltime", "04:00:00", "#SBATCH --time 04:00:00"),
    "mem": ('mem = "100G"', "execution.sbatch_extra_flags.mem", "100G", "#SBATCH --mem 100G"),
    "exclusive": ("exclusive = false", "execution.sbatch_extra_flags.exclusive", False, None),
    "qos": ("qos = 'a b'", f"{FLAGS}.qos", "a b", "#SBATCH --qos 'a b'"),
    "constraint": ('constraint = "h100&$x|a;b"', f"{FLAGS}.constraint", "h100&$x|a;b", "#SBATCH --constraint 'h100&$x|a;b'"),
    "reservation": ('reservation = "team"', f"{FLAGS}.reservation", "team", "#SBATCH --reservation team"),
    "nodelist": ('nodelist = "n[1-4]"', f"{FLAGS}.nodelist", "n[1-4]", "#SBATCH --nodelist 'n[1-4]'"),
    "exclude": ('exclude = "n7"', f"{FLAGS}.exclude", "n7", "#SBATCH --exclude n7"),
    "licenses": ('licenses = "matlab:1"', f"{FLAGS}.licenses", "matlab:1", "#SBATCH --licenses matlab:1"),
    "mail_type": ('mail_type = "END,FAIL"', f"{FLAGS}.mail-type", "END,FAIL", "#SBATCH --mail-type END,FAIL"),
    "mail_user": ('mail_user = "me@x.example"', f"{FLAGS}.mail-user", "me@x.example", "#SBATCH --mail-user me@x.example"),
    "comment": (
        """comment = 'costs $5; "cheap"'""",
        "execution.sbatch_comment",
        'costs $5; "cheap"',
        """#SBATCH --comment 'costs $5; "cheap"'""",
    ),
    "mounts": ('mounts = ["/data:/d"]', "execution.mounts.evaluation./data", "/d", "/data:/d"),
    "startup_commands": (
        'startup_commands = ["module load x", "true"]',
        "deployment.pre_cmd",
        "module load x\ntrue",
        "deployment_pre_cmd.sh",
    ),
    "env_vars": ('env_vars = { LOG_LEVEL = "debug" }', "env_vars.LOG_LEVEL", "lit:debug", "--container-env LOG_LEVEL"),
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


@pytest.mark.slow
def test_gpus_may_have_a_type_and_gres_overrides_their_number(tmp_path: Path, clean_env: dict[str, str]) -> None:
    config = compile_text(tmp_path, OPEN, PROFILE + 'gpus_per_node = "h100:8"\n', "C").config
    assert "#SBATCH --gres gpu:h100:8\n" in sbatch_script(config)
    done = compile_text(tmp_path, OPEN, PROFILE + 'gpus_per_node = "h100:8"\ngres = "gpu:a100:4"\n', "C")
    assert [(one.value, one.set_by.rpartition("/")[2]) for one in done.keys["execution.gres"]][1:] == [
        ("gpu:h100:8", "env.toml:13 [C]"),
        ("gpu:a100:4", "env.toml:14 [C]"),
    ]


@pytest.mark.slow
def test_text_for_sbatch_is_one_argument_and_one_that_sbatch_cannot_read_is_refused(tmp_path: Path, clean_env: dict[str, str]) -> None:
    nasty = """it's "so"; $HOME `id` # *"""
    config = compile_text(tmp_path, OPEN, PROFILE + "".join(f"{name} = {json.dumps(nasty)}\n" for name in ("qos", "comment")), "C").config
    text = sbatch_script(config)
    for flag in ("qos", "comment"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"#SBATCH --{flag}"))
        assert shlex.split(line, comments=False)[1:] == [f"--{flag}", nasty]
    for bad in ("a\nb", "a\\b"):  # sbatch drops a backslash, also between quotes
        with pytest.raises(BadInput, match=r"env\.toml:13 \[C\]: comment: .*without a backslash"):
            compile_text(tmp_path, OPEN, PROFILE + f"comment = {json.dumps(bad)}\n", "C")
    for bad in ('""', '"a\\\\b"'):  # for an empty value sbatch takes the next option
        with pytest.raises(BadInput, match=r"mine\.yaml:5: execution\.sbatch_extra_flags\.qos: .*not empty, no backslash"):
            compile_text(tmp_path, OPEN + f"execution: {{sbatch_extra_flags: {{qos: {bad}}}}}\n", PROFILE, "C")


def test_an_option_of_sbatch_is_the_configs_then_the_profiles_then_its_parents_and_explain_says_whose(tmp_path: Path) -> None:
    env = PROFILE.replace("[C]", "[P]") + 'qos = "parent"\nexclude = "n1"\nreservation = "old"\n'
    env += '\n[C]\nextends = "P"\nqos = "profile"\nreservation = ""\n'
    done = compile_text(tmp_path, OPEN, env, "C")
    flags = done.config["execution"]["sbatch_extra_flags"]
    assert flags == {"exclusive": True, "qos": "profile", "exclude": "n1"}
    assert done.keys[f"{FLAGS}.qos"][-1].set_by.endswith("env.toml:19 [C]")
    assert done.keys[f"{FLAGS}.exclude"][-1].set_by.endswith("env.toml:14 [P]")
    own = "execution: {sbatch_extra_flags: {qos: config}}\n"
    done = compile_text(tmp_path, OPEN + own, env, "C")
    assert done.config["execution"]["sbatch_extra_flags"]["qos"] == "config"
    assert any("qos has no effect" in notice and f"mine.yaml:5 sets {FLAGS}.qos" in notice for notice in done.notices)
    done = compile_text(tmp_path, OPEN + own, env, "C", overrides=[f"{FLAGS}.qos=typed"])
    assert done.config["execution"]["sbatch_extra_flags"]["qos"] == "typed"
    assert done.keys[f"{FLAGS}.qos"][-1].set_by == f"SET {FLAGS}.qos"


@pytest.mark.parametrize("flag", ["clusters", "cluster", "cluster-constraint"])
def test_another_cluster_of_a_federation_is_refused_with_the_fix(flag: str, tmp_path: Path) -> None:
    words = f'{FLAGS}\\.{flag}: "gaea": expected no value: .*-M is not supported; make a login node of that cluster the host'
    with pytest.raises(BadInput, match=rf"mine\.yaml:5: {words}"):
        compile_text(tmp_path, OPEN + f"execution: {{sbatch_extra_flags: {{{flag}: gaea}}}}\n", PROFILE, "C")
    with pytest.raises(BadInput, match=f"SET .*{words}"):
        compile_text(tmp_path, OPEN, PROFILE, "C", overrides=[f"{FLAGS}.{flag}=gaea"])
    compile_text(tmp_path, OPEN + f"execution: {{sbatch_extra_flags: {{{flag}: null}}}}\n", PROFILE, "C")


# A profile of the kind that the training recipes generate: values from the environment, fields for builds, and variables in a child too.
TRAINING = """
[wandb]
project = "nemotron"
entity = "${oc.env:WANDB_ENTITY,team}"

[base]
executor = "slurm"
tunnel = "ssh"
host = "${oc.env:SLURM_HOST,login.example.com}"
user = "${oc.env:ME}"
account = "${oc.env:SLURM_ACCOUNT,acc}"
partition = "${oc.env:SLURM_PARTITION,batch}"
container_image = "nvcr.io/nvidia/nemo:25.11"
remote_job_dir = "${oc.env:NEMO_RUN_DIR,/lustre/${oc.env:ME}/nemo-run}"
mounts = ["/lustre:/lustre"]
lustre_mount = ""
nodes = 1
ntasks_per_node = 8
gpus_per_node = 8
time = "02:00:00"
build_image = "docker://quay.io#podman/stable:v5.3"
build_cache_dir = "/lustre/cache"
build_gpus_per_node = 0
env_vars = { HF_TOKEN = "${oc.env:HF_TOKEN,''}", HF_HOME = "${oc.env:HF_HOME,/lustre/${oc.env:ME}/hf}", RAY_DEDUP_LOGS = "0" }

[C]
extends = "base"
env_vars = { EVAL_OUTPUT_DIR = "/lustre/${oc.env:ME}/output" }
"""


def test_a_profile_of_the_training_recipes_works_as_it_is(
    tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ME", "ann")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrst")
    done = compile_text(tmp_path, OPEN, TRAINING, "C")
    execution = done.config["execution"]
    assert (execution["hostname"], execution["username"], execution["account"]) == ("login.example.com", "ann", "acc")
    assert execution["output_dir"] == "/lustre/ann/nemo-run/evaluations"
    assert done.config["env_vars"] == {
        "HF_TOKEN": "host:HF_TOKEN",
        "HF_HOME": "lit:/lustre/ann/hf",
        "RAY_DEDUP_LOGS": "lit:0",
        "EVAL_OUTPUT_DIR": "lit:/lustre/ann/output",
    }
    assert "hf_" not in json.dumps(done.config)
    assert {found[1] for notice in done.notices if (found := re.search(r": (\w+) has no effect", notice))} == {
        *("lustre_mount", "build_image", "build_cache_dir", "container_image"),  # the config has an image
    }


# ---- Environment variables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_variables_reach_the_server_and_the_evaluation(tmp_path: Path, clean_env: dict[str, str]) -> None:
    line = 'env_vars = { LOG_LEVEL = "debug", HF_TOKEN = "host:HF_TOKEN" }\n'
    text = sbatch_script(compile_text(tmp_path, OPEN, PROFILE + line, "C").config)
    given = [set(found.split(",")) for found in re.findall(r"--container-env (\S+)", text)]
    assert len(given) == 2
    assert all({"LOG_LEVEL", "HF_TOKEN"} <= names for names in given)


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ('"host:OTHER"', "host:OTHER"),
        ('"lit:host:x"', "lit:host:x"),
        ('"runtime:X"', "runtime:X"),
        ('"$OTHER"', "host:OTHER"),
        ('"${oc.env:OTHER}"', "host:OTHER"),
        ("\"${oc.env:A_TOKEN,''}\"", "host:A_TOKEN"),
        ('"${oc.env:NOT_SET,word}"', "lit:word"),
        ('"${oc.env:NOT_SET,/lustre/${oc.env:ME}/hf}"', "lit:/lustre/ann/hf"),
        ('"nemotron"', "lit:nemotron"),
        ("0", "lit:0"),
        ("true", "lit:true"),
        ('"two words; $5"', "lit:two words; $5"),
    ],
)
def test_a_variable_has_a_prefix_or_is_the_text_itself(value: str, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ME", "ann")
    monkeypatch.setenv("A_TOKEN", "hf_abcdefghijklmnopqrst")
    done = compile_text(tmp_path, OPEN, PROFILE + f"[C.env_vars]\nX = {value}\n", "C")
    assert done.config["env_vars"] == {"X": made}
    assert done.notices == []
    assert done.keys["env_vars.X"][-1].set_by.startswith(f"{tmp_path}/env.toml:14 [C]")


def test_variables_of_a_parent_stay_and_the_configs_own_win(tmp_path: Path) -> None:
    env = PROFILE.replace("[C]", "[P]") + 'env_vars = { A = "p", B = "p", D = "p" }\n'
    env += '[C]\nextends = "P"\nenv_vars = { B = "c" }\n'
    done = compile_text(tmp_path, OPEN + "env_vars: {D: 'lit:own'}\n", env, "C")
    assert done.config["env_vars"] == {"A": "lit:p", "B": "lit:c", "D": "lit:own"}
    assert done.keys["env_vars.A"][-1].set_by.endswith("env.toml:13 [P]")
    assert done.keys["env_vars.B"][-1].set_by.endswith("env.toml:16 [C]")
    assert [notice.partition(" [")[2] for notice in done.notices] == [
        f"P]: env_vars.D has no effect: {tmp_path}/mine.yaml:5 sets env_vars.D"
    ]


@pytest.mark.parametrize("text", ['env_vars = {{ {0} = "{1}" }}', '[C.env_vars]\n{0} = "{1}"'])
@pytest.mark.parametrize(("name", "value"), [("HF_TOKEN", "abcd1234"), ("HF_TOKEN", "lit:abcd1234"), ("X", "hf_abcdefghijklmnopqrst")])
def test_a_variable_with_a_secret_in_it_is_refused_with_the_name_to_write(text: str, name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf'env\.toml:1[34] \[C\.env_vars\]: .*\.env.* and write {name} = "host:HF_TOKEN" here$') as caught:
        compile_text(tmp_path, OPEN, PROFILE + text.format(name, value) + "\n", "C")
    assert "abcd" not in str(caught.value)


@pytest.mark.parametrize("text", ['env_vars = ["X"]', 'env_vars = "X"', 'env_vars = { "a b" = "x" }', 'env_vars = { A = "host:1" }'])
def test_variables_of_another_form_are_refused_with_their_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"env\.toml:13 \[C\]: env_vars.*: expected "):
        compile_text(tmp_path, OPEN, PROFILE + text + "\n", "C")


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
    assert not any("env_vars" in notice for notice in notices)
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
