"""Staying with tasks on a cluster in one ssh session: their logs as they grow, and where they stand; over lost connections too."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster import connection
from helpers.cluster.connection import ConnectionLost, Frame
from helpers.common import console
from helpers.common.errors import Unreachable
from helpers.executors.slurm.asking import Question

# on_cluster/watch.sh says that it is there every 5 seconds, and squeue and sacct may take 25 each.
SILENT_SECONDS = 75.0
ASK_SECONDS, ASK_MOST = 3, 30
WAIT_SECONDS, WAIT_MOST = 1.0, 30.0  # between attempts to connect again
PATTERNS = {"client": "logs/client-*.log", "server": "logs/*server-*.log", "slurm": "logs/slurm-*.log"}


@dataclass(frozen=True)
class LogPiece:
    """What came to a log of the task `key`; `begins`: the first of this file."""

    key: str
    file: str
    data: bytes
    begins: bool


@dataclass(frozen=True)
class Asked:
    """Slurm was asked: the question that was watched knows the answer."""


@dataclass
class Watch:
    """One watch over the tasks of a question. `which`: client, server or slurm logs; None: none."""

    question: Question
    which: str | None
    asks: bool = True
    keys: list[str] | None = None  # of the tasks whose logs are wanted; None: all
    sizes: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _stopped: bool = False

    def events(self) -> Generator[LogPiece | Asked, None, None]:
        """What happens, until `stop`. A connection that is lost is made anew, and no byte of a log is missed or shown twice.

        Raises Unreachable when the first connection cannot be made.
        """
        connected, wait, told, began = False, WAIT_SECONDS, 0.0, time.monotonic()
        while True:
            try:
                for event in self._session(interactive=not connected):
                    if not connected or told:
                        if told:
                            console.notice(f"connected to {self.question.cluster} again")
                        connected, wait, told = True, WAIT_SECONDS, 0.0
                    yield event
            except Unreachable as error:
                if not connected and connection.REFUSED in str(error) and time.monotonic() - began < connection.REFUSED_SECONDS:
                    time.sleep(WAIT_SECONDS / 2)
                    continue
                if not connected:
                    raise
                if not told or time.monotonic() - told > 60:  # noqa: PLR2004  seconds: once a minute is enough
                    told = time.monotonic()
                    console.notice(f"{error.args[0]}; the jobs go on, connecting again")
                time.sleep(wait)
                wait = min(WAIT_MOST, wait * 2)
            else:
                return
            finally:
                self._end()

    def stop(self) -> None:
        """Let the watch end, after what is in the logs by now."""
        self._stopped = True
        self._say("stop")

    def _say(self, word: str) -> None:
        if self._process and self._process.stdin:
            try:
                self._process.stdin.write(f"{word}\n".encode())
                self._process.stdin.flush()
            except OSError:
                return  # the reader finds out

    def _script(self) -> str:
        values: dict[str, Any] = self.question.values()
        if self.keys is not None:
            chosen = [index for index, key in enumerate(values["KEYS"]) if key in self.keys]
            values |= {name: [values[name][index] for index in chosen] for name in ("KEYS", "NAMES", "DIRS", "FIRSTS")}
        return connection.script(
            "watch",
            **values,
            PATTERN=PATTERNS[self.which] if self.which else "",
            SEEN=[f"{name}={size}" for name, size in self.sizes.items()],
            ASK_SECONDS=ASK_SECONDS if self.asks else 0,
            ASK_MOST=ASK_MOST,
        )

    def _session(self, interactive: bool) -> Iterator[LogPiece | Asked]:
        cluster, token = self.question.cluster, secrets.token_hex(8)
        argv = connection.command(cluster, interactive)
        pipe, env = subprocess.PIPE, connection.environment(cluster)
        self._process = process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        self._say(f"TOKEN={token}\n{self._script()}")
        if self._stopped or not self.asks:
            self._say("stop")
        asked: list[Frame] = []
        for frame in _frames(process, token, cluster):
            if frame.kind == "end":
                return
            if frame.kind == "no-slurm":
                connection.refuse_no_slurm(cluster, frame)
            if frame.kind == "log":
                name, _, offset = frame.key.rpartition("/")
                key, _, file = name.partition("/")
                begins = name not in self.sizes
                self.sizes[name] = int(offset) + len(frame.data)
                yield LogPiece(key, file, frame.data, begins)
            elif frame.kind == "asked":
                self.question.take(asked)
                asked = []
                yield Asked()
            elif frame.kind != "beat":
                asked.append(frame)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                try:
                    stream.close()
                except OSError:
                    continue
        process.terminate()
        process.wait()


def _frames(process: subprocess.Popen[bytes], token: str, cluster: connection.Cluster) -> Iterator[Frame]:
    """The frames of a session as they come. Raises ConnectionLost when it ends, or is silent, before its last."""
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
            reason = connection.last_line(said) or ("it closed" if ready else f"silent for {SILENT_SECONDS:.0f} s")
            if not ready:
                connection.close(cluster)
            raise ConnectionLost(f"the connection to {cluster} was lost ({reason})")
        data += piece
        if not begun:
            _, found, rest = data.partition(mark)
            if not found:
                continue
            begun, data = True, rest
        whole, data = connection.split_frames(data)
        yield from whole
