"""helpers/steps/request.py: the request, written once and compared with that of whoever continues the run."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.common import files
from helpers.common.errors import BadInput
from helpers.steps import request

RUN = "20261122T013512Z-local-7f3a"


def given(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    request.add_arguments(parser)
    return request.asked(parser.parse_args(arguments))


@pytest.fixture
def made(tmp_path: Path, clean_env: dict[str, str]) -> Path:
    """request.json of a new run."""
    path = tmp_path / "runs" / RUN / "request.json"
    request.create(str(path), "eval", given("--tasks", "opposites", "--quick", "2"))
    return path


def test_what_was_not_given_is_absent() -> None:
    assert given() == {}


def test_each_variable_and_its_repeatable_form_add_up() -> None:
    found = given("--tasks", " a  b\n", "--task", "c d", "--overrides", "a='x y' b=\"1\" c=", "--set", "d=e f", "--quick", "10")
    assert found == {"tasks": ["a", "b", "c d"], "overrides": ["a=x y", "b=1", "c=", "d=e f"], "quick": 10}
    assert [given("--force-squash", text)["force_squash"] for text in ("1", "ON", "0", "off", "")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tasks", " "), "TASKS is empty"),
        (("--model", ""), "MODEL is empty"),
        (("--quick", "0"), "QUICK=0"),
        (("--quick", "-1"), "QUICK=-1"),
        (("--quick", "1.5"), "QUICK=1.5"),
        (("--quick", "²"), "QUICK=²"),
        (("--force-squash", "maybe"), "FORCE_SQUASH=maybe: expected 1, y, yes"),
        (("--overrides", "a='b"), "SET: No closing quotation"),
        (("--tasks", "a\udcff"), "TASKS=.*not UTF-8"),
        (("--task", "a\udcff"), "--task=.*not UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_name_that_was_typed(arguments: tuple[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        given(f"{arguments[0]}={arguments[1]}")


def test_a_request_is_whole_when_its_folder_appears(made: Path) -> None:
    data = files.read_json(made, "request")
    assert (data["tasks"], data["quick"], data["config"], data["mode"]) == (["opposites"], 2, "local", "eval")
    assert data["inputs"]["config"]["sha256"] == files.sha256_file(files.ROOT / "configs" / "local.yaml")
    assert set(data["versions"]) == {"python", *request.PACKAGES}
    assert [json.loads(line)["event"] for line in (made.parent / "events.jsonl").read_text().splitlines()] == ["start", "end"]
    assert [p.name for p in made.parent.parent.iterdir()] == [RUN]


def test_two_runs_never_share_a_folder(made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        request.create(str(made), "eval", given())
    (made.parent.parent / f".{RUN}.part").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        request.create(str(made), "eval", given())
    assert made.read_bytes() == before


def test_a_config_that_is_not_there_makes_nothing(tmp_path: Path, clean_env: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"lokal.*did you mean local\?.*configs: "):
        request.create(str(tmp_path / "runs" / RUN / "request.json"), "eval", given("--config", "lokal"))
    assert not (tmp_path / "runs").exists()


def test_only_what_is_old_is_tidied_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (".old.part", ".new.part", ".kept"):
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.part").mkdir()
    (tmp_path / ".folder.part" / "request.json").write_text("")
    for name in (".old.part", ".kept", ".folder.part"):
        os.utime(tmp_path / name, (0, 0))
    request.tidy(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".kept", ".new.part"]
    assert capsys.readouterr().err.count("removed") == 2


def test_a_run_continues_with_the_same_and_with_nothing_else(made: Path) -> None:
    request.go_on(made, "eval", given("--tasks", "opposites", "--quick", "2", "--config", "local"))
    request.go_on(made, "batch", {})
    request.go_on(made, None, {})
    with pytest.raises(BadInput, match=f"RUN={RUN} was made with QUICK=2, not 3; leave QUICK out"):
        request.go_on(made, "eval", given("--quick", "3"))
    with pytest.raises(BadInput, match="was made with MODEL=nothing, not m"):
        request.go_on(made, "eval", given("--model", "m"))
    with pytest.raises(BadInput, match="is an evaluation"):
        request.go_on(made, "dry-run", {})


def test_a_request_that_is_gone_before_anything_was_made_of_it_is_lost(made: Path) -> None:
    made.unlink()
    with pytest.raises(BadInput, match="start a new run"):
        request.go_on(made, "eval", {})


def test_an_env_file_that_appears_is_a_changed_input(tmp_path: Path, clean_env: dict[str, str]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text((files.ROOT / "configs" / "local.yaml").read_text())
    path = tmp_path / "runs" / RUN / "request.json"
    request.create(str(path), "eval", given("--config", str(config)))
    (tmp_path / "env.toml").write_text("")
    with pytest.raises(BadInput, match=r"env\.toml changed after this run was made"):
        request.go_on(path, "eval", {})


def test_a_secret_in_an_override_is_refused_before_it_is_written_and_is_in_no_message() -> None:
    with pytest.raises(BadInput, match="looks like a secret") as caught:
        given("--set", "+deployment.env_vars.HF_TOKEN=lit:hf_ABCDEFGHIJKLMNOPQRSTUVWX")
    assert "ABCDEFGH" not in str(caught.value)
    assert "deployment.env_vars.HF_TOKEN" in str(caught.value)
