"""The catalogue: the launcher's tasks and the harnesses installed here, found by exact and by bare names."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.common.errors import BadInput
from helpers.config import catalogue
from helpers.config.catalogue import Task

TASKS = {
    (harness, name): Task(harness, name, ("chat",), "image", False, "")
    for harness, name in [("one", "alpha"), ("one", "both"), ("two", "both"), ("two", "with.dot")]
}


@pytest.mark.slow
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the catalogue for this test alone, not made yet."""
    monkeypatch.setattr(catalogue, "CACHE", tmp_path / "cache" / "tasks.json")
    yield catalogue.CACHE
    catalogue.load.cache_clear()


def read_again() -> dict[tuple[str, str], Task]:
    catalogue.load.cache_clear()
    return catalogue.load()


def test_what_is_cached_is_what_was_read(cache: Path) -> None:
    first = read_again()
    assert cache.is_file()
    assert read_again() == first
    assert [task.name for task in first.values()] == [task.name for task in read_again().values()]


@pytest.mark.parametrize("text", ["", "[]", '{"tasks": []}', "\xff"])
def test_a_cache_that_is_torn_or_of_another_catalogue_is_made_again(text: str, cache: Path) -> None:
    first = read_again()
    good = cache.read_text()
    cache.write_text(text, encoding="latin-1")
    assert read_again() == first
    assert cache.read_text() == good
    cache.write_text(json.dumps({**json.loads(good), "made_from": "sha256:0", "tasks": []}))
    assert read_again() == first
    assert cache.read_text() == good


def test_the_cache_is_used(cache: Path) -> None:
    every = read_again()
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps({**kept, "tasks": kept["tasks"][:1]}))
    others = {key for key, task in every.items() if not task.installed}
    assert len(others & read_again().keys()) <= 1
    cache.unlink()
    assert others <= read_again().keys()


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert read_again()


def test_many_at_once_write_one_whole_cache(cache: Path) -> None:
    threads = [threading.Thread(target=lambda: list(catalogue._catalogue())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(cache.read_text())["tasks"]
    assert [path.name for path in cache.parent.iterdir()] == ["tasks.json"]


def test_an_installed_harness_merges_its_defaults_with_those_of_a_task_as_nemo_evaluator_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the task says of its parameters leaves the others of the harness as they are."""
    folder = tmp_path / "core_evals" / "own"
    folder.mkdir(parents=True)
    (folder / "framework.yml").write_text(
        "framework: {name: own}\n"
        "defaults: {command: run --tokenizer X, config: {params: {extra: {tokenizer: null}, parallelism: 3}}}\n"
        "evaluations: [{name: t, defaults: {config: {type: t, params: {task: t}}}}]\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (task,) = [one for one in catalogue._installed() if one.harness == "own"]
    assert task.tokenizer == "tokenizer"
