"""env.toml: found by walking up, its extends chains, its reserved sections, and every place by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.common.errors import BadInput
from helpers.config import profiles

CHAIN = """\
[wandb]
project = "p"

[A]
executor = "slurm"
host = "a"
nodes = 1

["B x"]
extends = "A"
nodes = 2

[C]
extends = "B x"
"time" = "01:00:00"
"""


def loaded(folder: Path, text: str) -> profiles.EnvFile:
    (folder / "env.toml").write_text(text)
    return profiles.load(folder / "env.toml")


def test_a_profile_has_its_parents_fields_below_its_own_each_with_its_line(tmp_path: Path) -> None:
    profile = profiles.get(loaded(tmp_path, CHAIN), "C")
    assert profile.fields == {"executor": "slurm", "host": "a", "nodes": 2, "time": "01:00:00"}
    place = f"{tmp_path}/env.toml"
    assert profile.origins == {
        "executor": f"{place}:5 [A]",
        "host": f"{place}:6 [A]",
        "nodes": f"{place}:11 [B x]",
        "time": f"{place}:15 [C]",
    }


def test_reserved_sections_are_no_profiles(tmp_path: Path) -> None:
    assert loaded(tmp_path, CHAIN).names() == ["A", "B x", "C"]


@pytest.mark.parametrize("name", profiles.RESERVED)
def test_a_reserved_section_cannot_be_chosen(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"PROFILE={name}: \[{name}\] is a section of its own, not a profile; profiles: A"):
        profiles.get(loaded(tmp_path, f'[{name}]\nx = 1\n[A]\nexecutor = "local"\n'), name)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (CHAIN, "D", "PROFILE=D: there is no such profile in .*; profiles: A, B x, C$"),
        (CHAIN, "wand", "PROFILE=wand: there is no such profile"),
        ('[CLUSTER]\nexecutor = "slurm"\n', "CLUSTR", r"no such profile in .* \(did you mean CLUSTER\?\); profiles: CLUSTER"),
        ('[A]\nextends = "A"\n', "A", r"env\.toml:2: extends forms a cycle: A -> A"),
        ('[A]\nextends = "B"\n[B]\nextends = "C"\n[C]\nextends = "B"\n', "A", "extends forms a cycle: A -> B -> C -> B"),
        ('[A]\nextends = "Z"\n', "A", r"env\.toml:2: extends = 'Z': there is no such profile in"),
        ('[A]\nextends = "wandb"\n[wandb]\nproject = "x"\n', "A", "extends = 'wandb': there is no such profile"),
        ('[A]\nextends = ["B"]\n', "A", r"env\.toml:2: extends: \['B'\]: expected the name of one profile"),
        ('A = "x"\n', "A", "PROFILE=A: there is no such profile"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_line_and_list(text: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        profiles.get(loaded(tmp_path, text), name)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[A\n", 1), ("[A]\nx = \n", 2), ("[A]\n\nx = 1\nx = 2\n", 4), ("[A]\n[A]\n", 2), ('[A]\nx = "a\n', 2), ("[A]\nx = 08\n", 2)],
)
def test_an_error_of_toml_is_reported_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"env\.toml:{line}: not TOML: "):
        loaded(tmp_path, text)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_bytes(b"[A]\nx = '\xff'\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        profiles.load(tmp_path / "env.toml")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_bytes(b"\xef\xbb\xbf[A]\nexecutor = 'local'\n")
    assert profiles.load(tmp_path / "env.toml").names() == ["A"]


def test_env_toml_is_found_by_walking_up_and_the_nearest_counts(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "env.toml").write_text("[UP]\nexecutor = 'local'\n")
    assert profiles.find(deep, {}).path == tmp_path / "env.toml"
    (tmp_path / "a" / "env.toml").write_text("[NEAR]\nexecutor = 'local'\n")
    assert profiles.find(deep, {}).names() == ["NEAR"]


@pytest.mark.parametrize("name", ["EVALMAKE_ENV_FILE", "NEMOTRON_ENV_FILE"])
def test_a_variable_can_name_another(name: str, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[O]\nexecutor = 'local'\n")
    assert profiles.find(tmp_path, {name: str(other)}).names() == ["O"]
    with pytest.raises(BadInput, match=f"{name}=.*nothing.toml: there is no such file; name an existing env.toml, or unset {name}"):
        profiles.find(tmp_path, {name: str(tmp_path / "nothing.toml")})


def test_ours_counts_before_the_references(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / f"{name}.toml").write_text(f"[{name}]\nexecutor = 'local'\n")
    environ = {"EVALMAKE_ENV_FILE": str(tmp_path / "ours.toml"), "NEMOTRON_ENV_FILE": str(tmp_path / "theirs.toml")}
    assert profiles.find(tmp_path, environ).names() == ["ours"]


def test_without_env_toml_a_profile_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"PROFILE=X: there is no env\.toml; `cp env\.toml\.example env\.toml`"):
        profiles.get(profiles.EnvFile(), "X")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ('[A]\n# host = "x"\nhost = "y"\n', "host", 3),
        ("[ A ]\n  'host' = \"y\"\n", "host", 2),
        ('[B]\nhost = "x"\n[A]\nhostname = "x"\nhost = "y"\n', "host", 5),
        ('[A] # mine\nhost = "x"\n', "host", 2),
        ('A.host = "x"\n', "host", None),
    ],
)
def test_the_line_of_a_field_is_found(text: str, key: str, line: int | None, tmp_path: Path) -> None:
    where = loaded(tmp_path, text).where("A", key)
    assert where == (f"{tmp_path}/env.toml:{line}" if line else f"{tmp_path}/env.toml [A]")
