"""The catalogue: the launcher's tasks and the harnesses installed here, found by exact and by bare names."""

from __future__ import annotations

import pytest

from helpers.common.errors import BadInput
from helpers.config import catalogue
from helpers.config.catalogue import Task

TASKS = {
    (harness, name): Task(harness, name, ("chat",), "image", False, "")
    for harness, name in [("one", "alpha"), ("one", "both"), ("two", "both"), ("two", "with.dot")]
}


def test_the_catalogue_has_every_task_of_the_launcher_with_its_container(clean_env: dict[str, str]) -> None:
    from nemo_evaluator_launcher.common.mapping import load_tasks_mapping

    theirs = load_tasks_mapping()
    ours = catalogue.load()
    assert set(theirs) <= set(ours)
    assert {key: (ours[key].container, ours[key].endpoint_types[0]) for key in theirs} == {
        key: (task["container"], task["endpoint_type"]) for key, task in theirs.items()
    }


def test_the_starter_benchmarks_are_installed_here() -> None:
    assert {task.name for task in catalogue.load().values() if task.installed} >= {"capitals", "continents", "languages", "opposites"}
    assert all(task.container is None for task in catalogue.load().values() if task.harness == "starter")


@pytest.mark.parametrize(("query", "full"), [("alpha", "one.alpha"), ("two.both", "two.both"), ("with.dot", "two.with.dot")])
def test_a_task_is_found_by_its_bare_or_exact_name(query: str, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "load", lambda: TASKS)
    assert catalogue.find(query).full_name == full


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("both", "2 harnesses have a task both; name one: one.both, two.both"),
        ("alpa", r"there is no task 'alpa' \(did you mean alpha\?\); `make tasks MATCH=…` searches all 4"),
        ("two.alpha", r"there is no task 'two.alpha' \(did you mean one.alpha\?\)"),
        ("zzz", "there is no task 'zzz'; `make tasks"),
        ("", "there is no task ''"),
    ],
)
def test_an_unknown_or_ambiguous_name_is_refused(query: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "load", lambda: TASKS)
    with pytest.raises(BadInput, match=message):
        catalogue.find(query)


def test_the_nearest_name_is_the_catalogues_before_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "load", lambda: TASKS)
    with pytest.raises(BadInput, match=r"did you mean alpha\?"):
        catalogue.find("alpa", others=["alpas"])
    with pytest.raises(BadInput, match=r"did you mean mine\.own\?"):
        catalogue.find("mine.on", others=["mine.own"])


def test_descriptions_are_one_line() -> None:
    assert not any("\n" in task.description for task in catalogue.load().values())
