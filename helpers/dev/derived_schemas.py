"""Schemas that follow from others: the executors' names in config and env, the launcher's schema, and, for editors, those of configs.

People edit config.schema.json and env.schema.json by hand, except the names of executors.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from helpers.common import files
from helpers.common.files import load_schema
from helpers.executors import registry

DRAFT = "https://json-schema.org/draft/2020-12/schema"
WIDTH = 140
# Until a config is compiled, it may have these in place of a value: an interpolation, or `???`.
OPEN = {"type": "string", "pattern": r"\$\{|^\?\?\?(?![\s\S])"}
ANNOTATIONS = ("title", "description", "examples", "deprecated", "x-expected", "x-hidden")
GROUPS = ("execution", "deployment")


def written() -> dict[str, dict[str, Any]]:
    """Each schema that this module writes, wholly or in part, by its file's name."""
    return {"config.schema.json": config(), "env.schema.json": env(), **all_derived()}


def config() -> dict[str, Any]:
    """config.schema.json with the executors' names: our own, and the launcher's, which old runs have."""
    schema = deepcopy(load_schema("config"))
    words = [word for one in registry.descriptions() for word in (one.name, one.launcher_type)]
    schema["properties"]["execution"]["properties"]["type"]["enum"] = list(dict.fromkeys(words))
    return schema


def env() -> dict[str, Any]:
    """env.schema.json with the words that a profile may use for an executor; those that are refused later may be in a shared file."""
    schema = deepcopy(load_schema("env"))
    words = [word for one in registry.descriptions() for word in (one.name, *one.profile_words)]
    schema["$defs"]["profile"]["properties"]["executor"]["enum"] = [*dict.fromkeys(words), *registry.REFUSED]
    return schema


def all_derived() -> dict[str, dict[str, Any]]:
    """Each schema that follows from config.schema.json, by its file's name."""
    return {
        "launcher.schema.json": launcher(),
        "config_file.schema.json": config_file(),
        **{f"{name}_group.schema.json": group(name) for name in GROUPS},
    }


def launcher() -> dict[str, Any]:
    """The schema of launcher.yaml: config.schema.json without `run` and old forms, and with the launcher's words for executors."""
    schema = config()
    del schema["properties"]["run"]
    schema["properties"]["execution"]["properties"]["type"]["enum"] = [one.launcher_type for one in registry.descriptions()]
    for node in _nodes(schema):
        if node.get("deprecated") and node.get("description", "").startswith("old form"):
            described = {key: node[key] for key in ("title", "description", "deprecated")}
            node.clear()
            node |= {**described, "not": {}, "x-expected": f"nothing: {described['description']}"}
    about = "The config exactly as nemo-evaluator-launcher gets it: all values resolved, no run section, no secret."
    return {**schema, **_head("launcher", "Launcher config", about), "not": {"required": ["run"]}}


def config_file() -> dict[str, Any]:
    """The schema of a config before it is compiled: nothing is required, and any value may be an interpolation or `???`."""
    schema = config()
    for node in _nodes(schema):
        for word in ("required", "minItems", "if", "then"):
            node.pop(word, None)
        if "type" in node and "properties" not in node:
            annotations = {key: node.pop(key) for key in ANNOTATIONS if key in node}
            value = dict(node)
            node.clear()
            node.update(annotations, anyOf=[value, OPEN])
    defaults = {
        "title": "Defaults",
        "description": "the files to compose this config of, the last one wins: groups of the launcher and configs/, and _self_",
        "type": "array",
        "items": {"description": "GROUP: NAME, a config's name, or _self_", "type": ["object", "string"], "examples": ["_self_"]},
        "examples": [[{"execution": "slurm/default"}, {"deployment": "vllm"}, "_self_"]],
    }
    head = _head(
        "config_file", "Evaluation config", "An evaluation config as people write it. Its defaults, a profile and overrides complete it."
    )
    return {**schema, **head, "properties": {"defaults": defaults, **schema["properties"]}}


def group(name: str) -> dict[str, Any]:
    """The schema of a file in configs/GROUP/: that section of a config."""
    head = _head(f"{name}_group", f"Group {name}", f"A file of configs/{name}/: what `defaults: - {name}: NAME` puts into a config.")
    return {**head, "$ref": f"config_file.schema.json#/properties/{name}"}


def _head(name: str, title: str, description: str) -> dict[str, Any]:
    return {"$schema": DRAFT, "$id": f"{name}.schema.json", "title": title, "description": description}


def dump(schema: Any, indent: int = 0, room: int = 0) -> str:
    """JSON text that puts a value on one line if it fits; `room` is the space that other text on the line needs."""
    flat = json.dumps(schema, ensure_ascii=False)
    if len(flat) + indent + room <= WIDTH or not isinstance(schema, dict | list) or not schema:
        return flat
    pad = " " * (indent + 2)
    if isinstance(schema, dict):
        parts = [f"{pad}{json.dumps(key)}: {dump(value, indent + 2, len(json.dumps(key)) + 3)}" for key, value in schema.items()]
    else:
        parts = [f"{pad}{dump(value, indent + 2, 1)}" for value in schema]
    opening, closing = ("{", "}") if isinstance(schema, dict) else ("[", "]")
    return opening + "\n" + ",\n".join(parts) + "\n" + " " * indent + closing


def outdated() -> dict[Path, str]:
    """The files that are out of date, each with the text that it should have."""
    return files.outdated({files.SCHEMAS / name: dump(schema) + "\n" for name, schema in written().items()})


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and every schema in it, inner ones first."""
    for word in ("properties", "$defs"):
        for inner in list(schema.get(word, {}).values()):
            yield from _nodes(inner)
    for word in ("items", "additionalProperties", "if", "then"):
        if isinstance(schema.get(word), dict):
            yield from _nodes(schema[word])
    yield schema
