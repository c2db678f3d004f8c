"""The schemas that are written by a script, and the names of the executors in those that are written by hand.

config.schema.json gives the launcher's schema and, for editors, the schemas of configs and groups as people write them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from helpers.common.errors import StepFailed
from helpers.common.files import SCHEMAS, load_schema

DRAFT = "https://json-schema.org/draft/2020-12/schema"
WIDTH = 140
# Until a config is compiled, any value may also be an interpolation or `???`.
OPEN = {"type": "string", "pattern": r"\$\{|^\?\?\?(?![\s\S])"}
ANNOTATIONS = ("title", "description", "examples", "deprecated", "x-expected", "x-hidden")
GROUPS = ("execution", "deployment")
# The properties whose allowed values are the executors' names: file, and the path in it.
CONFIG_TYPE = ("config.schema.json", ("properties", "execution", "properties", "type"))
PROFILE_EXECUTOR = ("env.schema.json", ("$defs", "profile", "properties", "executor"))


def texts(types: Sequence[str] = (), profile_words: Sequence[str] = ()) -> dict[str, str]:
    """The text of each schema that the script writes, by its file's name.

    `types` are the values allowed for `execution.type` in a config, `profile_words` those for `executor` in a profile; where they are
    given, the schemas that hold them are included. Raises StepFailed when such a schema does not have its values in one line.
    """
    written = {}
    for (name, path), values in ((CONFIG_TYPE, types), (PROFILE_EXECUTOR, profile_words)):
        if values:
            written[name] = _with_enum(name, path, values)
    config = json.loads(written.get("config.schema.json") or _text("config.schema.json"))
    return written | {name: text(schema) for name, schema in all_derived(config).items()}


def all_derived(config: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Each schema that follows from config.schema.json, or from `config` in its place, by its file's name."""
    config = config or load_schema("config")
    return {
        "launcher.schema.json": launcher(config),
        "config_file.schema.json": config_file(config),
        **{f"{name}_group.schema.json": group(name) for name in GROUPS},
    }


def launcher(config: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of launcher.yaml: that of config.yaml without `run`, and with every old form rejected."""
    schema = deepcopy(dict(config))
    del schema["properties"]["run"]
    for node in _nodes(schema):
        if node.get("deprecated") and node.get("description", "").startswith("old form"):
            described = {key: node[key] for key in ("title", "description", "deprecated")}
            node.clear()
            node |= {**described, "not": {}, "x-expected": f"nothing: {described['description']}"}
    head = {
        "$schema": DRAFT,
        "$id": "launcher.schema.json",
        "title": "Launcher config",
        "description": "The very config handed to nemo-evaluator-launcher: nothing unresolved, no run section, no secret.",
    }
    return {**schema, **head, "not": {"required": ["run"]}}


def config_file(config: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a config before it is compiled: nothing is required, and any value may be an interpolation or `???`."""
    schema = deepcopy(dict(config))
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
        "description": "files that this config is built upon, the first one lowest: groups of the launcher and of configs/, and _self_",
        "type": "array",
        "items": {"description": "GROUP: NAME, a config's name, or _self_", "type": ["object", "string"], "examples": ["_self_"]},
        "examples": [[{"execution": "slurm/default"}, {"deployment": "vllm"}, "_self_"]],
    }
    head = {
        "$schema": DRAFT,
        "$id": "config_file.schema.json",
        "title": "Evaluation config",
        "description": "An evaluation config as it is written: composed by its defaults, completed by a profile and overrides.",
    }
    return {**schema, **head, "properties": {"defaults": defaults, **schema["properties"]}}


def group(name: str) -> dict[str, Any]:
    """The schema of a file in configs/GROUP/, which is that section of a config."""
    head = {"$schema": DRAFT, "$id": f"{name}_group.schema.json", "title": f"Group {name}"}
    reference = f"config_file.schema.json#/properties/{name}"
    return {**head, "description": f"A file of configs/{name}/: what `defaults: - {name}: NAME` puts into a config.", "$ref": reference}


def dump(schema: Any, indent: int = 0, room: int = 0) -> str:
    """JSON text in which every value that fits into one line is in one; `room` is the width of the text around it there."""
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


def stale(types: Sequence[str] = (), profile_words: Sequence[str] = ()) -> list[str]:
    """The names of the files that differ from `texts`."""
    return [name for name, content in texts(types, profile_words).items() if _text(name) != content]


def text(schema: dict[str, Any]) -> str:
    """The content of a schema's file."""
    return dump(schema) + "\n"


def _text(name: str) -> str:
    path = SCHEMAS / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _with_enum(name: str, path: Sequence[str], values: Sequence[str]) -> str:
    """The text of a schema with these values as the `enum` at `path`; all else stays as a person wrote it."""
    content = _text(name)
    node = json.loads(content)
    for key in path:
        node = node[key]
    old = f'"enum": {json.dumps(node.get("enum"))}'
    if content.count(old) != 1:
        raise StepFailed(f"configs/schemas/{name}: expected {old} in one line, and only at {'.'.join(path)}")
    return content.replace(old, f'"enum": {json.dumps(list(values))}')


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and every schema in it, inner ones first."""
    for word in ("properties", "$defs"):
        for inner in list(schema.get(word, {}).values()):
            yield from _nodes(inner)
    for word in ("items", "additionalProperties", "if", "then"):
        if isinstance(schema.get(word), dict):
            yield from _nodes(schema[word])
    yield schema
