"""helpers/executors/answers.py: what answers carry, and how they are counted out of what nemo-evaluator keeps."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from endpoint import SHAPES, chosen
from helpers.executors import answers
from local_jobs import kept

MODULE = Path(answers.__file__)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("null", "empty"),
        ("empty", "empty"),
        ("blank", "empty"),
        ("reasoning", "reasoning"),
        ("thinking", "reasoning"),
        ("cut", "cut"),
        ("cut thinking", "cut"),
        ("tools", "tool_calls"),
        ("refusal", "refused"),
        ("filtered", "refused"),
        ("parts", "text"),
    ],
)
def test_why_an_answer_carries_nothing_to_score(shape: str, kind: str) -> None:
    assert answers.look(SHAPES[shape])[0] == kind


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("number", "content that is no text"),
        ("html", "an HTML page"),
        ("stream", "an event stream"),
        ("chunk", "a choice without a message"),
        ("no choices", "an answer without choices"),
        ("error", answers.ERROR),
        ("list", "JSON that is no object"),
        ("nothing", "an answer without a body"),
    ],
)
def test_an_answer_of_another_shape_is_told_in_words(shape: str, words: str) -> None:
    assert answers.look(SHAPES[shape]) == ("unreadable", words)


def test_no_body_at_all_raises() -> None:
    for body in (b"\xff\xfe", b"null", b"0", b'"x"', b'{"choices": 5}', b'{"choices": [5]}', b'{"choices": [{"message": 5}]}', b"{}"):
        assert answers.look(body)[0] == "unreadable", body


def test_text_is_text_whatever_comes_with_it() -> None:
    assert answers.look(chosen({"content": "cold", "reasoning_content": "hm", "tool_calls": []})) == ("text", "cold")
    assert answers.look(chosen({"content": "<think>hm</think> cold"})) == ("text", "<think>hm</think> cold")
    assert answers.look(chosen({"content": "The opposite of"}, "length")) == ("cut_text", "The opposite of")
    assert answers.look(SHAPES["parts"]) == ("text", "cold")


def test_log_likelihoods_and_embeddings_are_neither_cut_nor_empty() -> None:
    scored = {"choices": [{"text": "a b", "logprobs": {"tokens": ["a"]}, "finish_reason": "length"}]}
    assert answers.look(json.dumps(scored).encode())[0] == "text"
    scored["choices"][0]["text"] = ""
    assert answers.look(json.dumps(scored).encode())[0] == "text"
    assert answers.look(b'{"data": [{"embedding": [0.1]}]}')[0] == "text"


def test_answers_are_counted_out_of_nemo_evaluator_s_cache(tmp_path: Path) -> None:
    long = chosen({"content": "x" * 100_000})  # kept in a file beside the database
    found = answers.count(kept(tmp_path, SHAPES["null"], SHAPES["html"], SHAPES["html"], SHAPES["nothing"], long, SHAPES["parts"]))
    assert found
    assert {name: number for name, number in found.items() if number} == {
        "seen": 6,
        "scorable": 2,
        "empty": 1,
        "unreadable": 3,
        "shape": "an HTML page",
    }


def test_calls_of_tools_can_be_scored_if_the_task_offers_tools(tmp_path: Path) -> None:
    for request, scorable in (({"tools": [{}]}, 1), ({"messages": [{"content": '"tools": [{}]'}]}, 0)):
        found = answers.count(kept(tmp_path / str(scorable), SHAPES["tools"], request=request))
        assert found
        assert (found["scorable"], found["tool_calls"]) == (scorable, 1 - scorable)


def test_without_a_cache_or_with_a_torn_one_nothing_is_said(tmp_path: Path) -> None:
    assert answers.count(tmp_path) is None
    folder = tmp_path / "cache" / "responses"
    folder.mkdir(parents=True)
    (folder / "cache.db").write_bytes(b"torn")
    assert answers.count(tmp_path) is None
    (tmp_path / "samples.json").write_text('{"answers": 5}')
    assert answers.count(tmp_path) is None


def test_the_module_can_be_read_by_the_oldest_python_of_a_login_node() -> None:
    tree = ast.parse(MODULE.read_text(), feature_version=(3, 6))
    imported = {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names - {"__future__", "dataclasses"}


@pytest.mark.slow
def test_the_module_alone_is_a_script_that_prints_the_counts(tmp_path: Path) -> None:
    """As it runs on a login node: its text, isolated from everything that is installed."""
    kept(tmp_path, SHAPES["null"])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", MODULE.read_text(), str(tmp_path)], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == {"answers": answers.count(tmp_path)}
