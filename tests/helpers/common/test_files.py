"""helpers/common/files.py: written whole or not at all, held to their schemas, and sealed against every edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from helpers.common import files
from helpers.common.errors import BadInput, StepFailed

RUN = "20261122T013512Z-local-7f3a"
SCHEMAS = sorted(files.SCHEMAS.glob("*.schema.json"))
CONFIG: dict[str, Any] = {
    "execution": {"type": "process"},
    "deployment": {"type": "none"},
    "evaluation": {"tasks": [{"name": "opposites", "pre_cmd": "echo ünï"}]},
}
STATUS: dict[str, Any] = {"made_by": "status.py", "made_from": {}, "asked_at": "2026-11-22T01:35:12Z", "invocation_id": "x", "jobs": []}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / RUN
    folder.mkdir()
    return folder


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_each_schema_is_a_valid_draft_2020_12_schema_that_says_what_it_is_of(path: Path) -> None:
    schema = json.loads(path.read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == path.name
    assert schema["title"]
    assert schema["description"]


def test_what_is_written_is_read_back(run: Path) -> None:
    seal = files.write_json(run / "status.json", STATUS, "status")
    assert files.read_json(run / "status.json", "status") == {**STATUS, "seal": seal}
    seal = files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", {"request.json": "sha256:" + "0" * 64})
    assert files.read_yaml(run / "config.yaml", "config") == (CONFIG, seal, {"request.json": "sha256:" + "0" * 64})
    assert files.yaml_seal(CONFIG, "a script", {"request.json": "sha256:" + "0" * 64}) == seal
    assert sorted(p.name for p in run.iterdir()) == ["config.yaml", "status.json"]


@pytest.mark.parametrize("name", ["status.json", "config.yaml"])
def test_not_one_byte_can_be_changed_added_or_taken_away(run: Path, name: str) -> None:
    files.write_json(run / "status.json", STATUS, "status")
    files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", {})
    whole = (run / name).read_bytes()
    read = files.read_json if name == "status.json" else files.read_yaml
    edits = [whole[:i] + other + whole[i + 1 :] for i in range(len(whole)) for other in (b"", b"~", bytes([whole[i]]) * 2)]
    edits += [whole + b"\n", b"\n" + whole, whole.replace(b"\n", b"\r\n"), b"", b"\xef\xbb\xbf" + whole]
    for edited in edits:
        if edited != whole:
            (run / name).write_bytes(edited)
            with pytest.raises(BadInput, match=name):
                read(run / name, name.partition(".")[0])


def test_a_key_that_is_there_twice_is_an_edit(run: Path) -> None:
    files.write_json(run / "status.json", STATUS, "status")
    text = (run / "status.json").read_text()
    (run / "status.json").write_text(text.replace('  "made_by"', '  "invocation_id": "other",\n  "made_by"'))
    with pytest.raises(BadInput, match="edited"):
        files.read_json(run / "status.json", "status")


def test_without_a_seal_a_file_is_refused_in_a_run_and_used_elsewhere_with_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (run, run.parent):
        (folder / "status.json").write_text(json.dumps(STATUS))
        (folder / "config.yaml").write_text(files.dump_yaml(CONFIG))
    with pytest.raises(BadInput, match="no seal"):
        files.read_json(run / "status.json", "status")
    with pytest.raises(BadInput, match="no seal"):
        files.read_yaml(run / "config.yaml", "config")
    assert files.read_json(run.parent / "status.json", "status") == files.seal_json(STATUS)
    assert files.read_yaml(run.parent / "config.yaml", "config")[0] == CONFIG
    assert capsys.readouterr().err.count("[info]") == 2


def test_what_does_not_fit_its_schema_is_not_written(run: Path) -> None:
    with pytest.raises(StepFailed, match="jobs"):
        files.write_json(run / "status.json", {**STATUS, "jobs": 1}, "status")
    with pytest.raises(StepFailed, match="execution"):
        files.write_yaml(run / "config.yaml", {**CONFIG, "execution": 1}, "config", "a script", {})
    assert list(run.iterdir()) == []


def test_what_does_not_fit_its_schema_is_not_read_though_its_seal_is_right(run: Path) -> None:
    sealed = files.seal_json({**STATUS, "invocation_id": 1})
    (run / "status.json").write_text(json.dumps(sealed, indent=2) + "\n")
    with pytest.raises(BadInput, match=r"status.json: invocation_id: 1"):
        files.read_json(run / "status.json", "status")
    body = "execution: []\n"
    (run / "config.yaml").write_text(f"{body}# seal: {files.sha256_bytes(body.encode())}\n")
    with pytest.raises(BadInput, match=r"config.yaml: "):
        files.read_yaml(run / "config.yaml", "config")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"\x00"],
    ids=["empty", "torn", "list", "null", "utf16", "deep", "nul"],
)
def test_what_is_no_file_of_a_run_is_refused_by_name(run: Path, content: bytes) -> None:
    (run / "status.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"status\.json"):
        files.read_json(run / "status.json", "status")
    (run / "config.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=r"config\.yaml"):
        files.read_yaml(run / "config.yaml", "config")


def test_a_missing_file_and_a_folder_are_refused(run: Path) -> None:
    for path in (run / "none.json", run):
        with pytest.raises(BadInput, match="cannot read"):
            files.read_text(path)


def test_a_file_that_cannot_be_written_leaves_nothing_and_the_old_one_stays(run: Path) -> None:
    files.write_text(run / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(run / "a.txt", "new \udcff")
    assert (run / "a.txt").read_text() == "old"
    (run / "folder").mkdir()
    with pytest.raises(StepFailed, match="cannot write"):
        files.write_text(run / "folder", "text")
    with pytest.raises(StepFailed, match="cannot write"):
        files.write_text(run / "a.txt" / "b.txt", "text")
    with pytest.raises(StepFailed, match="cannot make"):
        files.make_folder(run / "a.txt" / "b")
    assert sorted(p.name for p in run.iterdir()) == ["a.txt", "folder"]
