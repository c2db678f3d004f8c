"""helpers/steps/sweep.py: the table of a sweep, its cap, and what the Make of a run is told; whole sweeps are in tests/test_sweep.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT
from helpers.common import step
from helpers.common.errors import Unreachable
from helpers.common.step import Exit
from helpers.steps import sweep


def entry(model: str, scores: list[dict[str, Any]], *failed: str, version: str = "v1") -> dict[str, Any]:
    return {"model": model, "run": "r", "name": "n", "version": version, "scores": scores, "failed": list(failed)}


def score(label: str, value: float, part: str | None = None, metric: str = "acc", name: str | None = None) -> dict[str, Any]:
    row = {"label": label, "task": label, "index": 0, "part": part, "metric": metric, "score": name or metric}
    return {**row, "value": value, "stderr": 0.01, "n": 40}


def lines(capsys: pytest.CaptureFixture[str], *entries: dict[str, Any]) -> list[list[str]]:
    """The printed table as cells."""
    sweep.print_table(entries)
    return [[cell for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]


def test_models_are_rows_scores_are_columns_and_a_moving_alias_shows_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines(
        capsys,
        entry("sft:v1", [score("hellaswag", 0.5), score("mmlu", 0.25)]),
        entry("rl:latest", [score("hellaswag", 0.75)], "mmlu", version="v3"),
    )
    assert printed[0] == ["2 models"]
    assert [cell.strip() for cell in printed[1]] == ["model", "hellaswag acc", "mmlu acc"]
    assert [cell.strip() for cell in printed[2]] == ["sft:v1", "0.500 ± 0.010 (40)", "0.250 ± 0.010 (40)"]
    assert [cell.strip() for cell in printed[3]] == ["rl:latest (v3)", "0.750 ± 0.010 (40)", "failed"]


def test_of_a_benchmark_with_parts_the_whole_is_shown_and_all_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    whole = [score("lm.mmlu", 0.5, "mmlu"), score("lm.mmlu", 0.4, "mmlu_anatomy")]
    parts = [score("pair", 0.1, "left"), score("pair", 0.2, "right", metric="f1", name="macro")]
    head = [cell.strip() for cell in lines(capsys, entry("rl:v1", whole + parts))[1]]
    assert head == ["model", "lm.mmlu acc", "pair left acc", "pair right f1 macro"]


def test_a_score_that_a_model_lacks_though_its_task_did_not_fail_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines(capsys, entry("a:v1", [score("t", 0.5)]), entry("b:v1", [score("t", 0.5, metric="f1")]))
    assert [cell.strip() for cell in printed[3]] == ["b:v1", "-", "0.500 ± 0.010 (40)"]


def test_the_make_of_a_run_is_a_person_s_and_is_told_nothing_of_the_sweep_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$@" >&2\nenv | cut -d= -f1 >&2\nexit 7\n')
    make.chmod(0o755)
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "EVALMAKE_TASKS", "EVALMAKE_MODELS", "EVALMAKE_ENV_FILE", "HF_TOKEN"):
        monkeypatch.setenv(name, "x")
    code, said = sweep._run([str(make)], ["eval", "RUN=1"], quiet=True)
    words, *names = said.splitlines()
    assert (code, words) == (7, "--no-print-directory eval RUN=1")
    assert {"EVALMAKE_ENV_FILE", "HF_TOKEN", "PATH"} <= set(names)
    assert not [name for name in names if name.startswith(("MAKE", "MFLAGS", "EVALMAKE_TASKS", "EVALMAKE_MODELS"))]


@pytest.fixture
def one(tmp_path: Path) -> sweep.One:
    run = tmp_path / "20261122T013512Z-mine-7f3a"
    run.mkdir()
    (run / "events.jsonl").write_text('{"torn')
    return sweep.One("sft:v1", run)


def failing(tmp_path: Path, body: str, code: int = 2) -> list[str]:
    """A Make that does this and fails."""
    make = tmp_path / "make"
    make.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{body}\nsys.exit({code})\n")
    make.chmod(0o755)
    return [str(make)]


def test_how_a_run_s_step_ended_is_its_exit_and_not_make_s_2(tmp_path: Path, one: sweep.One) -> None:
    body = "\n".join(
        [
            "import contextlib, pathlib",
            "from helpers.common import step",
            "from helpers.common.errors import Unreachable",
            f"with contextlib.suppress(Unreachable), step.recorded(pathlib.Path({str(one.run)!r}), 'resolve_model'):",
            "    raise Unreachable('no answer')",
        ]
    )
    assert sweep._make(one, failing(tmp_path, body), ["eval"]) == Exit("resolve_model", 3, "no answer")
    assert sweep._make(one, failing(tmp_path, "", code=0), ["eval"]) is None


def test_the_exit_of_an_earlier_step_is_not_taken_for_that_of_a_step_that_was_killed(tmp_path: Path, one: sweep.One) -> None:
    with pytest.raises(Unreachable), step.recorded(one.run, "submit_eval"):
        raise Unreachable("before")
    failed = sweep._make(one, failing(tmp_path, "print('no rule', file=sys.stderr)"), ["eval"], quiet=True)
    assert failed == Exit("make", 1, "no rule")
    killed = sweep._make(one, failing(tmp_path, ""), ["eval"], quiet=True)
    assert killed
    assert (killed.code, "killed" in killed.error) == (1, True)
