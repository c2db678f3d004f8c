"""helpers/common/yaml_files.py: plain data in and out, the same with the fast loader and the slow one, and nothing is executed."""

from __future__ import annotations

import pytest
import yaml

from helpers.common import yaml_files

TEXT = "a: [1, 1.5, x, '1', 2026-11-22]\nb: &b {c: yes, d: null}\ne: *b\nf: |\n  two\n  lines\n1: x\n"


def test_it_reads_what_the_safe_loader_reads_from_text_and_from_bytes() -> None:
    assert yaml_files.load(TEXT) == yaml_files.load(TEXT.encode()) == yaml.safe_load(TEXT)
    with pytest.raises(yaml.YAMLError):
        yaml_files.load("a: !!python/object/apply:os.system [id]")


def test_what_is_written_is_read_back_in_its_order() -> None:
    data = {"z": ["1", "yes", "1e3", "ünï", "a\n b\n"], "a": {"long": "word " * 200}}
    assert yaml_files.load(yaml_files.dump(data)) == data
    assert list(yaml_files.load(yaml_files.dump(data))) == ["z", "a"]


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "x: {a: 1, 'a': 2}\n", "- {a: 1, b: 2, a: 1}\n"])
def test_a_key_that_is_given_twice_is_refused_where_that_is_asked_for(text: str) -> None:
    yaml_files.load(text)
    with pytest.raises(yaml.YAMLError, match="given twice"):
        yaml_files.load(text, keys_once=True)


def test_the_same_key_in_two_mappings_is_no_repetition() -> None:
    assert yaml_files.load("a: {b: 1}\nb: [{b: 1}, {b: 1}]\n1: x\n'1': y\n", keys_once=True)["b"] == [{"b": 1}, {"b": 1}]
