"""Config files: found by name or path, read with a line for every key, refused with a line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.common.errors import BadInput
from helpers.config import config_files

DEEP = "[" * 3000 + "]" * 3000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{n}: &{n} [{','.join(['*' + m] * 10)}]\n" for m, n in zip("abcde", "bcdef", strict=True))


def test_a_name_is_looked_up_in_configs_and_before_that_in_evalmake_config_path(tmp_path: Path) -> None:
    assert config_files.find("local", {}) == config_files.CONFIGS / "local.yaml"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "local.yaml").write_text("")
    (tmp_path / "two" / "other.yaml").write_text("")
    environ = {"EVALMAKE_CONFIG_PATH": f"{tmp_path}/one:{tmp_path}/two"}
    assert config_files.find("local", environ) == tmp_path / "one" / "local.yaml"
    assert config_files.find("other", environ) == tmp_path / "two" / "other.yaml"
    assert {"other", "local", "default"} <= set(config_files.names(environ))


def test_a_path_is_absolute_or_from_where_the_person_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yml").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yml", "./mine.yml", str(tmp_path / "mine.yml")):
        assert config_files.find(name, {}) == tmp_path / "mine.yml"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_files.find("~/mine.yml", {}) == tmp_path / "mine.yml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lcal", r"CONFIG=lcal: there is no such config \(did you mean local\?\); configs: .*default, .*; or give a path"),
        ("no/such.yaml", r"CONFIG=no/such\.yaml: there is no such config; configs: "),
        ("configs/", "is a folder; name the YAML file in it"),
        ("a\nb", r"expected a name or a path on one line"),
        ("a\x1b[31m", "on one line"),
        ("x" * 5000, "no such config"),
        ("/" + "x" * 5000 + ".yaml", "no such config"),
    ],
)
def test_a_config_that_is_not_there_is_refused_with_the_list(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        config_files.find(name, {})


def test_every_key_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a:\n  b: 1\n  c:\n    - x: 1\n    - y\n# no\nd: {e: 1,\n  f: 2}\ng: >-\n  long\n  text\nh: 1e-3\n")
    data, lines = config_files.load_yaml(path)
    assert lines == {"a": 1, "a.b": 2, "a.c": 3, "a.c.0": 4, "a.c.0.x": 4, "a.c.1": 5, "d": 7, "d.e": 7, "d.f": 8, "g": 9, "h": 12}
    assert data["h"] == 0.001


def test_an_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    for text in ("", "# only a remark\n", "null\n", "---\n"):
        (tmp_path / "c.yaml").write_text(text)
        assert config_files.load_yaml(tmp_path / "c.yaml")[0] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", ":2: not YAML: found duplicate key a; keep one of the two"),
        ("a:\n  b: 1\n  b: 2\n", ":3: not YAML: found duplicate key b"),
        ("a:\n\tb: 1\n", r":2: not YAML: .* indent with spaces"),
        ("a: {b\n", ":2: not YAML: .*in quotes"),
        ("a: b: c\n", ":1: not YAML: mapping values are not allowed here"),
        ("a: ${b\nc: [\n", ":3: not YAML"),
        ("a: *nobody\n", ":1: not YAML: found undefined alias"),
        ("a: !!python/object:os.system x\n", ":1: not YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", ":2: not YAML: .*another document"),
        ("- a\n", ":1: expected `key: value` lines, found a list"),
        ("text\n", ":1: expected `key: value` lines, found plain text"),
        ("? [a, b]\n: c\n", ":1: expected one word as a key"),
        ("a: &a [*a]\n", ":1: an alias"),
        ("x: 1\na: &a\n  b: *a\n", ":2: an alias"),
        (f"a: {DEEP}\n", "nested too deeply"),
        (BOMB, "more than 30000 values: its aliases"),
        ("a: \x01\n", "not YAML"),
    ],
    ids=range(17),
)
def test_a_mistake_of_yaml_is_reported_with_its_line_and_fix(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(BadInput, match=rf"c\.yaml.*{message}" if message[0] != ":" else rf"c\.yaml{message}"):
        config_files.load_yaml(tmp_path / "c.yaml")


def test_what_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(BadInput, match=r"c\.yaml: not UTF-8 text \(byte 3\)"):
        config_files.load_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize(("data", "key"), [({"a": {"b": "${x"}}, "a.b"), ({"a": ["${x}", "${"]}, "a.1"), ({"a": "${x}", "b": "$x"}, None)])
def test_the_key_of_an_unreadable_interpolation_is_found(data: dict[str, object], key: str | None) -> None:
    assert config_files.first_unreadable(data) == key
