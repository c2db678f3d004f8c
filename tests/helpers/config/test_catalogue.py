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
def test_a_task_is_found_by_its_bare_or_exact_name(query: str, full: str) -> None:
    assert catalogue.find(query, TASKS).full_name == full


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("both", "task both is in 2 harnesses; name one: one.both, two.both"),
        ("alpa", r"no task is called 'alpa' \(did you mean alpha\?\); `make tasks MATCH=…` searches the 4"),
        ("two.alpha", r"no task is called 'two.alpha' \(did you mean one.alpha\?\)"),
        ("zzz", "no task is called 'zzz'; `make tasks"),
        ("", "no task is called ''"),
    ],
)
def test_a_name_that_is_none_or_several_is_refused(query: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        catalogue.find(query, TASKS)


def test_descriptions_are_one_line() -> None:
    assert not any("\n" in task.description for task in catalogue.load().values())
