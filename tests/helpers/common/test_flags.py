"""helpers/common/flags.py: one rule for yes and no, and one for counts."""

from __future__ import annotations

import re

import pytest

from checkout import ROOT
from helpers.common import flags
from helpers.common.errors import BadInput


@pytest.mark.parametrize("value", ["1", "y", "Y", "yes", "YES", "true", "True", "on", " on\n"])
def test_a_yes_is_yes(value: str) -> None:
    assert flags.is_yes("VERBOSE", value)


@pytest.mark.parametrize("value", [None, "", "  ", "0", "n", "N", "no", "NO", "false", "False", "off", " Off "])
def test_a_no_is_no(value: str | None) -> None:
    assert not flags.is_yes("VERBOSE", value)


@pytest.mark.parametrize("value", ["2", "maybe", "yes!", "--yes", "ja", "nope", "10", "y n"])
def test_anything_else_is_refused_by_the_name_that_was_typed(value: str) -> None:
    with pytest.raises(
        BadInput, match=re.escape(f"VERBOSE={value}: expected 1, y, yes, true, on to switch it on, or 0, n, no, false, off")
    ):
        flags.is_yes("VERBOSE", value)


def test_each_on_off_variable_of_the_makefile_is_one() -> None:
    documented = re.findall(r"^#: ([A-Z_]+) +1: ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(flags.NAMES)


def test_a_count_is_a_whole_number_of_one_or_more() -> None:
    assert flags.count("JOBS", "4", "jobs") == 4
    for text in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(BadInput, match="expected a number of jobs, 1 or more"):
            flags.count("JOBS", text, "jobs")
