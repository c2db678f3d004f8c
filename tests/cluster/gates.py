"""A command of the login node that a test holds at one of its calls, or that fails from some call on.

with gate(bed, "sbatch", call=2) as held:     the second sbatch waits …
    until(held.reached)
    kill_sessions(bed)                        … while something goes wrong
    held.open()
with failing(bed, "squeue", "slurm_load_jobs error: …", after=1): ...
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.testbed import Bed

# Counts its calls, without those of jobs and those that only look.
COUNT = """#!/bin/bash
if [ -z "${SLURM_JOB_ID:-}" ] && [[ " $* " != *" --test-only "* && " $* " != *" --version "* ]]; then
  exec 9>> MARK.lock
  flock 9
  calls=$(($(cat MARK.calls 2> /dev/null || echo 0) + 1))
  echo "$calls" > MARK.calls
  exec 9>&-
"""


@dataclass
class Gate:
    """What stands before a command."""

    mark: Path
    call: int

    @property
    def calls(self) -> int:
        """How often the command was called."""
        try:
            return int(self.mark.with_suffix(".calls").read_text() or 0)
        except FileNotFoundError:
            return 0

    def reached(self) -> bool:
        """Whether the call that is held has begun."""
        return self.calls >= self.call

    def open(self) -> None:
        """Let it continue, and all that follow."""
        self.mark.with_suffix(".open").touch()


@contextlib.contextmanager
def _before(bed: Bed, name: str, call: int, then: str) -> Iterator[Gate]:
    """Put a script before a command: `then` is done at each call that counts, with its number in $calls."""
    program, kept = bed.folder / "bin" / name, bed.folder / "bin" / f".{name}.kept"
    held = Gate(bed.folder / "faults" / f"gate-{name}", call)
    marks = [held.mark.with_suffix(suffix) for suffix in (".lock", ".calls", ".open")]
    for mark in marks:
        mark.unlink(missing_ok=True)
    had_one = program.exists()
    if had_one:
        program.rename(kept)
    real = bed.name / "bin" / kept.name if had_one else Path("/usr/bin") / name
    script = f'{COUNT}{then}fi\nexec {real} "$@"\n'
    program.write_text(script.replace("MARK", str(bed.name / "faults" / held.mark.name)))
    program.chmod(0o755)
    try:
        yield held
    finally:
        held.open()
        program.unlink(missing_ok=True)
        if had_one:
            kept.rename(program)


def gate(bed: Bed, name: str, call: int = 1) -> contextlib.AbstractContextManager[Gate]:
    """The Nth call of a command from now on waits until the gate is opened, a minute at most."""
    then = f'  if [ "$calls" = {call} ]; then for ((i = 0; i < 600; i++)); do [ ! -e MARK.open ] || break; sleep 0.1; done; fi\n'
    return _before(bed, name, call, then)


def failing(bed: Bed, name: str, message: str, after: int = 0) -> contextlib.AbstractContextManager[Gate]:
    """A command fails with this message, from its call `after` + 1 on."""
    then = f'  if [ "$calls" -gt {after} ]; then echo {shlex.quote(message)} >&2; exit 1; fi\n'
    return _before(bed, name, after + 1, then)


def waiting_for_the_lock(bed: Bed) -> bool:
    """Whether a script on this bed's login node waits for another one: it sleeps 0.3 s again and again."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", "0.3"] and process.environ().get("SLURM_CONF", "").startswith(f"{bed.name}/"):
                return True
    return False
