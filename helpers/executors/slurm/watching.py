"""Watching tasks on a cluster in one ssh session: their logs as they grow and their states, even across lost connections."""

import contextlib
import os
import secrets
import select
import subprocess
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster import connection, scripts
from helpers.cluster.connection import Cluster, SessionRefused
from helpers.cluster.scripts import Frame
from helpers.common import console
from helpers.common.errors import Unreachable
from helpers.executors.slurm.asking import Question

# watch.sh sends a beat every 5 seconds, and squeue and sacct may take 25 each.
SILENT_SECONDS = 75.0
ASK_SECONDS, ASK_MOST = 3, 30
WAIT_SECONDS, WAIT_MOST = 1.0, 30.0  # between attempts to connect again
REMIND_SECONDS = 60  # how often a connection that stays lost is mentioned
GIVE_UP_SECONDS = 12 * 3600  # a night without a network is no reason to stop
PATTERNS = {"client": "logs/client-*.log", "server": "logs/*server-*.log", "slurm": "logs/slurm-*.log"}


@dataclass(frozen=True)
class LogPiece:
    """New bytes in a log of the task `key`. `begins`: the first piece of this file."""

    key: str
    file: str
    data: bytes
    begins: bool


@dataclass(frozen=True)
class StatesKnown:
    """Slurm has answered: the question that is watched holds the new states."""


@dataclass
class Watch:
    """One watch over the tasks of a question. `which`: client, server or slurm logs; None: no logs."""

    question: Question
    which: str | None
    asks: bool = True
    keys: list[str] | None = None  # the tasks whose logs are wanted; None: all
    sizes: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _stopped: bool = False

    def events(self) -> Generator[LogPiece | StatesKnown, None, None]:
        """What happens, until `stop`. After a lost connection it connects again; no byte of a log is missed or shown twice.

        Raises Unreachable if the first connection cannot be made, or a later one is lost for GIVE_UP_SECONDS.
        """
        connected, wait, told, began = False, WAIT_SECONDS, 0.0, time.monotonic()
        heard = began
        while True:
            try:
                for event in self._session(interactive=not connected):
                    if told:
                        console.notice(f"connected to {self.question.cluster} again")
                    connected, wait, told = True, WAIT_SECONDS, 0.0
                    yield event
                    heard = time.monotonic()
            except Unreachable as error:
                if not connected:
                    if isinstance(error, SessionRefused) and time.monotonic() - began < connection.REFUSED_SECONDS:
                        time.sleep(WAIT_SECONDS / 2)
                        continue
                    raise
                if time.monotonic() - heard > GIVE_UP_SECONDS:
                    raise Unreachable(f"{error}; gave up after {GIVE_UP_SECONDS / 3600:g} h; run the same command again later") from error
                if not told or time.monotonic() - told > REMIND_SECONDS:
                    told = time.monotonic()
                    console.notice(f"{error}; the jobs keep running, connecting again")
                time.sleep(wait)
                wait = min(WAIT_MOST, wait * 2)
            else:
                return
            finally:
                self._end()

    def stop(self) -> None:
        """End the watch once everything that is in the logs by now was sent."""
        self._stopped = True
        self._say("stop")

    def _say(self, word: str) -> None:
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError):  # the reader notices
                self._process.stdin.write(f"{word}\n".encode())
                self._process.stdin.flush()

    def _script(self) -> str:
        values: dict[str, Any] = self.question.values()
        if self.keys is not None:
            chosen = [index for index, key in enumerate(values["KEYS"]) if key in self.keys]
            values |= {name: [values[name][index] for index in chosen] for name in ("KEYS", "NAMES", "DIRS", "FIRSTS")}
        return scripts.script(
            "executors/slurm/watch.sh",
            **values,
            PATTERN=PATTERNS[self.which] if self.which else "",
            SEEN=[f"{name}={size}" for name, size in self.sizes.items()],
            ASK_SECONDS=ASK_SECONDS if self.asks else 0,
            ASK_MOST=ASK_MOST,
        )

    def _session(self, interactive: bool) -> Iterator[LogPiece | StatesKnown]:
        cluster, token = self.question.cluster, secrets.token_hex(8)
        self._process = process = connection.start(cluster, interactive)
        self._say(f"TOKEN={token}\n{self._script()}")
        if self._stopped or not self.asks:
            self._say("stop")
        answer: list[Frame] = []
        for frame in _frames(process, token, cluster):
            if frame.kind == "end":
                return
            if frame.kind == "no-slurm":
                scripts.refuse_no_slurm(cluster, frame)
            if frame.kind == "log":
                name, _, offset = frame.key.rpartition("/")
                key, _, file = name.partition("/")
                begins = name not in self.sizes
                self.sizes[name] = int(offset) + len(frame.data)
                yield LogPiece(key, file, frame.data, begins)
            elif frame.kind == "asked":
                self.question.take(answer)
                answer = []
                yield StatesKnown()
            elif frame.kind != "beat":
                answer.append(frame)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(OSError):
                stream.close()
        process.terminate()
        process.wait()


def _frames(process: subprocess.Popen[bytes], token: str, cluster: Cluster) -> Iterator[Frame]:
    """The frames of a session as they come. Raises ConnectionLost if it ends, or falls silent, before its last frame."""
    assert process.stdout
    assert process.stderr
    mark, begun, data = f"@@{token}\n".encode(), False, b""
    descriptor = process.stdout.fileno()
    while True:
        ready, _, _ = select.select([descriptor], [], [], SILENT_SECONDS)
        piece = os.read(descriptor, 1 << 20) if ready else b""
        if not piece:
            process.kill()
            said = process.stderr.read().decode("utf-8", "replace")
            if not ready:
                connection.close(cluster)
            raise connection.lost(cluster, said, "it closed" if ready else f"silent for {SILENT_SECONDS:.0f} s", fix="")
        data += piece
        if not begun:
            _, found, rest = data.partition(mark)
            if not found:
                continue
            begun, data = True, rest
        whole, data = scripts.split_frames(data)
        yield from whole
