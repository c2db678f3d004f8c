"""helpers/common/run_folder.py: ids, and how RUN= names a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.common import run_folder
from helpers.common.errors import BadInput
from helpers.common.files import ROOT

IDS = ["20261122T013512Z-local-7f3a", "20261122T013512Z-local-80aa", "20261123T000000Z-my.model_2-0000"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in (*IDS, "not-a-run", ".20261124T000000Z-x-0000.part"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return tmp_path / "runs"


@pytest.mark.parametrize("label", ["local", "configs/My Model.yaml", "../..", "", "ünï", "$(x)\n", "a" * 300, "-", "."])
def test_an_id_has_its_form_whatever_the_config_is_called(label: str) -> None:
    assert run_folder.ID_FORM.fullmatch(run_folder.new_id(label))


def test_ids_of_the_same_second_differ() -> None:
    assert len({run_folder.new_id("local") for _ in range(40)}) > 38


def test_only_run_folders_are_runs(runs: Path) -> None:
    assert run_folder.all_ids(runs) == IDS
    assert run_folder.all_ids(runs / "none") == []


@pytest.mark.parametrize(
    ("text", "index"), [("latest", 2), (IDS[0], 0), (IDS[0][:-1], 0), ("20261123", 2), (f"runs/{IDS[1]}/", 1), ("runs/20261123", 2)]
)
def test_a_run_is_named_by_latest_its_id_a_unique_prefix_or_its_path(runs: Path, text: str, index: int) -> None:
    assert run_folder.resolve(text, runs) == IDS[index]
    assert run_folder.resolve(str(runs / IDS[index]), runs) == IDS[index]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("20261122", f"start of 2 runs: {IDS[0]}, {IDS[1]}"),
        ("2027", "no such run"),
        ("local", "no such run"),
        ("/", "no such run"),
        ("*", "no such run"),
    ],
)
def test_a_name_of_none_or_several_is_refused_with_the_candidates(runs: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("*", r"\*")):
        run_folder.resolve(text, runs)


def test_without_runs_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="make eval"):
        run_folder.resolve("latest", tmp_path)


def test_the_folder_of_a_file_is_a_run_only_by_its_name(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_folder.run_of(runs / IDS[0] / "config.yaml") == (runs / IDS[0]).resolve()
    assert run_folder.run_of(runs / "config.yaml") is None
    monkeypatch.chdir(runs / IDS[0])
    assert run_folder.run_of("config.yaml") == (runs / IDS[0]).resolve()
    assert run_folder.run_of("-") is None


def test_it_needs_the_standard_library_only() -> None:
    """Make calls it before anything is installed."""
    code = "import sys; sys.path.insert(0, '.'); from helpers.steps import variables; import helpers.common.run_folder"
    done = subprocess.run([sys.executable, "-ISc", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_names_that_differ_after_a_dot_give_two_labels() -> None:
    assert "-llama-3.1-" in run_folder.new_id("llama-3.1")
    assert "-llama-3.2-" in run_folder.new_id("configs/llama-3.2.yaml")
    assert "-my.conf-" in run_folder.new_id("my.conf.yml")
