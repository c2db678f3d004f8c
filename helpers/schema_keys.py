"""Which dotted keys the schema of configs knows."""

from __future__ import annotations

from functools import cache
from typing import Any

from helpers.files import load_schema


def is_known(key: str) -> bool:
    """Whether the schema of configs has this dotted key, or lets anything stand below one of its parents."""
    schema: dict[str, Any] = load_schema("config")
    for part in key.split("."):
        properties = schema.get("properties")
        if properties is None:
            items = schema.get("items")
            if items is not None and part.isdecimal():
                schema = items
                continue
            return bool(schema.get("additionalProperties", "object" in schema.get("type", [])))
        if part not in properties:
            return False
        schema = properties[part]
    return True


@cache
def all_keys() -> list[str]:
    """Every dotted key that the schema of configs names."""

    def walk(schema: dict[str, Any], prefix: str) -> list[str]:
        below = schema.get("properties", {}).items()
        return [key for name, inner in below for key in (f"{prefix}{name}", *walk(inner, f"{prefix}{name}."))]

    return walk(load_schema("config"), "")
