"""The keys that the schemas define: dotted keys of configs, and fields of profiles."""

from functools import cache
from typing import Any

from helpers.common.files import load_schema

# Any key is allowed below a key with this schema.
FREE: dict[str, Any] = {"type": "object"}


def is_known(key: str) -> bool:
    """Whether the schema of configs has this dotted key, or allows any key below one of its parents."""
    return subschema(key) is not None


def subschema(key: str) -> dict[str, Any] | None:
    """The schema of a dotted key (`evaluation.tasks.0.name`) of configs; None for an unknown key, FREE where any key is allowed."""
    schema: dict[str, Any] | None = load_schema("config")
    for part in key.split(".") if key else []:
        if schema is None or schema is FREE:
            break
        schema = _child(_resolved(schema), part)
    return _resolved(schema) if schema is not None and schema is not FREE else schema


def names_below(key: str) -> list[str]:
    """The names below a dotted key in the schema of configs (`` is the whole config), for "did you mean"."""
    return list((subschema(key) or FREE).get("properties", {}))


def profile_fields() -> list[str]:
    """Every field of a profile in env.toml."""
    return list(load_schema("env")["$defs"]["profile"]["properties"])


@cache
def all_keys() -> tuple[str, ...]:
    """Every dotted key in the schema of configs, except those in lists and below names that people choose."""

    def walk(schema: dict[str, Any], prefix: str) -> list[str]:
        below = _resolved(schema).get("properties", {}).items()
        return [key for name, inner in below for key in (f"{prefix}{name}", *walk(inner, f"{prefix}{name}."))]

    return tuple(walk(load_schema("config"), ""))


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema merged over the one that its `$ref` (`#/$defs/NAME`) points to."""
    if "$ref" not in schema:
        return schema
    own = {word: value for word, value in schema.items() if word != "$ref"}
    return {**load_schema("config")["$defs"][schema["$ref"].rpartition("/")[2]], **own}


def _child(schema: dict[str, Any], part: str) -> dict[str, Any] | None:
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    if part in properties:
        return properties[part]
    if part.isdecimal() and "items" in schema:
        return dict(schema["items"])
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        # A name that people choose may contain dots (a path), so below plain values there is nothing to check.
        return extra if "properties" in extra or "additionalProperties" in _resolved(extra) else FREE
    if extra is True:
        return FREE
    types = schema.get("type", [])
    is_open = extra is None and not properties and "items" not in schema and ("object" in types or "array" in types)
    return FREE if is_open else None
