"""Messages for values that do not fit their schema: the value, what was expected, and the fix."""

import json
from typing import Any

from helpers.common.errors import nearest, one_line

TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "`key: value` lines",
    "array": "a list",
    "null": "null",
}
LONGEST = 80


def explain(error: Any) -> str:
    """`KEY: VALUE: expected …` for jsonschema's ValidationError.

    The schema's `x-expected` says what was expected; without one, jsonschema's error is translated. Where the schema has `x-hidden`, the
    value may be a secret and is left out.
    """
    key = ".".join(str(part) for part in error.absolute_path) or "the whole file"
    if error.validator == "additionalProperties":
        return _unknown(error, key)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{key}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    value = "" if _annotation(error, "x-hidden") else f"{_as_json(error.instance)}: "
    expected = _annotation(error, "x-expected") or _expected(error)
    if error.validator == "type" and "in quotes" not in expected:
        expected += _quotes_fix(error)
    return f"{key}: {value}{f'expected {expected}' if expected else one_line(error.message)[:300]}"


def key_of(error: Any) -> str:
    """The dotted key that jsonschema's ValidationError is about, an unknown one included; `` for the whole file."""
    path = [str(part) for part in error.absolute_path]
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        path += [str(next(name for name in error.instance if name not in known))]
    return ".".join(path)


def _annotation(error: Any, word: str) -> Any:
    """The schema's `word` for the part that failed or, where that part is one of several alternatives, for the whole."""
    current: Any = error
    while current is not None:
        if isinstance(current.schema, dict) and word in current.schema:
            return current.schema[word]
        if current.parent is None or current.parent.validator not in ("anyOf", "oneOf", "propertyNames"):
            return None
        current = current.parent
    return None


def _expected(error: Any) -> str:
    value = error.validator_value
    if error.validator == "type":
        return " or ".join(TYPES.get(name, name) for name in ([value] if isinstance(value, str) else value))
    if error.validator == "enum":
        choices = ["null" if choice is None else str(choice) for choice in value]
        return f"one of {', '.join(choices)}{nearest(str(error.instance), choices)}"
    bounds = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than", "exclusiveMaximum": "less than"}
    if error.validator in bounds:
        return f"{bounds[error.validator]} {value}"
    return ""


def _quotes_fix(error: Any) -> str:
    names, value = error.validator_value, error.instance
    if "string" in names and isinstance(value, int | float) and not isinstance(value, bool):
        return f'; put it in quotes: "{value}"'
    if ("integer" in names or "number" in names) and isinstance(value, str) and value.isdecimal():
        return f"; without quotes: {value}"
    return ""


def _unknown(error: Any, key: str) -> str:
    known = list(error.schema.get("properties", {}))
    unknown = [name for name in error.instance if name not in known]
    prefix = "" if key == "the whole file" else f"{key}."
    near = nearest(str(unknown[0]), known)
    listed = "" if near else f"; known: {', '.join(known)}"
    return f"{prefix}{one_line(unknown[0])}: unknown key{near}{listed}"


def _as_json(value: Any) -> str:
    text = one_line(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
