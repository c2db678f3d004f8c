"""helpers/common/files.py: written whole or not at all, held to their schemas, and sealed against every edit of a value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from helpers.common import files, yaml_files
from helpers.common.errors import BadInput, StepFailed

RUN = "20261122T013512Z-local-7f3a"
SCHEMAS = sorted(files.SCHEMAS.glob("*.schema.json"))
CONFIG: dict[str, Any] = {
    "execution": {"type": "process"},
    "deployment": {"type": "none"},
    "evaluation": {"tasks": [{"name": "opposites", "pre_cmd": "echo ünï"}]},
}
MADE_FROM = {"request.json": "sha256:" + "0" * 64}
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
    seal = files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", MADE_FROM)
    assert files.read_yaml(run / "config.yaml", "config") == (CONFIG, seal, MADE_FROM)
    assert files.yaml_seal(CONFIG, MADE_FROM) == seal
    assert sorted(p.name for p in run.iterdir()) == ["config.yaml", "status.json"]


@pytest.mark.parametrize("name", ["status.json", "config.yaml"])
def test_no_byte_can_be_changed_added_or_taken_away_so_that_a_value_changes(run: Path, name: str) -> None:
    files.write_json(run / "status.json", STATUS, "status")
    files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", MADE_FROM)
    whole = (run / name).read_bytes()
    read = files.read_json if name == "status.json" else files.read_yaml
    meant, refused = read(run / name, name.partition(".")[0]), 0
    edits = [whole[:i] + other + whole[i + 1 :] for i in range(len(whole)) for other in (b"", b"~", bytes([whole[i]]) * 2)]
    edits += [
        whole + b"\n",
        b"\n" + whole,
        whole.replace(b"\n", b"\r\n"),
        b"",
        b"\xef\xbb\xbf" + whole,
        whole + whole,
        whole + b"more: 1\n",
    ]
    for edited in edits:
        (run / name).write_bytes(edited)
        said = ""
        try:
            found = read(run / name, name.partition(".")[0])
        except BadInput as error:
            said = str(error)
        refused += bool(said)
        assert name in said if said else found == meant, edited
    assert len(edits) // 2 < refused < len(edits)


@pytest.mark.parametrize(
    "layout",
    [
        lambda text: text.replace(": ", ":   "),
        lambda text: text + "\n\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n" + text.replace("\n", " \n"),
    ],
)
def test_another_layout_is_no_edit(run: Path, layout: Callable[[str], str]) -> None:
    seal = files.write_json(run / "status.json", STATUS, "status")
    (run / "status.json").write_text(layout((run / "status.json").read_text()))
    assert files.read_json(run / "status.json", "status") == {**STATUS, "seal": seal}
    files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", MADE_FROM)
    before = files.read_yaml(run / "config.yaml", "config")
    (run / "config.yaml").write_text(layout((run / "config.yaml").read_text()).replace("# made from:   ", "# made from: "))
    assert files.read_yaml(run / "config.yaml", "config") == before


def test_a_yaml_file_can_be_written_in_another_style_with_other_comments_but_not_with_another_value(run: Path) -> None:
    files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", MADE_FROM)
    before = files.read_yaml(run / "config.yaml", "config")
    *_, seal = (run / "config.yaml").read_text().splitlines()
    made_from = next(line for line in (run / "config.yaml").read_text().splitlines() if "made from" in line)
    for data, is_same in ((CONFIG, True), ({**CONFIG, "deployment": {"type": "vllm"}}, False)):
        (run / "config.yaml").write_text(f"# mine\n{made_from}\n{json.dumps(data)}\n{seal}\n# the end\n")
        if is_same:
            assert files.read_yaml(run / "config.yaml", "config") == before
        else:
            with pytest.raises(BadInput, match="edited"):
                files.read_yaml(run / "config.yaml", "config")


@pytest.mark.parametrize("value", [1, "1", 1.0, True, None, "true", [1], ["1"], {1: "a"}, {"1": "a"}, {True: "a"}])
def test_values_that_yaml_tells_apart_have_seals_of_their_own(value: object) -> None:
    others = [1, "1", 1.0, True, None, "true", [1], ["1"], {1: "a"}, {"1": "a"}, {True: "a"}]
    seals = [files.yaml_seal({"a": other}, {}) for other in others]
    assert seals.count(files.yaml_seal({"a": value}, {})) == 1
    assert files.yaml_seal({"a": value}, {}) != files.yaml_seal({"a": value}, MADE_FROM)


def test_the_seal_of_an_earlier_version_over_the_text_counts_and_stays(run: Path) -> None:
    body = f"# made by x; do not edit\n# made from: {json.dumps(MADE_FROM)}\n{yaml_files.dump(CONFIG)}"
    seal = files.sha256_bytes(body.encode())
    (run / "config.yaml").write_text(f"{body}# seal: {seal}\n")
    assert files.read_yaml(run / "config.yaml", "config") == (CONFIG, seal, MADE_FROM)
    for edited in (f"{body}# seal: {seal}\nmore: 1\n", f"{body}more: 1\n# seal: {seal}\n", f"{body}# seal: {seal}\n# seal: {seal}\n"):
        (run / "config.yaml").write_text(edited)
        with pytest.raises(BadInput, match="edited"):
            files.read_yaml(run / "config.yaml", "config")


def test_a_key_that_is_there_twice_is_an_edit(run: Path) -> None:
    files.write_yaml(run / "config.yaml", CONFIG, "config", "a script", MADE_FROM)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("execution:", "execution: {type: slurm}\nexecution:"))
    with pytest.raises(BadInput, match="twice"):
        files.read_yaml(run / "config.yaml", "config")
    files.write_json(run / "status.json", STATUS, "status")
    text = (run / "status.json").read_text()
    (run / "status.json").write_text(text.replace('  "made_by"', '  "invocation_id": "other",\n  "made_by"'))
    with pytest.raises(BadInput, match="edited"):
        files.read_json(run / "status.json", "status")


def test_without_a_seal_a_file_is_refused_in_a_run_and_used_elsewhere_with_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (run, run.parent):
        (folder / "status.json").write_text(json.dumps(STATUS))
        (folder / "config.yaml").write_text(yaml_files.dump(CONFIG))
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
    (run / "config.yaml").write_text(f"execution: []\n# seal: {files.yaml_seal({'execution': []}, {})}\n")
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
