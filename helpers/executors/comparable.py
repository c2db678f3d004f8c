"""Whether the scores of two runs measure the same: every difference by name, with both values."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# Parameters that change how fast a task runs, not what it measures.
SPEED = {"parallelism", "request_timeout", "max_retries"}


class Mismatch(NamedTuple):
    """One difference between two runs: its key, both values as text, and whether it forbids a comparison."""

    key: str
    one: str
    other: str
    blocks: bool


def mismatches(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Mismatch]:
    """The differences between two entries of results.json for the same task. What an older file does not say does not block."""
    if one["harness"] != other["harness"]:
        yield Mismatch("harness", one["harness"], other["harness"], True)
    mine, theirs = one.get("record"), other.get("record")
    if mine is None or theirs is None:
        known = ["not known" if record is None else "known" for record in (mine, theirs)]
        yield Mismatch("record", known[0], known[1], False)
        return
    for key in ("task_versions", "image", "digest", "endpoint_type", "few_shot", "prompt", "tokenizer"):
        # A digest that was never asked for says nothing; an image without one is known by its name.
        unknown = key == "digest" and None in (mine[key], theirs[key])
        yield from _of(key, mine[key], theirs[key], not unknown)
    for section in ("params", "adapter"):
        for key in sorted({*mine[section], *theirs[section]} - SPEED):
            yield from _of(key, mine[section].get(key), theirs[section].get(key))
    yield from _of("evaluator", mine["evaluator"], theirs["evaluator"], False)


def of_versions(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Mismatch]:
    """The packages here whose versions differ between two results.json, where both know them."""
    mine, theirs = ((results.get("record") or {}).get("versions") or {} for results in (one, other))
    for name in sorted(mine.keys() & theirs.keys()):
        yield from _of(name, mine[name], theirs[name], False)


def _of(key: str, one: Any, other: Any, blocks: bool = True) -> Iterator[Mismatch]:
    if one != other:
        yield Mismatch(key, _text(one), _text(other), blocks)


def _text(value: Any) -> str:
    if value is None or value == {}:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
