"""The fast check of a document against its schema never says yes where jsonschema says no, and knows every keyword that is used."""

import json
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from helpers.common import files, schema_check

SCHEMAS = {path.name: json.loads(path.read_text()) for path in sorted(files.SCHEMAS.glob("*.schema.json"))}
HANDLED = {*schema_check.LIMITS, *schema_check.PARTS, *schema_check.ANNOTATIONS, "$ref"}
# Values at which a type, a limit, a pattern or an equality is easily taken for another.
ODD = [None, True, False, 0, 1, -1, 1.0, 1.5, 10**9, "", "a", "1", "true", "a\n", "none", "slurm", "host:A", "\x7f", "x" * 200]
ODD += [
    [],
    [""],
    ["a", "a"],
    ["a", "b"],
    [1, 1],
    {},
    {"a": 1},
    {"type": "none"},
    {"execution": {"type": "slurm"}},
    date(2026, 1, 1),
]


def parts(schema):
    """The schema and every schema in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword, argument in schema.items():
        if keyword in ("properties", "$defs"):
            for inner in argument.values():
                yield from parts(inner)
        elif keyword == "anyOf":
            for inner in argument:
                yield from parts(inner)
        elif keyword in ("items", "additionalProperties", "propertyNames", "not", "if", "then"):
            yield from parts(argument)


def whole(part, schema):
    """A part as a schema of its own, so that its references lead somewhere."""
    return {**part, "$defs": schema.get("$defs", {})}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_keyword_of_a_schema_is_handled(name):
    unknown = {keyword for part in parts(SCHEMAS[name]) for keyword in part if not keyword.startswith("x-")} - HANDLED
    assert not unknown


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_says_of_odd_values_and_examples_what_jsonschema_says(name):
    checked = set()
    for part in parts(SCHEMAS[name]):
        bare = {keyword: argument for keyword, argument in part.items() if keyword not in ("title", "description")}
        if (text := json.dumps(bare, sort_keys=True)) in checked or ".schema.json" in text:
            continue
        checked.add(text)
        alone = whole(part, SCHEMAS[name])
        validator = Draft202012Validator(alone)
        for value in [*ODD, *part.get("examples", [])]:
            assert schema_check.surely_fits(value, alone) in (False, validator.is_valid(value)), (bare, value)


def test_what_fits_is_known_to_fit():
    """The check is of use: of the examples of all schemas, which fit, it says so."""
    for schema in SCHEMAS.values():
        for part in parts(schema):
            for example in part.get("examples", []) if ".schema.json" not in json.dumps(part) else []:
                assert schema_check.surely_fits(example, whole(part, schema)), (part, example)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2).map(lambda number: round(number, 1)) | st.text("ab:/\n", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])
LEAVES = st.one_of(
    st.booleans(),
    st.fixed_dictionaries({"type": KINDS | st.lists(KINDS, min_size=1, max_size=2, unique=True)}),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from([0, 1, True, "a", None, 1.0]), min_size=1, max_size=2)}),
    st.fixed_dictionaries({}, optional={"minimum": st.integers(-1, 1), "maximum": st.integers(-1, 1), "exclusiveMinimum": st.just(0)}),
    st.fixed_dictionaries({}, optional={"minLength": st.just(1), "maxLength": st.just(2), "pattern": st.sampled_from(["a", "^b"])}),
    st.fixed_dictionaries({}, optional={"minItems": st.just(1), "uniqueItems": st.booleans(), "required": st.just(["a"])}),
    st.just({"$ref": "#/$defs/text"}),
)


def _nested(inner):
    names = st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    return st.one_of(
        st.fixed_dictionaries({}, optional={"properties": names, "additionalProperties": inner, "propertyNames": inner}),
        st.fixed_dictionaries({}, optional={"items": inner, "anyOf": st.lists(inner, min_size=1, max_size=2), "not": inner}),
        st.fixed_dictionaries({"if": inner, "then": inner}),
    )


@settings(max_examples=200, deadline=None)
@given(VALUES, st.recursive(LEAVES, _nested, max_leaves=5).filter(lambda schema: isinstance(schema, dict)))
def test_it_never_says_yes_where_jsonschema_says_no(value, schema):
    schema = {**schema, "$defs": {"text": {"type": "string"}}}
    if schema_check.surely_fits(value, schema):
        assert Draft202012Validator(schema).is_valid(value)


def test_a_keyword_or_a_reference_that_is_not_handled_is_left_to_jsonschema():
    assert not schema_check.surely_fits("a", {"contains": {}})
    assert not schema_check.surely_fits("a", {"$ref": "other.schema.json#/a"})
    assert not schema_check.surely_fits("a", {"not": {"oneOf": [{"type": "null"}]}})
