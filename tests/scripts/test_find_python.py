"""scripts/find_python.sh prints a Python that runs, or one line that says what was found."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "find_python.sh"


def command(folder: Path, name: str, body: str) -> Path:
    """A shell script in `folder`: the double of a Python that this machine lacks (too old, too new, broken)."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho start >>'{folder}/starts'\n{body}\n")
    path.chmod(0o755)
    return path


def answering(folder: Path, name: str, version: str) -> Path:
    """The double of a Python of another version: it gives the answer that such a Python gives."""
    major, minor = version.split(".")[:2]
    return command(folder, name, f'echo "{int(major) * 100 + int(minor)} {version} {folder / name}"')


def find(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing but `folder` and bash's own tools to find."""
    env = {**os.environ, "PATH": str(folder)}
    return subprocess.run(["/bin/bash", str(SCRIPT), *arguments], env=env, capture_output=True, text=True, timeout=30, check=False)


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an expected error."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_first_python_that_fits_is_printed_with_one_start(tmp_path: Path) -> None:
    command(tmp_path, "python3", f'exec "{sys.executable}" "$@"')
    done = find(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.executable}\n", "")
    assert (tmp_path / "starts").read_text().count("start") == 1


def test_a_python_that_is_named_is_the_only_one_tried(tmp_path: Path) -> None:
    answering(tmp_path, "python3", "3.12.1")
    assert find(tmp_path, sys.executable).stdout == f"{sys.executable}\n"
    old = answering(tmp_path, "old", "3.9.18")
    assert f"{old}: 3.9.18" in error(find(tmp_path, str(old)))
    assert "no such program" in error(find(tmp_path, "python3.77"))
    assert "no such program" in error(find(tmp_path, str(tmp_path / "absent")))


def test_an_empty_name_means_none_was_named(tmp_path: Path) -> None:
    answering(tmp_path, "python3", "3.12.1")
    assert find(tmp_path, "").stdout == f"{tmp_path}/python3\n"


def test_shims_that_fail_and_versions_out_of_range_are_passed_over(tmp_path: Path) -> None:
    command(tmp_path, "python3", "echo 'pyenv: python3: command not found' >&2; exit 127")
    answering(tmp_path, "python3.13", "3.14.0")
    answering(tmp_path, "python3.12", "3.9.2")
    answering(tmp_path, "python3.11", "3.11.7")
    assert find(tmp_path).stdout == f"{tmp_path}/python3.11\n"


def test_a_program_that_is_no_python_is_passed_over(tmp_path: Path) -> None:
    command(tmp_path, "python3", "echo hello")
    answering(tmp_path, "python3.12", "3.12.1")
    assert find(tmp_path).stdout == f"{tmp_path}/python3.12\n"


def test_with_none_that_fits_the_line_says_what_was_found_and_how_to_fix_it(tmp_path: Path) -> None:
    command(tmp_path, "python3", "exit 127")
    answering(tmp_path, "python3.13", "3.14.0")
    line = error(find(tmp_path))
    for part in ("python3: does not run", "python3.13: 3.14.0", "apt install", "brew install", "make PYTHON="):
        assert part in line


def test_with_no_python_at_all_the_line_says_so(tmp_path: Path) -> None:
    assert "found none" in error(find(tmp_path))


def test_a_path_with_a_space_is_printed_whole(tmp_path: Path) -> None:
    folder = tmp_path / "my tools"
    folder.mkdir()
    answering(folder, "python3", "3.10.1")
    assert find(folder).stdout == f"{folder}/python3\n"
