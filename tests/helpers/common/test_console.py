"""helpers/common/console.py: numbers with their nouns, and tables that a pipe gets whole."""

from __future__ import annotations

import pytest

from helpers.common import console


def test_a_number_goes_with_its_noun() -> None:
    assert [console.counted(number, "job") for number in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


def test_in_a_pipe_a_table_is_aligned_text_and_nothing_of_it_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("title", ["name", "n"], [["a\nb", "7"], [console.Cell("x" * 200, "red"), "11"]], right=("n",), last_is_text=True)
    title, head, first, second = capsys.readouterr().out.splitlines()
    assert title == "title"
    assert head.split() == ["name", "n"]
    assert first == "a b" + " " * 197 + "   7"
    assert second == "x" * 200 + "  11"
