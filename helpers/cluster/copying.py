"""Copying folders to a cluster and from it, with rsync over the shared connection."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from helpers.cluster.connection import LOST, REFUSED, Cluster, last_line, lost, open_connection, rsync_shell, twice
from helpers.common.errors import StepFailed, Unreachable, one_line

SECONDS = 600  # that one call of rsync may take
# rsync's exit codes (its man page): 10 and 12 the connection, 30 and 35 a time-out, 255 ssh's own. Below 0: it was killed.
BROKEN = (10, 12, 30, 35, LOST)


def upload(cluster: Cluster, sources: Sequence[Path], target: str) -> None:
    """Copy folders, with their modes, into the folder `target` of the cluster, which exists. A second call copies what is missing.

    Raises Unreachable if the connection breaks twice, StepFailed if the cluster cannot take it (its disk is full).
    """
    _rsync(cluster, ["--archive"], [*map(str, sources), _there(cluster, target)])


def download(cluster: Cluster, folders: Sequence[str], target: Path, leave_out: Sequence[str], interactive: bool = True) -> None:
    """Copy what the folders on the cluster hold into folders of the same names in `target`, without what `leave_out` names.

    Files that are already the same are not copied. A file gets its name only when it is whole. Raises as `upload`.
    """
    options = ["--recursive", "--times", "--links", *(f"--exclude={one}" for one in leave_out)]
    first, *others = folders
    # rsync takes several sources of one host as host:one :two, over one connection.
    sources = [_there(cluster, first), *((f":{one}" if cluster.tunnel == "ssh" else one) for one in others)]
    _rsync(cluster, options, [*sources, f"{target}/"], interactive)


def _there(cluster: Cluster, path: str) -> str:
    host = f"[{cluster.host}]" if ":" in cluster.host else cluster.host
    return f"{host}:{path}" if cluster.tunnel == "ssh" else path


def _rsync(cluster: Cluster, options: list[str], paths: list[str], interactive: bool = True) -> None:
    words = ["--protect-args", "--timeout=60", *options, "--", *paths]
    notice = f"the connection to {cluster} was lost while copying: trying once more"
    twice(lambda: _run(cluster, words, interactive), cluster, notice)


def _run(cluster: Cluster, words: list[str], interactive: bool) -> None:
    import sh

    open_connection(cluster, interactive)
    env = {**os.environ, "RSYNC_RSH": rsync_shell(cluster)} if cluster.tunnel == "ssh" else None
    try:
        sh.Command("rsync")(*words, _env=env, _timeout=SECONDS, _tty_out=False)
    except sh.CommandNotFound:
        raise StepFailed("there is no rsync command on this machine; install rsync") from None
    except sh.TimeoutException:
        raise Unreachable(f"copying to or from {cluster} took longer than {SECONDS} s; run the same command again") from None
    except sh.ErrorReturnCode as error:
        said = error.stderr.decode("utf-8", "replace")
        if REFUSED not in said:
            _refuse(cluster, int(error.exit_code), said)
        raise lost(cluster, said, doing=" while copying") from None


def _refuse(cluster: Cluster, code: int, said: str) -> None:
    """Raise StepFailed for what does not go away by itself."""
    if "command not found" in said or "rsync: not found" in said:
        raise StepFailed(f"there is no rsync command on {cluster}; have it installed there")
    if re.search(r"is your shell clean|protocol incompatibility", said):
        raise StepFailed(
            f"rsync with {cluster} fails because a shell there prints something in sessions that are not interactive; "
            "in your ~/.bashrc there, move such lines below `[[ $- == *i* ]] || return`"
        )
    if found := re.search(r"No space left on device|Disk quota exceeded|Permission denied \(13\)|Read-only file system", said):
        near = next(line for line in said.splitlines() if found[0] in line)
        raise StepFailed(f"{cluster}: {one_line(near)[:300]}; fix that, then run the same command again")
    if code not in BROKEN and code >= 0:
        # Its very last line says no more than "see previous errors".
        before = "\n".join(line for line in said.splitlines() if not line.startswith("rsync error:"))
        raise StepFailed(f"rsync with {cluster} failed with code {code}: {last_line(before or said)}")
