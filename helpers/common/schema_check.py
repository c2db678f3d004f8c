"""Whether a document fits its JSON Schema: a fast yes for the keywords that configs/schemas uses.

Nearly every file fits, and importing jsonschema and building a validator takes 0.05 s in each step of a run. So this answers first, and
jsonschema is asked only when the answer is not yes: it has the last word, and says what is wrong.
"""

import operator
import re
from collections.abc import Callable
from typing import Any

# Keywords that require nothing of a value, besides our own `x-…`. jsonschema does not check formats either.
ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description", "examples", "deprecated", "format"}
TYPES: dict[str, Any] = {"string": str, "object": dict, "array": list, "null": type(None), "integer": int, "number": (int, float)}
Fits = Callable[[Any, Any], bool]


def surely_fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether `value` fits `schema`. False also where that is not known: a keyword or a reference that is not handled here."""

    def fits(value: Any, part: Any) -> bool:
        return part if isinstance(part, bool) else all(holds(keyword, value, part) for keyword in part)

    def holds(keyword: str, value: Any, part: dict[str, Any]) -> bool:
        argument = part[keyword]
        if keyword in ANNOTATIONS or keyword.startswith("x-"):
            return True
        if keyword == "$ref":
            return fits(value, _target(schema, argument))
        if keyword in LIMITS:
            kind, compare = LIMITS[keyword]
            return not _is(kind, value) or compare(value, argument)
        return PARTS[keyword](value, part, fits)

    try:
        return fits(value, schema)
    except LookupError:
        return False


def _target(schema: dict[str, Any], reference: str) -> Any:
    start, *names = reference.split("/")
    if start != "#":
        raise LookupError(reference)
    target: Any = schema
    for name in names:
        target = target[name]
    return target


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return kind != "boolean" and (isinstance(value, TYPES[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer()))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | dict):
        raise LookupError(one)  # noqa: TRY004  nothing is wrong with it: it is left to jsonschema
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _unique(items: list[Any], wanted: bool) -> bool:
    if wanted and not all(isinstance(item, str) for item in items):
        raise LookupError(items)
    return not wanted or len(set(items)) == len(items)


def _type(value: Any, part: dict[str, Any], _: Fits) -> bool:
    kinds = part["type"]
    return any(_is(kind, value) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _properties(value: Any, part: dict[str, Any], fits: Fits) -> bool:
    return not isinstance(value, dict) or all(fits(value[name], inner) for name, inner in part["properties"].items() if name in value)


def _other_properties(value: Any, part: dict[str, Any], fits: Fits) -> bool:
    known, inner = part.get("properties", {}), part["additionalProperties"]
    return not isinstance(value, dict) or all(fits(item, inner) for name, item in value.items() if name not in known)


# What a keyword requires of a value of this type; of others it requires nothing.
LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", operator.ge),
    "maximum": ("number", operator.le),
    "exclusiveMinimum": ("number", operator.gt),
    "minLength": ("string", lambda text, least: len(text) >= least),
    "maxLength": ("string", lambda text, most: len(text) <= most),
    "pattern": ("string", lambda text, pattern: re.search(pattern, text) is not None),
    "minItems": ("array", lambda items, least: len(items) >= least),
    "uniqueItems": ("array", _unique),
    "required": ("object", lambda data, names: all(name in data for name in names)),
}
# Keywords that take the value, the part of the schema that they stand in, and what says whether a value fits a part.
PARTS: dict[str, Callable[[Any, dict[str, Any], Fits], bool]] = {
    "type": _type,
    "const": lambda value, part, _: _equal(part["const"], value),
    "enum": lambda value, part, _: any(_equal(one, value) for one in part["enum"]),
    "items": lambda value, part, fits: not isinstance(value, list) or all(fits(item, part["items"]) for item in value),
    "properties": _properties,
    "additionalProperties": _other_properties,
    "propertyNames": lambda value, part, fits: not isinstance(value, dict) or all(fits(name, part["propertyNames"]) for name in value),
    "anyOf": lambda value, part, fits: any(fits(value, one) for one in part["anyOf"]),
    "not": lambda value, part, fits: not fits(value, part["not"]),
    "if": lambda value, part, fits: not fits(value, part["if"]) or fits(value, part["then"]),
    "then": lambda *_: True,  # asked by `if`
}
