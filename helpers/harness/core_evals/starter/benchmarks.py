"""The starter tasks as nemo-evaluator BYOB benchmarks: for each its data, its prompt and its rule for a right answer.

All have the same rule. The answers of a task's data are its labels, and the label that the response names first must be the right
one; so a response that lists many labels gains nothing. A label that the question itself names does not count.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_evaluator.contrib.byob import ScorerInput, benchmark, scorer

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parent / "data"


def data_file(task: str) -> Path:
    """Return the JSONL file with a task's samples."""
    return DATA / f"{task}.jsonl"


def words(text: str) -> str:
    """Return the text in lower case, without accents and punctuation, its words between single spaces, a space at both ends."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return f" {' '.join(re.findall(r'[a-z0-9]+', bare))} "


def first_named(response: str, labels: Iterable[str], question: str) -> str | None:
    """Return the label that the response names first, the longest of those at one place; None when it names none.

    Labels that occur in the question are left out: a response may repeat the question.
    """
    said, asked = words(response), words(question)
    places = [(said.find(words(label)), -len(label), label) for label in labels if words(label) not in asked]
    return min((place for place in places if place[0] >= 0), default=(0, 0, None))[2]


@cache
def labels_of(task: str) -> tuple[str, ...]:
    """Return every answer in a task's data, whatever part of it is run."""
    rows = data_file(task).read_text(encoding="utf-8").splitlines()
    return tuple(sorted({json.loads(row)["answer"] for row in rows}))


def correct(task: str, sample: ScorerInput) -> dict[str, bool]:
    """Score one response: {"correct": …}."""
    named = first_named(sample.response, labels_of(task), sample.metadata["question"])
    return {"correct": named == sample.target}


@benchmark(
    "capitals",
    dataset=str(data_file("capitals")),
    prompt="What is the capital city of {question}? Answer with the name of the city.",
    target_field="answer",
)
@scorer
def capitals(sample: ScorerInput) -> dict[str, bool]:
    """Score a response of the task capitals."""
    return correct("capitals", sample)


@benchmark("continents", dataset=str(data_file("continents")), prompt="Which continent is {question} in?", target_field="answer")
@scorer
def continents(sample: ScorerInput) -> dict[str, bool]:
    """Score a response of the task continents."""
    return correct("continents", sample)


@benchmark("languages", dataset=str(data_file("languages")), prompt="What is the official language of {question}?", target_field="answer")
@scorer
def languages(sample: ScorerInput) -> dict[str, bool]:
    """Score a response of the task languages."""
    return correct("languages", sample)


@benchmark("opposites", dataset=str(data_file("opposites")), prompt='What is the opposite of the word "{question}"?', target_field="answer")
@scorer
def opposites(sample: ScorerInput) -> dict[str, bool]:
    """Score a response of the task opposites."""
    return correct("opposites", sample)
