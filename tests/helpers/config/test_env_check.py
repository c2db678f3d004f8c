"""helpers/config/env_check.py: mistakes and secrets in env.toml are named with file and line, and never shown."""

import re

import pytest

from helpers.common.errors import BadInput
from helpers.config import env_check, profile_fields, profiles

W_AND_B = "0123456789abcdef" * 2 + "01234567"


def check(folder, text, profile=""):
    (folder / "env.toml").write_text(text)
    return env_check.check(profiles.load(folder / "env.toml"), profile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[C]\nexecutor = "slrum"',
            r"env.toml:2 \[C\]: executor: \"slrum\": expected one of process, local, docker, slurm, lepton \(did you mean slurm\?\)",
        ),
        ('[C]\n\nacount = "x"', r"env.toml:3 \[C\]: unknown field acount \(did you mean account\?\)"),
        ('[C]\nremote_jobdir = "/x"', r"did you mean remote_job_dir\?"),
        ('[C]\nwalltime = "1:00:00"', r"unknown field walltime \(did you mean time\?\)"),
        ('[C]\nssh_key = "~/.ssh/id"', r"unknown field ssh_key \(did you mean identity\?\)"),
        ("[C]\ntime = 04:00:00", r'env.toml:2 \[C\]: time: "04:00:00": expected a time in one of Slurm\'s forms, in quotes'),
        ("[C]\ntime = 60", r"time: 60: expected a time"),
        ("[C]\naccount = 123", r'account: 123: expected one word .*; put it in quotes: "123"'),
        ('[C]\nnodes = "2"', r'nodes: "2": expected a whole number; without quotes: 2'),
        ("[C]\nnodes = 0", r"nodes: 0: expected at least 1"),
        ('[C]\nexclusive = "yes"', r'exclusive: "yes": expected true or false'),
        ('[C]\nmounts = "/a:/b"', r'mounts: "/a:/b": expected a list such as'),
        ('[C]\nmounts = ["/a:/b", "c"]', r'mounts.1: "c": expected SOURCE:TARGET with absolute paths'),
        ('[C]\nhost = "-oProxyCommand=x"', r"not beginning with -"),
        ('[C]\nremote_job_dir = "jobs"', r"expected an absolute path on the cluster"),
        ('[C]\ncontainer_image = "a\\nb"', r"expected a container image in one word"),
        ('[C]\ntunnel = "telnet"', r"expected one of ssh, local"),
        ("[C]\nport = 99999", r"port: 99999: expected at most 65535"),
        ("[wandb]\nproject = 3", r"env.toml:2 \[wandb\]: project: 3: expected text on one line"),
        ('[artifacts]\nbackend = "fille"', r"expected one of wandb, file \(did you mean file\?\)"),
        ("[artifacts.manifest]\n\nroot = 3", r"env.toml:3 \[artifacts\]: manifest.root: 3"),
        ("[C.wandb]\nproject = 3", r"env.toml:2 \[C\]: wandb.project: 3"),
        ('[C]\nclusters = "gaea"', r"env.toml:2 \[C\]: clusters: sbatch's -M is not supported; give a login node of that cluster as host"),
        ("account = 'x'", r"account: expected a section \[account\]"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_fix(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        check(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        (f'[wandb]\napi_key = "{W_AND_B}"', "WANDB_API_KEY"),
        (f'[wandb]\nanything = "{W_AND_B}"', "WANDB_API_KEY"),
        ('[C]\nx = "wandb_v1_abcdefghijklmnop"', "WANDB_API_KEY"),
        ('[C]\nhf_token = "hf_abcdefghijklmnopqrst"', "HF_TOKEN"),
        ('[C]\nx = "sk-abcdefghijklmnopqrst"', "OPENAI_API_KEY"),
        ('[C]\nx = "nvapi-abcdefghijklmnopqrst"', "NVIDIA_API_KEY"),
        ('[C]\nx = "ghp_abcdefghijklmnopqrstuvwxyz"', "GITHUB_TOKEN"),
        ('[C]\nx = "-----BEGIN OPENSSH PRIVATE KEY-----"', "NAME"),
        ('[C]\nngc_api_key = "abcd1234"', "NGC_API_KEY"),
        ('[C]\npassword = "hunter2"', "PASSWORD"),
        ('[C]\nclient_secret = "hunter2"', "CLIENT_SECRET"),
        ('[C]\ntoken = "abcd1234"', "TOKEN"),
        ('[C.deep.er]\nmy_token = "abcd1234"', "MY_TOKEN"),
        ('[C]\nstartup_commands = ["true", "export HF_TOKEN=hf_abcdefghijklmnopqrst"]', "HF_TOKEN"),
        ("[C]\nstartup_commands = [\"export MY_TOKEN='abcd12345'\"]", "MY_TOKEN"),
    ],
)
def test_a_secret_is_refused_and_never_shown(tmp_path, text, variable):
    with pytest.raises(BadInput) as caught:
        check(tmp_path, text)
    said = str(caught.value)
    assert f"move it to {tmp_path / '.env'} (mode 0600) as {variable}=…" in said
    assert re.search(r"env.toml:2 \[", said)
    secrets = (W_AND_B, "abcdefgh", "abcd1234", "hunter2", "OPENSSH")
    assert not any(secret in said for secret in secrets)


@pytest.mark.parametrize(
    "line",
    [
        'api_key_name = "OPENAI_API_KEY"',
        'tokenizer = "meta-llama/Llama-3.1-8B"',
        "max_new_tokens = 4096",
        'identity = "~/.ssh/id_ed25519"',
        'private_key = "~/.ssh/id_ed25519"',
        'my_token = ""',
        'my_token = "$MY_TOKEN"',
        'my_token = "host:MY_TOKEN"',
        f'git_revision = "{W_AND_B}"',
        'startup_commands = ["export HF_TOKEN=$HF_TOKEN", "export A_KEY=\\"$A_KEY\\""]',
        'container_image = "nvcr.io/nvidia/nemo@sha256:' + "0123456789abcdef" * 4 + '"',
        'x = "task-sk-1"',
    ],
)
def test_what_only_sounds_like_a_secret_is_none(tmp_path, line):
    check(tmp_path, f'[C]\nexecutor = "slurm"\n{line}\n')


def test_a_field_that_nobody_knows_is_a_notice_with_its_line(tmp_path):
    (notice,) = check(tmp_path, '[C]\nexecutor = "lepton"\nnode_group = "x"\n')
    assert notice == f"{tmp_path}/env.toml:3 [C]: evalmake does not know the field node_group; it is only kept in run.env"


@pytest.mark.parametrize("field", profile_fields.OF_TRAINING)
def test_a_field_of_the_training_recipes_is_named_with_what_to_do_instead(tmp_path, field):
    (notice,) = check(tmp_path, f'[C]\nexecutor = "slurm"\n{field} = "x"\n')
    assert notice == f"{tmp_path}/env.toml:3 [C]: {field} has no effect: {profile_fields.OF_TRAINING[field]}"


def test_with_a_profile_the_mistakes_of_others_are_left_alone_but_not_those_of_its_parents(tmp_path):
    text = '[OTHER]\nacount = "x"\n[BASE]\nexecutor = "slurm"\n[MINE]\nextends = "BASE"\n'
    assert check(tmp_path, text, "MINE") == []
    with pytest.raises(BadInput, match="did you mean account"):
        check(tmp_path, text)
    with pytest.raises(BadInput, match=r"env.toml:4 \[BASE\]: unknown field hots"):
        check(tmp_path, text.replace('executor = "slurm"', 'hots = "h"'), "MINE")


def test_with_a_profile_secrets_are_found_everywhere(tmp_path):
    with pytest.raises(BadInput, match="looks like a secret"):
        check(tmp_path, f'[OTHER]\napi_key = "{W_AND_B}"\n[MINE]\nexecutor = "local"\n', "MINE")


def test_a_circle_of_extends_ends_and_is_left_to_profiles_to_explain(tmp_path):
    assert check(tmp_path, '[A]\nextends = "B"\n[B]\nextends = "A"\n', "A") == []


def test_no_file_and_an_empty_file_are_fine(tmp_path):
    assert env_check.check(profiles.EnvFile()) == []
    assert check(tmp_path, "") == []
