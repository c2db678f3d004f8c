"""Reading samples out of what harnesses leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.executors import samples


def predictions(folder: Path, *lines: dict[str, Any]) -> Path:
    """The predictions.jsonl of nemo-evaluator's runner, with what differs in each line."""
    folder.mkdir(parents=True, exist_ok=True)
    same = {"prompt": "p", "response": "r", "target": "t", "scores": {"correct": True}, "status": "scored", "error": None, "metadata": {}}
    (folder / "predictions.jsonl").write_text("".join(json.dumps({"sample_id": i, **same, **one}) + "\n" for i, one in enumerate(lines)))
    return folder


def lm_eval(folder: Path, name: str, *lines: dict[str, Any]) -> Path:
    """A samples file of lm-eval 0.4.8."""
    same = {"target": "B", "arguments": {"gen_args_0": {"arg_0": "p", "arg_1": "B"}}, "resps": [["r"]], "filtered_resps": ["r"]}
    (folder / "org__model").mkdir(parents=True, exist_ok=True)
    (folder / "org__model" / name).write_text("".join(json.dumps({**same, **one}) + "\n" for one in lines))
    return folder


def row(value: float, score: str, part: str | None = None) -> dict[str, Any]:
    return {"part": part, "score": score, "value": value}


def test_a_sample_is_known_by_its_sources_id_and_repeats_by_their_order(tmp_path: Path) -> None:
    lines = [
        {"metadata": {"id": "a"}},
        {"metadata": {"id": "a"}},
        {"metadata": {"question": "q"}},
        {"metadata": {"id": "x"}, "status": "error"},
    ]
    found = samples.read(predictions(tmp_path, *lines))
    assert [one.id for one in found[:2]] == ["a", "a#2"]
    assert len(found) == 3, "what failed has no score"
    assert found[2].id == samples.read(predictions(tmp_path, *reversed(lines)))[0].id, "a hash of the document, wherever it stands"


def test_lm_evals_newest_file_of_each_task_counts_and_filters_are_scores_of_their_own(tmp_path: Path) -> None:
    name = "samples_gsm8k_{}.jsonl"
    lm_eval(
        tmp_path, name.format("2026-11-27T10-00-00.1"), {"doc_id": 0, "doc_hash": "old", "exact_match": 0.0, "metrics": ["exact_match"]}
    )
    lines = [
        {
            "doc_id": doc,
            "doc_hash": f"h{doc}",
            "filter": one,
            "metrics": ["exact_match"],
            "exact_match": float(doc == 0 or one == "flexible"),
        }
        for one in ("strict", "flexible")
        for doc in (0, 1)
    ]
    lm_eval(tmp_path, name.format("2026-11-27T11-00-00.1"), *lines)
    found = samples.read(tmp_path)
    assert [(one.part, one.id, one.scores) for one in found] == [
        ("gsm8k", "h0", {"exact_match__strict": 1.0, "exact_match__flexible": 1.0}),
        ("gsm8k", "h1", {"exact_match__strict": 0.0, "exact_match__flexible": 1.0}),
    ]
    assert list(samples.series(found, row(0.5, "exact_match__strict"))) == [("gsm8k", "h0"), ("gsm8k", "h1")]


def test_samples_of_an_lm_eval_that_names_no_metrics(tmp_path: Path) -> None:
    lm_eval(tmp_path, "samples_arc_2026.jsonl", {"doc_id": 7, "doc": {"q": 1}, "doc_hash": None, "acc": 1.0, "acc_norm": 0.0})
    assert samples.read(tmp_path)[0].scores == {"acc": 1.0, "acc_norm": 0.0}


def test_samples_that_do_not_give_the_score_are_not_those_it_was_made_from(tmp_path: Path) -> None:
    found = samples.read(predictions(tmp_path, {"metadata": {"id": "a"}}, {"metadata": {"id": "b"}, "scores": {"correct": False}}))
    assert len(samples.series(found, row(0.5, "accuracy"))) == 2
    assert samples.series(found, row(0.6, "accuracy")) == {}
    several = [one._replace(scores={"x": 0.5, "y": 0.5}) for one in found]
    assert samples.series(several, row(0.5, "accuracy")) == {}, "which of them is not said"
    assert len(samples.series(several, row(0.5, "y"))) == 2


def test_a_row_of_a_part_has_the_samples_of_that_part_and_a_whole_all(tmp_path: Path) -> None:
    for part, value in (("law", 1.0), ("art", 0.0)):
        lm_eval(tmp_path, f"samples_mmlu_{part}_2026.jsonl", {"doc_id": 0, "doc_hash": "same", "acc": value, "metrics": ["acc"]})
    found = samples.read(tmp_path)
    assert list(samples.series(found, row(1.0, "acc", "mmlu_law"))) == [("mmlu_law", "same")]
    assert len(samples.series(found, row(0.5, "acc", "mmlu"))) == 2


def test_torn_and_foreign_files_have_no_samples(tmp_path: Path) -> None:
    for text in ('{"status": "scored"', '{"other": 1}\n', "[1]\n", "\xff"):
        (tmp_path / "predictions.jsonl").write_bytes(text.encode("latin-1"))
        assert samples.read(tmp_path) == []
    assert samples.read(tmp_path / "none") == []
