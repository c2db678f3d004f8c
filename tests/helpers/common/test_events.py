"""helpers/common/events.py: one line per event, whoever else writes, also after old or torn lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.common import events, files
from helpers.common.errors import StepFailed
from helpers.common.files import ROOT

pytestmark = pytest.mark.slow

NINE = "\n".join(
    ["import sys; from pathlib import Path; from helpers.common import events"]
    + ["events.append(Path(sys.argv[1]), 's', event='start', pid=1)"] * 9
)
OLD = '{"time": "2026-11-22T01:35:12Z", "step": "one", "event": "start", "pid": 7, "seal": "0123456789abcdef"}\n'


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "20261122T013512Z-local-7f3a"
    folder.mkdir()
    return folder


def test_steps_at_once_do_not_mix_their_lines(run: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", NINE, str(run)], cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    lines = [json.loads(line) for line in (run / events.NAME).read_text().splitlines()]
    assert len(lines) == 36
    for event in lines:
        files.validate(event, "events", events.NAME)


def test_an_event_goes_on_a_line_of_its_own_after_old_torn_and_foreign_lines(run: Path) -> None:
    log = run / events.NAME
    files.validate(json.loads(OLD), "events", events.NAME)
    for before in (OLD, OLD[:-9], "not json", "\n", "\x00\n", ""):
        log.write_text(before)
        events.append(run, "next", event="queued", jobs={"ünï.0": "7"})
        assert log.read_text().startswith(before)
        last = json.loads(log.read_text().splitlines()[-1])
        assert (last["step"], last["jobs"]) == ("next", {"ünï.0": "7"})
        assert log.read_text().endswith("\n")


def test_a_log_that_cannot_be_written_is_named_and_without_a_folder_there_is_none(run: Path) -> None:
    (run / events.NAME).mkdir()
    with pytest.raises(StepFailed, match=f"cannot write {run.name}/{events.NAME}"):
        events.append(run, "s", event="start")
    events.append(None, "s", event="start")
    events.append(run.with_name("none"), "s", event="start")
    assert not run.with_name("none").exists()
