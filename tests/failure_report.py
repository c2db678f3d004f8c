"""What a failed test shows besides its error: what each run of its copy of the project recorded and logged, from the end.

A test whose fixtures or their values lead to a copy of the project (`project`, or an object that has one: a desk, a pipeline) needs to do
nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LINES, WHOLE = 40, 200  # of one file, and of all of a test
FILES = ("events.jsonl", "logs/*", "jobs/server.log", "jobs/export.log", "jobs/*/logs/*.log")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the ends of the files of each run to a failure's sections."""
    report: Any = yield
    if report.failed:
        report.sections += sections(projects(item))
    return report


def projects(item: pytest.Item) -> list[Path]:
    """The copies of the project that a test's fixtures lead to."""
    values: dict[str, Any] = getattr(item, "funcargs", {})
    found = [values.get("project"), *(getattr(value, "project", None) for value in values.values())]
    return list(dict.fromkeys(path for path in found if isinstance(path, Path)))


def sections(copies: list[Path]) -> list[tuple[str, str]]:
    """Title and text for each file: at most LINES of one, and WHOLE in all; the newest run comes first."""
    found: list[tuple[str, str]] = []
    left = WHOLE
    runs = [run for copy in copies for run in copy.glob("runs/*Z-*") if run.is_dir()]
    for run in sorted(runs, key=lambda run: run.name, reverse=True):
        for path in dict.fromkeys(path for pattern in FILES for path in sorted(run.glob(pattern))):
            if left and (lines := tail(path, min(LINES, left))):
                found.append((f"end of runs/{run.name}/{path.relative_to(run)}", "\n".join(lines)))
                left -= len(lines)
    return found


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file; none of one that is no file or cannot be read."""
    try:
        return path.read_text(errors="replace").splitlines()[-lines:] if path.is_file() else []
    except OSError:
        return []
