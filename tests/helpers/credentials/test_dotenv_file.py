"""credentials/dotenv_file.py: lines that are no assignment, and a file that others can read. What is read: test_gathering.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.common import files
from helpers.common.errors import BadInput
from helpers.credentials import dotenv_file

SECRET = "planted-S3cret"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dotenv(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / ".env"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"A=1\n\n\n{SECRET}\n", 4),
        (f'A=1\nB = "{SECRET}\n', 2),
        (f"# c\nexport {SECRET}\n", 2),
        (f"A B={SECRET}\n", 1),
        (f"{SECRET}==\n", 1),
        (f"A={SECRET}\0\n", 1),
    ],
)
def test_a_malformed_line_of_dotenv_is_named_and_not_shown(home: Path, text: str, line: int) -> None:
    path = dotenv(home, text)
    with pytest.raises(BadInput) as caught:
        dotenv_file.read(home)
    assert f"{files.shown(path)}:{line}: expected NAME=value" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("mode", "noticed"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_notice_names_a_dotenv_that_others_can_read(home: Path, mode: int, noticed: bool) -> None:
    dotenv(home, "A=1\n", mode)
    notices = dotenv_file.read(home)[1]
    assert [("chmod 600 .env" in notice) for notice in notices] == [True] * noticed


def test_without_a_dotenv_file_nothing_is_read(home: Path) -> None:
    assert dotenv_file.read(home) == ({}, [])
    (home / ".env").mkdir()
    assert dotenv_file.read(home) == ({}, [])
    assert dotenv_file.read(None) == ({}, [])
