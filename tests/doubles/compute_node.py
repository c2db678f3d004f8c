"""A double of compute nodes for tests without a cluster: it runs what the double of Slurm has queued, with doubles of srun and enroot.

The jobs' own scripts are the real ones. `enroot import` writes a real squashfs, an empty folder, and says what a test has it say.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from slurm_double import ALIVE, SlurmDouble

# What `mksquashfs` makes of an empty folder: 151 bytes.
SQUASHFS = (
    "aHNxcwEAAAAAAAAAAAACAAAAAAABABEAwAABAAQAAAAAAAAAAAAAAJcAAAAAAAAAjwAAAAAAAAD//////////2AAAAAAAAAAdwAAAAAAAAB3AAAAAAAAAIEAAAAAAAAAFQB4"
    "2mNkeMvIAAUwBhMQM0NpABxvAPgIgAAAAAAAAAAAdwAAAAAAAAAEgAAAAACJAAAAAAAAAA=="
)
SRUN = """#!/bin/bash
while [[ ${1-} == -* ]]; do
  case $1 in
    --chdir) cd "$2" || exit 1; shift 2 ;;
    --output | -w) shift 2 ;;
    *) shift ;;
  esac
done
exec "$@"
"""
ENROOT = """#!/bin/bash
state=$(dirname "$0")/state
[ "$1" != version ] || exec cat "$state/version"
[ "$1" = import ] || exit 2
printf '%s\\n' "$ENROOT_TEMP_PATH" >> "$state/places"
printf '%s\\n' "${*: -1}" >> "$state/asked"
for name in "say.$(wc -l < "$state/asked")" say; do
  [ ! -e "$state/$name" ] || { cat "$state/$name" >&2; break; }
done
[ ! -e "$state/keeps-tokens" ] || { mkdir -p "$ENROOT_CACHE_PATH/.tokens.0" && : > "$ENROOT_CACHE_PATH/.tokens.0/host"; }
for name in "fail.$(wc -l < "$state/asked")" fail; do
  [ ! -e "$state/$name" ] || { cat "$state/$name" >&2; exit 1; }
done
while [ "$1" != -o ]; do shift; done
base64 -d > "$2" < "$state/image"
"""


class ComputeNode:
    """The double as a test sees it: a thread that takes the jobs one after another."""

    def __init__(self, slurm: SlurmDouble, folder: Path) -> None:
        self.slurm, self.bin, self.state = slurm, folder, folder / "state"
        self.state.mkdir(parents=True)
        for name, text in (("srun", SRUN), ("enroot", ENROOT)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (self.state / "image").write_text(SQUASHFS)
        self.enroot_is("3.5.0")
        # What becomes of a job instead of running, in their order: a state of Slurm, and after a space what Slurm writes to the job's log.
        self.ends: list[str] = []
        self.before: Callable[[], None] = lambda: None
        self.most = 0  # jobs that were in the queue at a time
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def enroot_is(self, version: str) -> None:
        (self.state / "version").write_text(f"{version}\n")

    def says(self, text: str, call: int | None = None) -> None:
        """enroot says so, and continues; at each call, or at one."""
        (self.state / ("say" if call is None else f"say.{call}")).write_text(text)

    def fails(self, text: str, call: int | None = None) -> None:
        """enroot says so and fails; at each call, or at one."""
        (self.state / ("fail" if call is None else f"fail.{call}")).write_text(text)

    def repaired(self) -> None:
        for path in [*self.state.glob("fail*"), *self.state.glob("say*")]:
            path.unlink()

    def lines(self, name: str) -> list[str]:
        """`asked`: what each import was told to import; `places`: where it worked."""
        return (self.state / name).read_text().splitlines() if (self.state / name).exists() else []

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _work(self) -> None:
        while not self._stop.is_set():
            alive = [job for job in self.slurm.jobs() if job["state"] in ALIVE]
            self.most = max(self.most, len(alive))
            for job in alive:
                if job["state"] == "PENDING" and (Path(job["dir"]) / "run.sub").exists():
                    self._run(job["id"], Path(job["dir"]))
                    break
            time.sleep(0.02)

    def _run(self, number: int, folder: Path) -> None:
        if self.ends:
            state, _, said = self.ends.pop(0).partition(" ")
            (folder / "slurm.out").write_text(said)
            self._becomes(number, state)
            return
        self.before()
        self._becomes(number, "RUNNING")
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "SLURM_JOB_ID": str(number)}
        with (folder / "slurm.out").open("w") as out:
            code = subprocess.run(
                ["bash", "run.sub"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
            ).returncode
        self._becomes(number, "FAILED" if code else "COMPLETED")

    def _becomes(self, number: int, state: str) -> None:
        with self.slurm.held() as data:
            next(job for job in data["jobs"] if job["id"] == number)["state"] = state
