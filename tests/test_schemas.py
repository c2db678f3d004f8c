"""The schemas in configs/schemas: valid, described, true to their examples, and to the configs of the launcher and the seed documents."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from checkout import ROOT
from compiled import fenced
from helpers.common import files
from helpers.common.errors import BadInput
from helpers.config import config_files, env_check, profiles, schema_keys
from helpers.dev import derived_schemas
from helpers.executors import registry
from helpers.executors.registry import REFUSED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMAS = {path.name: json.loads(path.read_text()) for path in sorted(files.SCHEMAS.glob("*.schema.json"))}
BY_HAND = ["config.schema.json", "env.schema.json"]
DESCRIBED = [*BY_HAND, *derived_schemas.all_derived()]
REGISTRY = Registry().with_resources([(name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()])
CONFIGS = sorted((ROOT / "configs").glob("*.yaml")) + sorted((ROOT / "configs").glob("*/*.yaml"))
LAUNCHER = config_files.launcher_configs()
TEMPLATES = sorted((LAUNCHER.parent / "resources" / "config_templates").rglob("*.yaml"))
GROUPS = sorted(path for group in derived_schemas.GROUPS for path in (LAUNCHER / group).rglob("*.yaml") if path.parent.name not in REFUSED)
SEED_YAML = [
    ("evaluator.md", "Example Config"),
    ("evaluator.md", "Step 1: Create Config File"),
    ("nano3-eval.md", "Key Configuration Sections"),
]
SEED_YAML += [("evaluator.md", '"Missing key type" Error')]
SEED_TOML = [("evaluator.md", "Basic Profile"), ("evaluator.md", "Profile with Auto-Squash"), ("nano3-eval.md", "Running with NeMo-Run")]


def properties(schema, where=""):
    """Every property of a schema, however deep, with where it stands."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{where}.{name}", inner
        yield from properties(inner, f"{where}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield f"{where}.{word}", schema[word]
            yield from properties(schema[word], f"{where}.{word}")
    for name, inner in schema.get("$defs", {}).items():
        yield from properties(inner, f"{where}#{name}")


def errors(name, data, pointer=""):
    """What a schema, or a part of it, has against a value."""
    validator = Draft202012Validator({"$ref": f"{name}{pointer}"}, registry=REGISTRY)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(data)]


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_valid_and_says_what_it_is(name):
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == derived_schemas.DRAFT
    assert schema["$id"] == name
    assert schema["title"]
    assert schema["description"]


@pytest.mark.parametrize("name", DESCRIBED)
def test_each_property_has_a_description(name):
    defs = SCHEMAS[name].get("$defs", {})
    without = [
        where
        for where, inner in properties(SCHEMAS[name])
        if not where.endswith((".items", ".additionalProperties"))
        and "description" not in {**defs.get(inner.get("$ref", "").rpartition("/")[2], {}), **inner}
    ]
    assert without == []


@pytest.mark.parametrize("name", BY_HAND)
def test_each_property_has_a_title_and_each_value_an_example_that_fits(name):
    schema = SCHEMAS[name]
    found = 0
    for where, inner in properties(schema):
        if where.endswith((".items", ".additionalProperties")):
            continue
        assert inner.get("title"), where
        assert inner.get("examples") or "properties" in inner, where
        for example in inner.get("examples", []):
            validator = Draft202012Validator({**inner, "$defs": schema["$defs"]})
            assert [error.message for error in validator.iter_errors(example)] == [], where
            found += 1
    assert found > 30


def test_the_written_schemas_are_up_to_date():
    assert derived_schemas.outdated() == {}


def test_the_schemas_have_the_names_of_the_executors():
    """Old runs have the launcher's word, and a shared env.toml may have a profile for an executor that is refused when it is used."""
    in_config = SCHEMAS["config.schema.json"]["properties"]["execution"]["properties"]["type"]["enum"]
    in_profile = SCHEMAS["env.schema.json"]["$defs"]["profile"]["properties"]["executor"]["enum"]
    names = [one.name for one in registry.descriptions()]
    assert names == ["process", "docker", "slurm"]
    assert set(in_config) == {*names, "local"}
    assert set(in_profile) == {*names, "local", *registry.REFUSED}
    for word in in_config:
        assert registry.describe(word).name in names
    for word in set(in_profile) - set(registry.REFUSED):
        assert registry.describe_for_profile(word).name in names


def test_launcher_schema_is_config_schema_without_run_and_without_old_forms():
    config, launcher = SCHEMAS["config.schema.json"], SCHEMAS["launcher.schema.json"]
    ours, theirs = dict(properties(config)), dict(properties(launcher))
    assert {where for where in ours.keys() - theirs.keys() if not where.startswith(".run")} == set()
    refused = {where for where, inner in theirs.items() if "not" in inner and inner["not"] == {}}
    assert refused == {where for where in theirs if ours[where].get("description", "").startswith("old form")}
    leaves = {where for where in theirs if where not in refused and not any(other.startswith(f"{where}.") for other in theirs)}
    assert {where for where in leaves if theirs[where] != ours[where]} == {".execution.type"}
    assert theirs[".execution.type"]["enum"] == [one.launcher_type for one in registry.descriptions()]
    head = ("$id", "title", "description", "properties", "not", "$defs")
    assert {k: v for k, v in launcher.items() if k not in head} == {k: v for k, v in config.items() if k not in head}


@pytest.mark.parametrize(
    "config",
    [
        {"run": {"model": "rl:latest"}},
        {"deployment": {"type": "none", "multiple_instances": True}},
        {"execution": {"type": "slurm", "env_vars": {}}},
        {"evaluation": {"tasks": [{"name": "t", "overrides": {}}]}},
    ],
)
def test_launcher_schema_refuses_what_the_launcher_refuses(config):
    whole = {"execution": {"type": "slurm"}, "deployment": {"type": "none"}, "evaluation": {"tasks": [{"name": "t"}]}}
    files.validate(whole, "launcher", "launcher.yaml")
    with pytest.raises(BadInput):
        files.validate({**whole, **config}, "launcher", "launcher.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_config_names_its_schema_in_its_first_line_for_editors_and_fits_it(path):
    line = path.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", line)
    assert found, line
    schema = (path.parent / found[1]).resolve()
    assert schema.parent == files.SCHEMAS
    assert errors(schema.name, read(path)) == []


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: str(path.relative_to(LAUNCHER)))
def test_the_launchers_own_group_files_fit(path):
    group = path.relative_to(LAUNCHER).parts[0]
    data = read(path)
    data.pop("defaults", None)
    assert errors(f"{group}_group.schema.json", data) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(LAUNCHER.parent / "resources" / "config_templates")))
def test_the_launchers_own_templates_fit(path):
    assert errors("config_file.schema.json", read(path) or {}) == []


@pytest.mark.parametrize("place", SEED_YAML, ids=" ".join)
def test_the_configs_in_the_seed_documents_fit_as_they_stand(place):
    assert errors("config_file.schema.json", yaml.safe_load(fenced(*place, "yaml"))) == []


@pytest.mark.parametrize("place", SEED_TOML, ids=" ".join)
def test_the_profiles_in_the_seed_documents_fit_as_they_stand(place):
    assert errors("env.schema.json", tomllib.loads(fenced(*place, "toml"))) == []


def test_env_toml_example_names_its_schema_fits_it_and_shows_every_field():
    text = (ROOT / "env.toml.example").read_text()
    named = re.fullmatch(r"#:schema (\S+)", text.splitlines()[0])
    assert named
    assert (ROOT / named[1]).is_file()
    assert env_check.check(profiles.load(ROOT / "env.toml.example")) == []
    # With every field uncommented it is still TOML, and fits.
    whole = re.sub(r"^# (?=(?:\w+ = |\[))", "", text, flags=re.MULTILINE)
    tables = tomllib.loads(whole)
    assert errors("env.schema.json", tables) == []
    shown = {key for table in tables.values() for key in table}
    assert set(schema_keys.profile_fields()) - shown == set()
    assert set(SCHEMAS["env.schema.json"]["properties"]["artifacts"]["properties"]) <= shown
    fields = re.findall(r"^# \w+ = .*$", text, re.MULTILINE)
    assert len(fields) > 20
    assert [line for line in fields if " # " not in line] == []


BASE = {"execution": {"type": "slurm"}, "deployment": {"type": "vllm"}, "evaluation": {"tasks": [{"name": "t"}]}}
WRONG = [
    ("execution.walltime", 45045, 'execution.walltime: 45045: expected a time in one of Slurm\'s forms, as text in quotes: "MM"'),
    ("execution.walltime", "soon", 'execution.walltime: "soon": expected a time'),
    ("execution.walltime", "01:00:00\n", "expected a time"),
    ("execution.type", "slrum", 'execution.type: "slrum": expected one of process, docker, local, slurm (did you mean slurm?)'),
    ("execution.account", 123, 'execution.account: 123: expected one word as text, .*; put it in quotes: "123"'),
    ("execution.hostname", "-oProxyCommand=x", "not beginning with -"),
    ("execution.num_nodes", 0, "execution.num_nodes: 0: expected at least 1"),
    ("execution.num_nodes", "2", 'execution.num_nodes: "2": expected a whole number or null; without quotes: 2'),
    ("execution.output_dir", "relative", "expected an absolute path that compute nodes see (execution.type slurm)"),
    ("execution.sbatch_extra_flags", {"--mem": 1}, "expected an option of sbatch without its dashes"),
    ("execution.sbatch_extra_flags", None, "execution.sbatch_extra_flags: null: expected `key: value` lines"),
    ("execution.mounts", {"deployments": {}}, "execution.mounts.deployments: unknown key (did you mean deployment?)"),
    ("deployment.image", "a\nb", 'deployment.image: "a\\nb": expected a container image on one line'),
    ("deployment.image", "image; rm -rf x", "expected a container image on one line"),
    ("deployment.checkpoint_path", "/a:b", "it becomes a container mount"),
    ("deployment.port", 70000, "deployment.port: 70000: expected at most 65535"),
    ("evaluation.tasks", [], "evaluation.tasks: []: expected a list with at least one `- name: TASK`"),
    ("evaluation.tasks", [{"name": "a\nb"}], "expected a task's name, in one word"),
    ("evaluation.tasks", [{}], "evaluation.tasks.0: name is missing"),
    ("evaluation.tasks", [{"name": "t", "contaner": "x"}], "evaluation.tasks.0.contaner: unknown key (did you mean container?)"),
    (
        "evaluation.nemo_evaluator_config",
        {"config": {"params": {"limit_sample": 1}}},
        "limit_sample: unknown key (did you mean limit_samples?)",
    ),
    ("target.api_endpoint.url", "example.com", "expected a whole URL"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(key, value, message):
    with pytest.raises(BadInput) as caught:
        files.validate(with_value(key, value), "config", "c.yaml")
    text = str(caught.value)
    assert text.startswith("c.yaml: ")
    assert message in text or re.search(message, text), text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("env_vars", {"HF_TOKEN": "hf_verysecret"}),
        ("deployment.env_vars", {"HF_TOKEN": "hf_verysecret"}),
        ("target.api_endpoint.api_key_name", "sk-verysecret"),
        ("deployment.lepton_config.api_tokens", "tok-verysecret"),
    ],
)
def test_a_value_that_may_be_a_secret_is_not_shown(key, value):
    with pytest.raises(BadInput) as caught:
        files.validate(with_value(key, value), "config", "c.yaml")
    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("execution.walltime", "90"),
        ("execution.walltime", "1-12"),
        ("execution.walltime", "1-12:30:00"),
        ("execution.walltime", "UNLIMITED"),
        ("execution.walltime", None),
        ("execution.auto_export", ["wandb"]),
        ("execution.gres", "gpu:h100:8"),
        ("deployment.port", 0),
        ("deployment.checkpoint_path", "${art:model,path}"),
        ("deployment.image", "docker://user@nvcr.io#nvidia/nemo:25.01"),
        ("deployment.image", "nvcr.io/nvidia/nemo@sha256:" + "0" * 64),
        ("evaluation.nemo_evaluator_config", {"config": {"params": {"limit_samples": 0.1}}}),
    ],
)
def test_a_value_that_fits_is_taken(key, value):
    files.validate(with_value(key, value), "config", "c.yaml")


def with_value(key, value):
    data = json.loads(json.dumps(BASE))
    node = data
    *parents, last = key.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return data


def test_paths_of_schemas_are_relative_so_that_a_clone_anywhere_finds_them():
    for path in Path(files.SCHEMAS).glob("*.json"):
        assert str(ROOT) not in path.read_text()
