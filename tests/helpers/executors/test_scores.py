"""Scores out of every form of results.yml that a harness may write, and what is said of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from endpoint import SHAPES, chosen
from helpers.common import files
from helpers.executors import job_folder, record, scores, validity
from helpers.executors.process import jobs as process_jobs
from helpers.steps import results, status
from local_jobs import kept

SCORE = "{value: 0.5, stats: {count: 4, stderr: 0.25}}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "results.yml"
    path.write_text(text)
    return path


def one(value: str) -> str:
    return f"results: {{tasks: {{t: {{metrics: {{m: {{scores: {{s: {value}}}}}}}}}}}}}"


@pytest.mark.parametrize(
    ("score", "value", "stderr", "n"),
    [
        (SCORE, 0.5, 0.25, 4),
        ("{value: 0.5}", 0.5, None, None),
        ("{value: 0.5, stats: null}", 0.5, None, None),
        ("{value: .nan, stats: {count: 4, stderr: .nan}}", None, None, 4),
        ("{value: .inf, stats: {count: .nan, stderr: -1}}", None, None, None),
        ("{value: 1e-05, stats: {count: 4.0}}", 1e-05, None, 4),
        ("{value: true}", None, None, None),
        ("{value: high, stats: [1]}", None, None, None),
        ("{value: 3, unknown: {a: 1}, stats: {count: 2, other: 1}}", 3.0, None, 2),
        ("null", None, None, None),
    ],
)
def test_a_score(tmp_path: Path, score: str, value: float | None, stderr: float | None, n: int | None) -> None:
    path = written(tmp_path, one(score))
    assert scores.read_scores(path) == [{"part": None, "metric": "m", "score": "s", "value": value, "stderr": stderr, "n": n}]
    assert scores.has_scores(path) == (value is not None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "results:",
        "results: {tasks: {}}",
        "results: {tasks: {t: {metrics: }}}",
        "results: {tasks: [1, 2]}",
        "results: {tasks: {t: 0.5}}",
        "results: {tasks: {t: {metrics: {m: {scores: 1}}}}}",
        "config: {}",
        "- 1",
        "results: {tasks: {t: {metr",
        "\x00\x01",
        "results: !!python/object:os.system {}",
    ],
)
def test_torn_empty_or_foreign_results_are_no_scores(tmp_path: Path, text: str) -> None:
    assert scores.read_scores(written(tmp_path, text)) == []
    assert not scores.has_scores(written(tmp_path, text))


def test_bytes_that_are_no_text_are_no_scores(tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_bytes(b"\xff\xfe\xfa")
    assert scores.read_scores(tmp_path / "results.yml") == []
    assert scores.read_scores(tmp_path / "absent.yml") == []


COUNTED = {
    "n-samples": {"a": {"original": 100, "effective": 10}, "b": {"original": 7, "effective": 7}, "c": {}},
    "group_subtasks": {"all": ["some", "b"], "some": ["a"], "unknown": ["b", "c"], "a": []},
}


def test_lm_eval_s_sample_counts_fill_what_its_scores_lack(tmp_path: Path) -> None:
    listed = ", ".join(
        f"{name}: {{metrics: {{m: {{scores: {{m: {{value: 0.5, stats: {{}}}}}}}}}}}}" for name in ("a", "b", "all", "unknown")
    )
    path = written(tmp_path, f"results: {{tasks: {{{listed}}}}}")
    own = tmp_path / "toy/results_2026-11-27T11-00-00.json"
    own.parent.mkdir()
    own.write_text(json.dumps(COUNTED))
    # The newest one counts, by its name: a copy may have another time.
    own.with_name("results_2026-11-27T10-00-00.json").write_text(json.dumps({"n-samples": {"a": {"effective": 99}}}))
    assert {row["part"]: row["n"] for row in scores.read_scores(path)} == {"a": 10, "b": 7, "all": 17, "unknown": None}
    own.write_text("torn")
    assert {row["n"] for row in scores.read_scores(path)} == {None}


def test_a_count_of_the_score_itself_stays(tmp_path: Path) -> None:
    path = written(tmp_path, one("{value: 0.5, stats: {count: 4}}"))
    (tmp_path / "results_1.json").write_text('{"n-samples": {"t": {"effective": 9}}}')
    assert scores.read_scores(path)[0]["n"] == 4


def test_a_score_over_no_sample_is_none(tmp_path: Path) -> None:
    assert not scores.has_scores(written(tmp_path, one("{value: 0.0, stats: {count: 0}}")))


def test_several_metrics_scores_parts_and_groups_in_an_order_that_does_not_depend_on_the_file(tmp_path: Path) -> None:
    tasks = {
        "law": f"{{metrics: {{acc: {{scores: {{norm: {SCORE}, acc: {SCORE}}}}}}}}}",
        "art": f"{{metrics: {{f1: {{scores: {{f1: {SCORE}}}}}, acc: {{scores: {{acc: {SCORE}}}}}}}}}",
    }
    # A group has a score of its own, repeats a task's, and holds another group.
    inner = f"{{metrics: {{acc: {{scores: {{acc: {SCORE}}}}}}}}}"
    groups = f"{{mmlu: {{metrics: {{acc: {{scores: {{acc: {SCORE}}}}}}}, groups: {{stem: {inner}}}}}, art: {inner}}}"

    def read(order: list[str]) -> list[dict[str, Any]]:
        listed = ", ".join(f"{name}: {tasks[name]}" for name in order)
        return scores.read_scores(written(tmp_path, f"results: {{tasks: {{{listed}}}, groups: {groups}}}"))

    rows = read(["law", "art"])
    assert [(row["part"], row["metric"], row["score"]) for row in rows] == [
        ("art", "acc", "acc"),
        ("art", "f1", "f1"),
        ("law", "acc", "acc"),
        ("law", "acc", "norm"),
        ("mmlu", "acc", "acc"),
        ("stem", "acc", "acc"),
    ]
    assert read(["art", "law"]) == rows


def submitted(tmp_path: Path, codes: dict[str, int | None]) -> dict[str, Any]:
    """A submission with one task per name, each ended with its code, with a score where it is 0."""
    jobs = []
    for index, (name, code) in enumerate(codes.items()):
        folder = tmp_path / "jobs" / f"{name}.{index}"
        for part in ("logs", "artifacts"):
            (folder / part).mkdir(parents=True)
        job_folder.stage(folder, "running")
        if code is not None:
            job_folder.stage(folder, "exit", code)
        if code == 0:
            (folder / "artifacts/results.yml").write_text(one(SCORE))
            (folder / "artifacts/samples.json").write_text('{"asked": 10, "failed": 6}')
        jobs.append({"task": name, "index": index, "harness": "h", "job_id": f"i.{index}", "job_dir": str(folder)})
    return {"executor": "process", "invocation_id": "i", "seal": "sha256:" + "0" * 64, "jobs": jobs}


def collected(submission: dict[str, Any], seen: dict[str, Any] | None = None, model_name: str | None = None) -> dict[str, Any]:
    """results.json of a submission without the other files of a run."""
    about = record.of_run(Path("/no/such/run"))
    about["model"]["name"] = model_name
    return scores.collect(submission, seen or status.ask(submission), about)


@pytest.mark.parametrize(
    ("value", "stderr", "n", "shown"),
    [
        (1.0, 0.0, 4, "1.000 [0.510, 1.000] (4)"),
        (1.0, None, 4, "1.000 [0.510, 1.000] (4)"),
        (0.0, 0.0, 40, "0.000 [0.000, 0.088] (40)"),
        (0.725, 0.0706, 40, "0.725 [0.572, 0.839] (40)"),
        (0.725, 0.0715, 40, "0.725 [0.572, 0.839] (40)"),  # divided by n - 1
        (1.0, 0.0, 1, "1.000 [0.207, 1.000] (1)"),
        # No share: the spread is another, or no whole number is right.
        (0.5, 0.01, 40, "0.500 [0.480, 0.520] (40)"),
        (0.51, 0.05, 40, "0.510 [0.409, 0.611] (40)"),
        (31.2, 1.5, 100, "31.200 [28.224, 34.176] (100)"),
        # Without a number of samples the normal interval; without a spread none.
        (0.5, 0.01, None, "0.500 [0.480, 0.520]"),
        (0.51, None, 40, "0.510 (40)"),
        (0.51, 0.0, 40, "0.510 ± 0.000 (40)"),
        (2.0, 0.5, 1, "2.000 ± 0.500 (1)"),
        (None, 0.5, 10, "- ± 0.500 (10)"),
        (1.0, None, None, "1.000"),
    ],
)
def test_a_score_is_shown_with_its_interval(value: float | None, stderr: float | None, n: int | None, shown: str) -> None:
    row = {"value": value, "stderr": stderr, "n": n}
    assert scores.cell({**row, "interval": scores.interval(row)}) == shown


def test_a_row_of_an_older_file_is_shown_with_its_standard_error() -> None:
    assert scores.cell({"value": 0.5, "stderr": 0.25, "n": 4}) == "0.500 ± 0.250 (4)"


def test_only_tasks_that_succeeded_have_rows_and_failed_samples_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submission = submitted(tmp_path, {"good": 0, "bad": 1})
    found = collected(submission)
    files.validate(files.seal_json(found), "results", "results")
    assert [row["task"] for row in found["rows"]] == ["good"]
    assert [entry["state"] for entry in found["tasks"]] == ["SUCCEEDED", "FAILED"]
    assert scores.notices(found) == ["good: 6 of 10 samples failed and count in no score"]
    results._print(found)
    told = capsys.readouterr()
    assert "0.500 [0.150, 0.850] (4)" in told.out
    assert "6 of 10 samples failed and count in no score" in told.err


def test_a_score_over_answers_that_carry_nothing_is_a_failure(tmp_path: Path) -> None:
    """A harness that knows nothing of it scores them all as wrong."""
    submission = submitted(tmp_path, {"null": 0})
    (tmp_path / "jobs/null.0/artifacts/results.yml").write_text(one("{value: 0.0, stats: {count: 2}}"))
    kept(tmp_path / "jobs/null.0/artifacts", SHAPES["null"], SHAPES["cut"], SHAPES["cut"])
    found = collected(submission)
    files.validate(files.seal_json(found), "results", "results")
    assert found["rows"] == []
    assert [(entry["state"], entry["answers"]["cut"]) for entry in found["tasks"]] == [("FAILED", 2)]
    assert found["tasks"][0]["reason"].startswith("there is nothing to score: 2 of 3 answers were cut before they said anything; raise ")


def test_some_answers_that_carry_nothing_are_told_with_their_share(tmp_path: Path) -> None:
    submission = submitted(tmp_path, {"some": 0})
    cut = chosen({"content": "The answer"}, "length")
    kept(tmp_path / "jobs/some.0/artifacts", SHAPES["null"], SHAPES["html"], SHAPES["html"], SHAPES["parts"], cut, cut)
    seen = status.ask(submission)
    files.validate(files.seal_json(seen), "status", "status")
    told = scores.notices(collected(submission, seen))
    assert [text.partition(";")[0] for text in told] == [
        "some: 6 of 10 samples failed and count in no score",
        "some: 2 of 6 answers were an HTML page",
        "some: 1 of 6 answers were empty",
        "some: 2 of 6 answers were cut by the limit of tokens and scored as they are",
    ]
    found = collected(submission, seen)
    files.validate(files.seal_json(found), "results", "results")
    assert [(one["share"], one["limit"]) for one in found["tasks"][0]["validity"]["reasons"]] == [(0.5, 0.25), (2 / 6, 0.25), (0.6, 0.25)]
    assert validity.headline(found["tasks"], {0: "some"}) == "0 of 1 tasks are valid; invalid: some"


def test_answers_are_counted_once_and_again_after_the_task_ran_again(tmp_path: Path) -> None:
    submission = submitted(tmp_path, {"null": 0})
    folder = tmp_path / "jobs/null.0"
    kept(folder / "artifacts", SHAPES["null"])
    assert status.ask(submission)["jobs"][0]["state"] == "FAILED"
    answers = folder / "answers.json"
    before = answers.stat().st_ino
    assert status.ask(submission)["jobs"][0]["state"] == "FAILED"
    assert answers.stat().st_ino == before
    process_jobs.reopen(folder)
    assert not (folder / "artifacts/cache").exists(), "the same answers would be given to the harness again"
    kept(folder / "artifacts", SHAPES["parts"])
    (folder / "artifacts/results.yml").write_text(one(SCORE))
    job_folder.stage(folder, "running")
    job_folder.stage(folder, "exit", 0)
    assert status.ask(submission)["jobs"][0]["answers"]["scorable"] == 1


def test_answers_with_something_to_score_are_kept_for_the_next_attempt(tmp_path: Path) -> None:
    submission = submitted(tmp_path, {"torn": 1})
    kept(tmp_path / "jobs/torn.0/artifacts", SHAPES["null"], SHAPES["parts"])
    status.ask(submission)
    process_jobs.reopen(tmp_path / "jobs/torn.0")
    assert (tmp_path / "jobs/torn.0/artifacts/cache").exists()


def test_a_success_without_a_number_is_a_failure(tmp_path: Path) -> None:
    submission = submitted(tmp_path, {"empty": 0})
    (tmp_path / "jobs/empty.0/artifacts/results.yml").write_text(one("{value: .nan}"))
    assert [(job["state"], job["reason"]) for job in status.ask(submission)["jobs"]] == [("FAILED", "results.yml holds no score")]


def test_rich_markup_and_escapes_in_names_do_nothing_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submission = submitted(tmp_path, {"[red]x": 0})
    results._print(collected(submission))
    assert "[red]x" in capsys.readouterr().out


def test_the_table_of_a_run_without_results_names_the_model_and_the_whole_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = submitted(tmp_path, {"bad": 1})
    seen = status.ask(submission)
    seen["jobs"][0]["reason"] = "exit code 1; the server ended: CUDA out of memory; use fewer"
    results._print(collected(submission, seen, "my-model"))
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Results of my-model" in told
    assert re.search("CUDA.* out.* of.* memory;.* use.* fewer", told), "the reason is folded, and the seconds stand beside its first line"
