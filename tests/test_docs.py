"""The documents say what the project does: their tables, commands, names, links and messages are those of the code."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from checkout import ROOT, Make
from helpers.common.errors import StepFailed
from helpers.config import profile_fields
from helpers.dev import documents, session
from helpers.steps import lineage, variables

README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
REFERENCE, MESSAGES = TEXTS["reference.md"], TEXTS["troubleshooting.md"]
TARGETS = {entry.name for entry in variables.targets()}
VARIABLES = {entry.name for entry in variables.variables()}
# What a document may name though it is not in the repository: a person's config, and what a run writes for each task.
MADE_LATER = {"configs/my-model.yaml", "run.sh"}


def in_code(text: str) -> list[str]:
    """The `…` pieces of a text, and the lines of its blocks of code."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*(" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", prose)), *"\n".join(fenced).splitlines()]


def commands() -> list[str]:
    """Every `make …` that a document shows, without comments and what is before `&&`."""
    found = set()
    for text in TEXTS.values():
        for line in in_code(text):
            part = line.split("#")[0].split("&&")[-1].strip(" │")
            if re.match(r"make [a-z.]", part):
                found.add(part)
    return sorted(found)


def sentences() -> str:
    """All that the code can say, in lower case: the texts in the syntax trees of helpers/ and scripts/, then shell scripts and Makefile.

    A value in an f-string is a space, so a message is one text however it is written down.
    """
    said = []
    for path in [*(ROOT / "helpers").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                said.append("".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    for path in [*(ROOT / "helpers").rglob("*.sh"), *(ROOT / "scripts").glob("*.sh"), ROOT / "Makefile"]:
        said.append(path.read_text(encoding="utf-8"))
    return "\n".join(said).lower()


# ---- What must be documented -------------------------------------------------------------------------------------------------------------


def test_the_generated_tables_are_up_to_date() -> None:
    assert not documents.outdated(), "run scripts/write_docs.py"


@pytest.mark.parametrize("name", [*(f"make {target}" for target in sorted(TARGETS)), *sorted(VARIABLES), *profile_fields.FIELDS])
def test_each_target_variable_and_profile_field_is_in_the_reference(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE


def test_each_file_of_a_run_is_documented() -> None:
    for name in lineage.FILES:
        assert f"| `{name}` |" in TEXTS["run-files.md"], name


def test_each_package_of_the_helpers_is_in_the_architecture() -> None:
    for path in (ROOT / "helpers").iterdir():
        if path.is_dir() and list(path.glob("*.py")):
            assert f"| `{path.name}` |" in TEXTS["ARCHITECTURE.md"], path.name


def test_the_readme_is_short_and_links_to_every_document() -> None:
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= 180
    for path in PAGES[1:]:
        name = str(path.relative_to(ROOT))
        assert f"]({name})" in text or name == "docs/internals.md", name


# ---- What documents name must exist ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", commands())
def test_each_command_names_targets_and_variables_that_exist(command: str) -> None:
    for word in re.findall(r"""(?:[^\s"]|"[^"]*")+""", command)[1:]:
        name, equals, _ = word.partition("=")
        if equals:
            assert name in VARIABLES, word
        elif not word.startswith((".venv/", "runs/", "-")) and word not in ("…", "TARGET"):
            assert name in TARGETS, word


@pytest.mark.parametrize("name", TEXTS)
def test_each_variable_of_the_environment_is_one_that_the_code_reads(name: str) -> None:
    known = {f"{variables.PREFIX}{short}" for short in (*VARIABLES, *variables.OTHER_ENVIRONMENT, "NAME")}
    assert set(re.findall(rf"\b{variables.PREFIX}[A-Z_]+\b", TEXTS[name])) <= known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_file_and_folder_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.<-])((?:scripts|helpers|configs|tests|requirements|docs)/[\w./-]*\w)", text):
        assert (ROOT / name).exists() or name in MADE_LATER or re.search(r"NAME|VERB", name), name
    for name in re.findall(r"(?<![\w/])(\w+\.(?:py|sh))\b", text):
        there = [*ROOT.glob(f"scripts/{name}"), *ROOT.glob(f"helpers/**/{name}")]
        assert there or name in MADE_LATER or name[0].isupper(), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings], target


def test_each_message_in_troubleshooting_is_one_that_the_code_gives() -> None:
    """A few words of each message are quoted, so that only a message that is gone, or is another, fails here."""
    said = sentences()
    quoted = re.findall(r"^\| `(.+?)` \|", MESSAGES, re.MULTILINE)
    assert len(quoted) > 60
    assert [quote for quote in quoted if not all(part.strip().lower() in said for part in quote.split("…") if part.strip())] == []


# ---- The picture, the licences, and the commands that are promised -----------------------------------------------------------------------


def test_the_picture_shows_the_recorded_session() -> None:
    picture = session.PICTURE.read_text(encoding="utf-8")
    assert picture == session.drawn(session.RECORDING.read_text(encoding="utf-8")), "run scripts/draw_session.py"
    assert "make&#160;eval" in picture
    assert set(re.findall(r"https?://[^\"' ]+", picture)) == {"http://www.w3.org/2000/svg"}  # a name, which nothing loads


def test_bars_redrawn_in_place_are_recorded_once() -> None:
    redrawn = "start\r\n\x1b[?25l  a  1/2\r\n  b  0/2\r\x1b[2K\x1b[1A\x1b[2K  a  \x1b[32m2/2\x1b[0m\r\n  b  2/2\r\n\x1b[?25hend\r\n"
    assert session.screen(redrawn) == "start\n  a  \x1b[32m2/2\x1b[0m\n  b  2/2\nend\n"


def test_a_session_is_recorded_on_a_terminal_and_only_if_it_succeeds() -> None:
    assert session.record(["bash", "-c", "[ -t 1 ] && echo a terminal"]).endswith("\na terminal\n")
    with pytest.raises(StepFailed, match="code 3"):
        session.record(["bash", "-c", "exit 3"])


def test_the_notice_names_the_source_of_each_starter_task() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for path in (ROOT / "helpers/harness/core_evals/starter/data").iterdir():
        assert path.name in notice, path.name
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_profiles_are_listed(make: Make, project: Path) -> None:
    (project / "env.toml").write_text((project / "env.toml.example").read_text())
    done = make("profiles")
    assert done.returncode == 0, done.stderr
    assert "MY-CLUSTER-LONG" in done.stdout


def test_the_ci_calls_the_command_that_is_named() -> None:
    assert "make test-deps test" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"```bash\nmake test-deps test\n```", TEXTS["README.md"])
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=False).returncode == 0
