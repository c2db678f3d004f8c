"""Running bash scripts on a cluster.

A script goes to `bash -s` on its standard input, after its values as quoted assignments: no value passes through the remote login shell,
whichever shell that is. It answers in frames: `@KIND KEY BYTES`, a line break, so many bytes, a line break. Anything that a .bashrc prints
before them is skipped, and an answer without its last frame counts as lost.
"""

import re
import secrets
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from helpers.cluster import connection
from helpers.cluster.connection import LOST, REFUSED, Cluster
from helpers.common.errors import StepFailed, Unreachable

HELPERS = Path(__file__).parent.parent
# The line of a script that names the files it needs before it, relative to helpers/.
_NEEDS = re.compile(r"^# Needs: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Frame:
    """One piece of a script's answer."""

    kind: str
    key: str
    data: bytes

    @property
    def text(self) -> str:
        """The data as text, without the line breaks at its end."""
        return self.data.decode("utf-8", "replace").rstrip("\n")


def script(path: str, **values: str | int | Sequence[str]) -> str:
    """The script helpers/PATH with all that it needs, and these values as bash variables and arrays before it."""
    return f"{assigned(**values)}{text_of(path)}main; exit\n"


def assigned(**values: str | int | Sequence[str]) -> str:
    """Lines of bash that give variables and arrays these values, each quoted."""
    return "".join(f"{key}={_quoted(value)}\n" for key, value in values.items())


def text_of(path: str) -> str:
    """The text of the script helpers/PATH after the texts of the scripts that its line `# Needs: PATH…` names."""
    own = (HELPERS / path).read_text(encoding="utf-8")
    needed = found[1].split() if (found := _NEEDS.search(own)) else []
    return "".join([*(text_of(one) for one in needed), own])


def _quoted(value: str | int | Sequence[str]) -> str:
    if isinstance(value, (str, int)):
        return shlex.quote(str(value))
    return f"({' '.join(shlex.quote(one) for one in value)})"


def run(cluster: Cluster, text: str, timeout: float = 90, interactive: bool = True) -> list[Frame]:
    """What a script (see `script`) answers on the cluster. `timeout` in seconds.

    If the connection breaks, it is opened again and the script runs once more: every script here allows that. `interactive`: a new
    connection may ask the person for a password or a second factor. Raises Unreachable with the fix, and StepFailed if bash itself failed.
    """
    return connection.twice(lambda: _run_once(cluster, text, timeout, interactive), cluster)


def _run_once(cluster: Cluster, text: str, timeout: float, interactive: bool) -> list[Frame]:
    token = secrets.token_hex(8)
    with connection.start(cluster, interactive) as process:
        try:
            stdout, stderr = process.communicate(f"TOKEN={token}\n{text}".encode(), timeout)
        except BaseException as error:
            # Also on Ctrl-C: ssh may not have heard it. What bash started there may hold the pipes open, so they are not read to their end.
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Unreachable(
                    f"{cluster} did not answer within {timeout:.0f} s; its login node may be overloaded or the network down: try again"
                ) from None
            raise
    return answer(cluster, stdout, stderr.decode("utf-8", "replace"), process.returncode, token)


def answer(cluster: Cluster, stdout: bytes, stderr: str, code: int, token: str) -> list[Frame]:
    """The frames of an answer.

    Raises ConnectionLost if it breaks off, Unreachable if Slurm's commands are missing there, StepFailed if bash failed.
    """
    if REFUSED in stderr:
        raise connection.lost(cluster, stderr)
    _, mark, rest = stdout.partition(f"@@{token}\n".encode())
    frames, _ = split_frames(rest)
    for frame in frames:
        if frame.kind == "no-slurm":
            refuse_no_slurm(cluster, frame)
    if mark and frames and frames[-1].kind == "end":
        return frames[:-1]
    if code == LOST or code < 0 or (mark and not code):
        raise connection.lost(cluster, stderr)
    raise StepFailed(f"bash on {cluster} ended with code {code}: {connection.last_line(stderr) or 'it printed nothing'}")


def refuse_no_slurm(cluster: Cluster, frame: Frame) -> NoReturn:
    """Raise Unreachable for a login node on which Slurm's commands are not found."""
    raise Unreachable(
        f"{cluster}: Slurm's commands are not on the PATH of a command over ssh ({frame.text}); add them to PATH in your ~/.bashrc there "
        "(above the line that ends it for shells that are not interactive), or ask the cluster's administrators"
    )


def split_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning of some bytes, and the rest."""
    frames, position = [], 0
    while found := _HEAD.match(data, position):
        end = found.end() + int(found[3])
        if len(data) < end + 1:
            break
        frames.append(Frame(found[1].decode(), found[2].decode("utf-8", "replace"), data[found.end() : end]))
        position = end + 1
    return frames, data[position:]


_HEAD = re.compile(rb"@([a-z-]+) (\S+) (\d+)\n")
