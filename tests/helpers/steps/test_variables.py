"""helpers/steps/variables.py: what the Makefile documents, which names count, and which run a command means."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from helpers.common import flags, run_folder
from helpers.common.errors import BadInput
from helpers.steps import variables

OLD, NEW = "20261122T013512Z-local-7f3a", "20261123T000000Z-hosted-0000"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in (OLD, NEW):
        (tmp_path / name).mkdir()
    return tmp_path


def test_the_documented_targets_and_variables_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "Makefile"
    path.write_text("#: ONE  first one\n#: TWO_X  second\nbuild: $(a) | b ## make it\n.PHONY: c\n_x: ## no\nrun-it: ## run\n")
    assert variables.variables(path) == [variables.Entry("ONE", "first one"), variables.Entry("TWO_X", "second")]
    assert variables.targets(path) == [variables.Entry("build", "make it"), variables.Entry("run-it", "run")]


@pytest.mark.parametrize(("typed", "near"), [("TASK", "TASKS"), ("tasks", "TASKS"), ("PROFIL", "PROFILE"), ("FORCESQUASH", "FORCE_SQUASH")])
def test_an_unknown_name_is_refused_with_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"{typed} (did you mean {near}?)")):
        variables.check(["CONFIG", typed], {}, {})
    with pytest.raises(BadInput, match=re.escape(f"EVALMAKE_{typed} in the environment (did you mean EVALMAKE_{near}?)")):
        variables.check([], {}, {f"EVALMAKE_{typed}": "x"})


def test_known_names_and_those_that_are_none_of_ours_pass() -> None:
    known = [entry.name for entry in variables.variables()]
    variables.check(known, {}, {f"EVALMAKE_{name}": "" for name in [*known, *variables.OTHER_ENVIRONMENT]} | {"TASK": "x", "RUN": "y"})


def test_an_on_off_variable_that_is_neither_yes_nor_no_is_refused_while_the_makefile_is_read() -> None:
    for name in flags.NAMES:
        for value in ("", "1", "off"):
            variables.check([name], {name: value}, {})
        with pytest.raises(BadInput, match=f"^{name}=maybe: expected 1, y, yes"):
            variables.check([name], {name: "maybe"}, {})


@pytest.mark.parametrize(
    ("run", "goals", "meant"),
    [
        (None, ["status"], NEW),
        (None, ["logs", "results"], NEW),
        (None, ["resume"], NEW),
        (OLD[:9], ["status"], OLD),
        ("latest", ["eval"], NEW),
        (None, [f"runs/{OLD}/config.yaml"], OLD),
        (OLD, [f"./runs/{OLD}/config.yaml"], OLD),
    ],
)
def test_a_command_means_the_run_of_its_goal_or_of_run_or_the_last(runs: Path, run: str | None, goals: list[str], meant: str) -> None:
    assert variables.run_ids(run, "", "", goals, runs) == ([meant], False)


@pytest.mark.parametrize("goal", ["status", "logs", "results", "cancel", "resume", "export"])
def test_without_run_a_dry_run_is_passed_over_except_to_explain_it(runs: Path, goal: str) -> None:
    (runs / NEW / "request.json").write_text(json.dumps({"mode": "dry-run"}))
    assert variables.run_ids(None, "", "", [goal], runs) == ([OLD], False)
    assert variables.run_ids(None, "", "", ["explain"], runs) == ([NEW], False)
    (runs / OLD / "request.json").write_text(json.dumps({"mode": "dry-run"}))
    assert variables.run_ids(None, "", "", [goal], runs) == (["none-yet"], False)


@pytest.mark.parametrize(
    ("values", "is_local"),
    [
        ({}, True),
        ({"PROFILE": "my-local-cluster"}, False),
        ({"CONFIG": "template"}, True),
        ({"CONFIG": "hosted"}, False),
        ({"CONFIG": "hosted", "SET": "a=b deployment=llamacpp"}, True),
        ({"CONFIG": "local", "SET": "deployment=none"}, False),
        ({"CONFIG": "no-such-config"}, False),
    ],
)
def test_the_local_server_is_installed_for_the_configs_that_use_it(values: dict[str, str], is_local: bool, tmp_path: Path) -> None:
    assert variables.uses_local_server(tmp_path / "new", values) == is_local


def test_a_run_that_exists_needs_what_its_request_names(tmp_path: Path) -> None:
    for config, overrides, is_local in (("local", [], True), ("hosted", [], False), ("local", ["deployment=none"], False)):
        asked = {"inputs": {"config": {"path": f"configs/{config}.yaml"}}, "overrides": overrides}
        (tmp_path / "request.json").write_text(json.dumps(asked))
        assert variables.uses_local_server(tmp_path, {"CONFIG": "local"}) == is_local


@pytest.mark.parametrize("goals", [["status"], ["cancel"], ["cancel", "status"], ["compare"]])
def test_status_cancel_and_compare_take_several_runs_each_once_in_their_order(runs: Path, goals: list[str]) -> None:
    assert variables.run_ids(f"latest  {OLD} {OLD[:9]}", "", "", goals, runs) == ([NEW, OLD], False)


@pytest.mark.parametrize("goals", [[], ["eval"], ["eval", "status"], ["help"], ["dry-run"]])
def test_else_it_means_a_new_run_named_after_the_config(runs: Path, goals: list[str]) -> None:
    for config, profile, label in (("", "", "local"), ("configs/My.yaml", "p", "my"), ("", "Cluster", "cluster")):
        (made,), is_new = variables.run_ids(None, config, profile, goals, runs)
        assert is_new
        assert run_folder.ID_FORM.fullmatch(made)
        assert f"-{label}-" in made


@pytest.mark.parametrize(
    ("run", "goals", "said"),
    [
        ("", ["eval"], "RUN is empty"),
        (OLD, [f"runs/{NEW}/config.yaml"], "one run at a time"),
        (None, [f"runs/{OLD}/a", f"runs/{NEW}/b"], "one run at a time"),
        (None, ["runs/20200101T000000Z-x-0000/config.yaml"], "no such run"),
        (None, ["runs/../config.yaml"], "no such run"),
        (None, ["batch", "dry-run"], "one of them at a time"),
        (f"{OLD} {NEW}", ["eval"], "no such run"),
        (f"{OLD} {NEW}", ["status", "logs"], "no such run"),
        (f"{OLD} 2031", ["status"], "RUN=2031: no such run"),
        ("20261", ["cancel"], "is the start of 2 runs"),
    ],
)
def test_opposites_and_runs_that_are_not_there_are_refused(runs: Path, run: str | None, goals: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        variables.run_ids(run, "", "", goals, runs)


def test_the_page_shows_values_that_could_move_the_cursor_as_text() -> None:
    assert "[now '\\x1b[2J']" in variables.page({"EVALMAKE_TASKS": "\x1b[2J"})
    assert "[now 'default']" in variables.page({"EVALMAKE_PROFILE": "p"})


def test_the_page_fits_a_hundred_columns() -> None:
    assert [line for line in variables.page({}).splitlines() if len(line) > 100] == []
