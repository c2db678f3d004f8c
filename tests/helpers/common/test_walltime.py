"""Walltimes: Slurm's forms, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled import PROFILE, SLURM, compile_text
from helpers.common import walltime
from helpers.common.errors import BadInput


@pytest.mark.parametrize(
    ("text", "total", "canonical"),
    [
        ("30", 1800, "00:30:00"),
        ("90", 5400, "01:30:00"),
        ("30:15", 1815, "00:30:15"),
        ("01:00:00", 3600, "01:00:00"),
        ("120:00:00", 432_000, "5-00:00:00"),
        ("1-0", 86_400, "1-00:00:00"),
        ("1-12", 129_600, "1-12:00:00"),
        ("1-12:30", 131_400, "1-12:30:00"),
        ("2-01:02:03", 176_523, "2-01:02:03"),
        ("0-00:00:01", 1, "00:00:01"),
    ],
)
def test_each_of_slurms_forms_is_read_as_slurm_reads_it(text: str, total: int, canonical: str) -> None:
    assert walltime.seconds(text, "here") == total
    assert walltime.canonical(total) == canonical
    assert walltime.seconds(canonical, "here") == total


@pytest.mark.parametrize("text", ["", "abc", "1h", "-5", "1:2:3:4", "1-", "-1-00", "0", "00:00:00", "1.5", "1d", "1-2-3", "UNLIMITED"])
def test_any_other_form_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(BadInput, match=r"^here: walltime "):
        walltime.seconds(text, "here")


@pytest.mark.parametrize(
    ("line", "value"), [("'1-12'", "1-12:00:00"), ("'90'", "01:30:00"), ("'02:00:00'", "02:00:00"), ("08:00:00", "08:00:00")]
)
def test_a_config_gets_the_form_that_the_launcher_reads(line: str, value: str, tmp_path: Path) -> None:
    from nemo_evaluator_launcher.common.helpers import walltime_to_seconds

    found = compile_text(tmp_path, SLURM.replace("{hostname", f"{{walltime: {line}, hostname")).config["execution"]["walltime"]
    assert found == value
    assert walltime_to_seconds(found) == walltime.seconds(found, "here")


@pytest.mark.parametrize("name", ["walltime", "max_walltime"])
@pytest.mark.parametrize("value", ["12:30:45", "90"])
def test_a_walltime_that_yaml_reads_as_a_number_is_caught(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"mine\.yaml:6: execution\.{name}: .*quotes"):
        compile_text(tmp_path, SLURM.replace("{hostname", f"{{{name}: {value}, hostname"))


def test_a_profiles_time_is_held_to_the_same_forms(tmp_path: Path) -> None:
    text = SLURM.replace("hostname: h, account: a, output_dir: /o", "")
    assert compile_text(tmp_path, text, PROFILE + 'time = "1-0"\n', "C").config["execution"]["walltime"] == "1-00:00:00"
    for line in ('time = "soon"', "time = 02:00:00", "time = 90"):
        with pytest.raises(BadInput, match=r"env\.toml:13 \[C\]: time: "):
            compile_text(tmp_path, text, PROFILE + line + "\n", "C")
