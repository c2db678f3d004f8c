"""The samples of a task, one by one, read from what its harness leaves in its artifacts.

Two forms are known: predictions.jsonl of nemo-evaluator's own runner (BYOB) and of the starter tasks, and lm-eval's
samples_TASK_TIME.jsonl. A sample's id is that of its source, or a hash of its document, with an ordinal for repeats; neither depends on the
number of examples in the prompt, so runs that differ in it still pair.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One sample: the part it belongs to, its id, its scores by their names in results.json, and what was asked, answered and expected."""

    part: str
    id: str
    scores: dict[str, float]
    prompt: str
    response: str
    expected: str


def read(artifacts: Path) -> list[Sample]:
    """The scored samples of a task. Empty when its harness leaves none, or a file of it is torn: half of them would be another set."""
    try:
        if (artifacts / "predictions.jsonl").exists():
            found = list(_byob(artifacts / "predictions.jsonl"))
        else:
            newest = {path.name.removeprefix("samples_").rpartition("_")[0]: path for path in sorted(artifacts.glob("**/samples_*.jsonl"))}
            found = [sample for part, path in newest.items() for sample in _lm_eval(part, path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    times: Counter[tuple[str, str]] = Counter()
    for number, one in enumerate(found):
        times[one.part, one.id] += 1
        if (time := times[one.part, one.id]) > 1:
            found[number] = one._replace(id=f"{one.id}#{time}")
    return found


def series(samples: list[Sample], row: dict[str, Any]) -> dict[tuple[str, str], Sample]:
    """The samples of a row of results.json by part and id, each with only that row's score, called `score`.

    A row is the mean of the score of its name, or of the only score that there is. Empty unless that mean is the row's value: scores
    that do not give the number in results.json are not those that it was made from.
    """
    own = [one for one in samples if one.part == row["part"]] or samples
    names = {name for one in own for name in one.scores}
    wanted = row["score"] if row["score"] in names else next(iter(names)) if len(names) == 1 else None
    found = {(one.part, one.id): one._replace(scores={"score": one.scores[wanted]}) for one in own if wanted in one.scores}
    mean = sum(one.scores["score"] for one in found.values()) / len(found) if found else None
    return found if mean is not None and row["value"] is not None and abs(mean - row["value"]) < 1e-6 else {}  # noqa: PLR2004


def _byob(path: Path) -> Iterator[Sample]:
    for line in _lines(path):
        if line["status"] == "scored":
            document = line["metadata"]
            name = str(document["id"]) if "id" in document else _hash(document)
            yield Sample("", name, _numbers(line["scores"]), str(line["prompt"]), str(line["response"]), str(line["target"]))


def _lm_eval(part: str, path: Path) -> Iterator[Sample]:
    """A document has a line for each filter of its answers; the name of a score that a filter made ends in the filter's."""
    merged: dict[Any, Sample] = {}
    for line in _lines(path):
        suffix = "" if line.get("filter", "none") == "none" else f"__{line['filter']}"
        # Before 0.4.8 no line said which of its keys are metrics.
        names = line.get("metrics") or [name for name, value in line.items() if name != "doc_id" and isinstance(value, int | float)]
        scores = {f"{name}{suffix}": value for name, value in _numbers({name: line.get(name) for name in names}).items()}
        before = merged.get(line["doc_id"])
        first = line["arguments"]["gen_args_0"]["arg_0"] if isinstance(line.get("arguments"), dict) else ""
        response = json.dumps(line["resps"], ensure_ascii=False)
        name = str(line.get("doc_hash") or _hash(line["doc"]))
        new = Sample(part, name, scores, str(first), response, str(line["target"]))
        merged[line["doc_id"]] = before._replace(scores=before.scores | scores) if before else new
    yield from merged.values()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
