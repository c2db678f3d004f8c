"""README.md and ARCHITECTURE.md say what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from checkout import ROOT, Make
from helpers.dev import readme
from helpers.steps import variables

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("helpers", "scripts")
    for path in (ROOT / folder).rglob("*.*")
    if path.suffix in (".py", ".sh")
)
SOURCE += (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {entry.name for entry in variables.targets()}
COMMANDS = sorted({line.split("#")[0].strip() for line in re.findall(r"^make .*$", TEXT, re.MULTILINE)})


def test_its_tables_are_made_from_the_makefile_the_schemas_and_the_tasks() -> None:
    assert readme.filled(TEXT) == TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_names_targets_and_variables_that_exist(command: str) -> None:
    words = re.findall(r"""(?:[^\s"]|"[^"]*")+""", command)[1:]
    known = {entry.name for entry in variables.variables()}
    for word in words:
        name, equals, _ = word.partition("=")
        assert (name in known) if equals else (name in TARGETS), word


def test_each_message_of_the_troubleshooting_table_is_one_that_the_code_gives() -> None:
    table = TEXT.split("## Troubleshooting")[1]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) > 8
    for message in messages:
        parts = [part for part in re.split(r"…|\"|RUN=|TASKS=|TASK \(did you mean TASKS\?\)|error: " "", message) if part.strip()]
        for part in parts:
            assert part.strip() in SOURCE, (message, part)


def test_each_variable_of_the_environment_is_one_that_the_code_reads() -> None:
    for name in set(re.findall(r"`(EVALMAKE_[A-Z_]+)", TEXT)) - {"EVALMAKE_NAME"}:
        assert name in SOURCE or name.removeprefix("EVALMAKE_") in variables.OTHER_ENVIRONMENT, name


def test_each_folder_and_script_that_is_named_exists() -> None:
    for document in ("README.md", "ARCHITECTURE.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"`?((?:scripts|helpers|configs|tests|requirements)/[\w./-]*\w)`?", text):
            assert (ROOT / name).exists() or name == "configs/my-model.yaml", name
        for name in re.findall(r"(\w+\.py)\b", text):
            assert list(ROOT.glob(f"scripts/{name}")) or list(ROOT.glob(f"helpers/**/{name}")), name


def test_each_module_of_the_helpers_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (ROOT / "helpers").rglob("*.py"):
        assert path.stem in text or path.stem == "__init__", path.name


def test_the_example_profiles_are_listed(make: Make, project: Path) -> None:
    (project / "env.toml").write_text((project / "env.toml.example").read_text())
    done = make("profiles")
    assert done.returncode == 0, done.stderr
    assert "MY-CLUSTER-LONG" in done.stdout


def test_the_ci_calls_the_command_that_is_named() -> None:
    assert "make test-deps test" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"```bash\nmake test-deps test\n```", TEXT)
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=False).returncode == 0
