"""helpers/common/step.py: how a step ended is in exit.json, and while it is at work a lock says so."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.common import events, files, step
from helpers.common.errors import BadInput, Interrupted, StepFailed
from helpers.common.files import ROOT
from helpers.common.step import Exit

WAITING = """
import sys, time
from pathlib import Path
from helpers.common import step
with step.recorded(Path(sys.argv[1]), "slow"):
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "20261122T013512Z-local-7f3a"
    folder.mkdir()
    return folder


def test_the_last_step_s_end_is_on_disk_with_its_code_and_its_error(run: Path) -> None:
    assert step.last_exit(run) is None
    with step.recorded(run, "one"):
        assert step.last_exit(run) is None
        assert step.is_at_work(run)
    assert step.last_exit(run) == Exit("one", 0, "")
    assert not step.is_at_work(run)
    for error, code, text in (
        (BadInput("two\nlines"), 2, "two lines"),
        (Interrupted("stop"), 130, "stop"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("bug"), 1, "ended by a bug: see the traceback"),
    ):
        with contextlib.suppress(type(error)), step.recorded(run, "two"):
            assert not (run / step.EXIT).exists(), "the exit of the step before says nothing of this one"
            raise error
        assert step.last_exit(run) == Exit("two", code, text)
        last = json.loads((run / events.NAME).read_text().splitlines()[-1])
        assert (last["event"], last["exit_code"], last["error"]) == ("end", code, text)
        assert not step.is_at_work(run)


def test_a_step_by_hand_and_one_whose_run_is_removed_leave_nothing(run: Path) -> None:
    with step.recorded(None, "by hand"):
        pass
    with contextlib.suppress(BadInput), step.recorded(run, "compile_config"):
        shutil.rmtree(run)
        raise BadInput("x")
    assert not run.exists()
    with step.recorded(run, "new_run"):
        run.mkdir()
    assert step.last_exit(run) == Exit("new_run", 0, "")


def test_a_killed_step_leaves_neither_an_exit_nor_a_lock(run: Path) -> None:
    with step.recorded(run, "before"):
        pass
    with subprocess.Popen([sys.executable, "-c", WAITING, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "at work\n"
        assert step.is_at_work(run)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not step.is_at_work(run)
    assert step.last_exit(run) is None


def test_two_steps_at_once_do_not_wait_for_each_other(run: Path) -> None:
    with step.recorded(run, "one"):
        with step.recorded(run, "two"):
            pass
        assert step.is_at_work(run)
    assert step.last_exit(run) == Exit("one", 0, "")


def test_an_edited_exit_is_refused_and_the_next_step_replaces_it(run: Path) -> None:
    with pytest.raises(BadInput), step.recorded(run, "one"):
        raise BadInput("x")
    (run / step.EXIT).write_text((run / step.EXIT).read_text().replace('"exit_code": 2', '"exit_code": 0'))
    with pytest.raises(BadInput, match="edited"):
        step.last_exit(run)
    with step.recorded(run, "two"):
        pass
    assert step.last_exit(run) == Exit("two", 0, "")


def test_a_run_of_an_earlier_version_has_neither_and_is_not_at_work(run: Path) -> None:
    (run / "request.json").write_text("{}")
    assert step.last_exit(run) is None
    assert not step.is_at_work(run)


def _fail_where_no_exit_can_be_written(run: Path) -> None:
    with step.recorded(run, "one"):
        (run / step.EXIT).mkdir()
        raise BadInput("its own")


def test_a_step_s_own_error_is_raised_though_its_end_cannot_be_written(run: Path) -> None:
    with pytest.raises(BadInput, match="its own"):
        _fail_where_no_exit_can_be_written(run)
    with pytest.raises(StepFailed, match="cannot remove"), step.recorded(run, "two"):
        pytest.fail("a stale exit must not stay while a step is at work")


def test_its_schema_takes_what_is_written(run: Path) -> None:
    with step.recorded(run, "one"):
        pass
    assert set(files.read_json(run / step.EXIT, "exit")) == {"step", "ended_at", "exit_code", "seal"}
