"""dev/derived_schemas.py: a new executor's names come into every schema that has such names. The rest: tests/test_schemas.py."""

import pytest

from helpers.common.files import load_schema
from helpers.config.executor_description import Description
from helpers.dev import derived_schemas
from helpers.executors import registry


@pytest.fixture
def fourth(monkeypatch):
    """The executors, and one more."""
    descriptions = (*registry.descriptions(), Description(name="fourth", launcher_type="theirs", profile_words=("mine",)))
    monkeypatch.setattr(registry, "descriptions", lambda: descriptions)


def test_a_new_executor_is_allowed_in_configs_and_profiles(fourth):
    written = derived_schemas.written()
    types = {
        name: written[name]["properties"]["execution"]["properties"]["type"] for name in ("config.schema.json", "launcher.schema.json")
    }
    assert types["config.schema.json"]["enum"][-2:] == ["fourth", "theirs"]
    assert types["launcher.schema.json"]["enum"][-1] == "theirs"
    assert {"fourth", "mine"} <= set(written["env.schema.json"]["$defs"]["profile"]["properties"]["executor"]["enum"])
    assert {path.name for path in derived_schemas.outdated()} == set(written) - {
        f"{name}_group.schema.json" for name in derived_schemas.GROUPS
    }


def test_in_the_schemas_by_hand_nothing_but_the_names_is_written(fourth):
    config, env = derived_schemas.config(), derived_schemas.env()
    config["properties"]["execution"]["properties"]["type"]["enum"] = load_schema("config")["properties"]["execution"]["properties"][
        "type"
    ]["enum"]
    profile = load_schema("env")["$defs"]["profile"]["properties"]["executor"]
    env["$defs"]["profile"]["properties"]["executor"]["enum"] = profile["enum"]
    assert (config, env) == (load_schema("config"), load_schema("env"))
