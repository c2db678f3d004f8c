"""dev/derived_schemas.py: the names of the executors, written into schemas that stay as they are otherwise. The rest: test_schemas.py."""

import json

import pytest

from helpers.common.errors import StepFailed
from helpers.dev import derived_schemas

TYPES, WORDS = ("process", "mine"), ("local", "mine")


def test_the_names_are_written_into_both_schemas_and_into_those_that_follow():
    texts = derived_schemas.texts(TYPES, WORDS)
    for file in ("config.schema.json", "launcher.schema.json"):
        assert json.loads(texts[file])["properties"]["execution"]["properties"]["type"]["enum"] == list(TYPES)
    assert json.loads(texts["env.schema.json"])["$defs"]["profile"]["properties"]["executor"]["enum"] == list(WORDS)
    assert set(derived_schemas.stale(TYPES, WORDS)) == set(texts) - {f"{name}_group.schema.json" for name in derived_schemas.GROUPS}


def test_only_the_line_with_the_names_changes():
    for name, changed in derived_schemas.texts(TYPES, WORDS).items():
        if name in ("config.schema.json", "env.schema.json"):
            before = (derived_schemas.SCHEMAS / name).read_text()
            pairs = zip(before.splitlines(), changed.splitlines(), strict=True)
            assert sum(old != new for old, new in pairs) == 1


def test_without_names_the_schemas_by_hand_are_left_alone():
    assert not {"config.schema.json", "env.schema.json"} & set(derived_schemas.texts())


def test_a_schema_without_a_list_of_names_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(derived_schemas, "SCHEMAS", tmp_path)
    (tmp_path / "env.schema.json").write_text(json.dumps({"$defs": {"profile": {"properties": {"executor": {"type": "string"}}}}}))
    with pytest.raises(StepFailed, match=r"env\.schema\.json: expected .* only at \$defs\.profile\.properties\.executor"):
        derived_schemas.texts((), WORDS)
