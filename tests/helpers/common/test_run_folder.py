"""helpers/common/run_folder.py: ids, how RUN= names a run, and the record of what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.common import run_folder
from helpers.common.errors import BadInput, Interrupted, StepFailed
from helpers.common.files import ROOT

IDS = ["20261122T013512Z-local-7f3a", "20261122T013512Z-local-80aa", "20261123T000000Z-my.model_2-0000"]
NINE = "\n".join(
    ["import sys; from pathlib import Path; from helpers.common import run_folder"]
    + ["run_folder.record(Path(sys.argv[1]), 's', event='start')"] * 9
)


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
    [("20261122", f"start of 2 runs: {IDS[0]}, {IDS[1]}"), ("2027", "no run"), ("local", "no run"), ("/", "no run"), ("*", "no run")],
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


def test_a_step_records_its_start_and_its_end_with_the_error(runs: Path) -> None:
    run = runs / IDS[0]
    with run_folder.step(run, "one"):
        pass
    for error, code in ((BadInput("two\nlines"), 2), (Interrupted("stop"), 130), (KeyboardInterrupt(), 130), (ValueError("bug"), 1)):
        with pytest.raises(type(error)), run_folder.step(run, "two"):
            raise error
        last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
        assert (last["event"], last["exit_code"]) == ("end", code)
        assert last["error"]
    assert run_folder.bad_event(run) is None


def test_steps_at_once_do_not_mix_their_lines(runs: Path) -> None:
    run = runs / IDS[0]
    started = [subprocess.Popen([sys.executable, "-c", NINE, str(run)], cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert len((run / "events.jsonl").read_text().splitlines()) == 36
    assert run_folder.bad_event(run) is None


def test_a_line_that_was_torn_edited_removed_or_moved_is_found(runs: Path) -> None:
    log = runs / IDS[0] / "events.jsonl"
    for number in range(4):
        run_folder.record(runs / IDS[0], f"step{number}", event="start")
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    for edited, number in (
        (whole.replace(b"step1", b"step9"), 2),
        (lines[0] + lines[2] + lines[3], 2),
        (lines[1] + lines[0], 1),
        (whole[:-9], 4),
        (whole.replace(b'"start"', b'"never"'), 1),
        (b"\n" + whole, 1),
    ):
        log.write_bytes(edited)
        assert run_folder.bad_event(runs / IDS[0]) == number
    log.write_bytes(whole[:-9])
    run_folder.record(runs / IDS[0], "next", event="start")
    assert json.loads(log.read_bytes().splitlines()[-1])["step"] == "next"
    assert run_folder.bad_event(runs / IDS[0]) == 4


def test_a_record_that_cannot_be_written_says_so(runs: Path) -> None:
    (runs / IDS[0] / "events.jsonl").mkdir()
    with pytest.raises(StepFailed, match=f"cannot write {IDS[0]}/events.jsonl"):
        run_folder.record(runs / IDS[0], "s", event="start")
    run_folder.record(None, "s", event="start")
    run_folder.record(runs / "none", "s", event="start")
    assert not (runs / "none").exists()
