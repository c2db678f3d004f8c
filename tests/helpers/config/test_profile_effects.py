"""helpers/config/profile_effects.py: what env.toml and a profile give to a config, worked out once."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled import PROFILE, SLURM, compile_text
from helpers.common.errors import BadInput
from helpers.config import profile_effects, profiles
from helpers.config.profile_effects import ProfileEffects
from helpers.executors import registry


def resolved(folder: Path, text: str, name: str | None = "C", mode: str = "eval") -> ProfileEffects:
    (folder / "env.toml").write_text(text)
    env = profiles.load(folder / "env.toml")
    if name is None:
        return profile_effects.resolve(env, None, None, mode)
    profile = profiles.get(env, name)
    return profile_effects.resolve(env, profile, profile_effects.executor_of(env, profile, registry), mode)


@pytest.mark.parametrize(
    ("word", "name"), [("local", "process"), ("process", "process"), ("docker", "docker"), ("slurm", "slurm")], ids=lambda word: word
)
def test_the_executor_of_a_profile_has_one_name(word: str, name: str, tmp_path: Path) -> None:
    given = resolved(tmp_path, f'[C]\nexecutor = "{word}"\n')
    assert given.executor == registry.describe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[C]\nhost = 'x'\n", r"env\.toml:1 \[C\]: executor is missing; expected one of process, docker, slurm$"),
        ("[C]\nexecutor = 'slurn'\n", r"env\.toml:2 \[C\]: executor 'slurn' does not exist \(did you mean slurm\?\); there are .*docker"),
        ("[C]\nexecutor = ['slurm']\n", r"env\.toml:2 \[C\]: executor is \['slurm'\]; expected one of process, docker, slurm$"),
        ("[C]\nexecutor = 'lepton'\n", r"env\.toml:2 \[C\]: executor lepton: .* cannot be submitted to Lepton; .* process, docker, slurm$"),
        ("[P]\nexecutor = 'lepton'\n[C]\nextends = 'P'\n", r"env\.toml:2 \[P\]: executor lepton: "),
    ],
)
def test_an_executor_that_is_missing_unknown_or_not_supported_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        resolved(tmp_path, text)


def test_a_profile_for_an_executor_that_is_not_supported_does_not_disturb_others(tmp_path: Path) -> None:
    env = PROFILE + '\n[L]\nexecutor = "lepton"\nnode_group = "x"\n'
    assert compile_text(tmp_path, SLURM.replace("hostname: h, account: a, output_dir: /o", ""), env, "C").notices == []


def test_env_toml_becomes_run_env_and_run_wandb(tmp_path: Path) -> None:
    given = resolved(tmp_path, PROFILE + 'container = "i"\nbatch_partition = "b"\nwandb = {entity = "mine"}\n', mode="batch")
    run = given.node()["run"]
    assert run["wandb"] == {"project": "p", "entity": "mine"}
    assert (run["env"]["container"], run["env"]["partition"], run["env"]["host"]) == ("i", "b", "host.example")


def test_without_a_profile_only_the_sections_count(tmp_path: Path) -> None:
    given = resolved(tmp_path, PROFILE, None)
    assert given.node() == {"run": {"wandb": {"project": "p", "entity": "e"}}}
    assert (given.profile, given.executor, given.effects) == (None, None, ())


def test_a_value_of_the_config_that_uses_a_field_is_recognized_by_all_names_of_the_field(tmp_path: Path) -> None:
    given = resolved(tmp_path, PROFILE + 'container_image = "i"\nrun_partition = "r"\n')
    assert given.is_used_in("${run.env.container_image}", "container_image")
    assert given.is_used_in("${run.env.container}", "container_image")
    assert given.is_used_in("${run.env.partition}", "run_partition")
    assert not given.is_used_in("${run.env.partition}", "account")
    assert not given.is_used_in("i", "container_image")
