"""The connection to a cluster: one OpenSSH master, which all steps share.

OpenSSH itself connects, so ~/.ssh/config, the agent, ProxyJump and a second factor keep working. The first command that needs a cluster
opens one master connection to it. Every later command uses the master through its socket, so a cluster that asks for a second factor asks
once. The master ends KEPT_SECONDS after its last use. With `tunnel = "local"` the same commands run without ssh, on a login node.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from helpers.common import console
from helpers.common.errors import Unreachable, one_line

KEPT_SECONDS = 600
CONNECT_SECONDS = 20
# A silent connection is given up after 3 × 15 seconds: long enough to change the Wi-Fi, short enough for a person who waits.
ALIVE_SECONDS, ALIVE_COUNT = 15, 3
# What ssh says when the server opens no more sessions on a connection (MaxSessions, 10 by default), and how long we try again.
REFUSED, REFUSED_SECONDS = "Session open refused by peer", 30
LOST = 255  # ssh's own exit code
AGAIN = "; run the same command again"
# If the master has disappeared, a command must fail instead of quietly making a connection of its own: this one leads nowhere.
ONLY_THROUGH_MASTER = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-T", "-o", "RemoteCommand=none")
# What a command on the login node itself gets of our environment: as little as over ssh, so that none of our secrets reaches a job.
LOCAL_ENVIRONMENT = (
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "TMPDIR", "SLURM_CONF", "LD_LIBRARY_PATH", "MODULEPATH", "KRB5CCNAME",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "ENROOT_CONFIG_PATH", "ENROOT_SYSCONF_PATH", "ENROOT_ALLOW_HTTP",
)  # fmt: skip

T = TypeVar("T")


class ConnectionLost(Unreachable):
    """The connection broke while a command was running: what it did there is unknown."""


class SessionRefused(ConnectionLost):
    """The server opens no more sessions on this connection; it does when others end."""


@dataclass(frozen=True)
class Cluster:
    """How to reach a cluster. `user`, `port` and `identity` are None where ssh's own choice is right."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    tunnel: str = "ssh"

    def __str__(self) -> str:
        """`user@host`, or `this login node`."""
        if self.tunnel == "local":
            return "this login node"
        return f"{self.user}@{self.host}" if self.user else self.host


def lost(cluster: Cluster, said: str, otherwise: str = "it closed", doing: str = "", fix: str = AGAIN) -> ConnectionLost:
    """The error for a broken connection, with ssh's last line, or `otherwise` if it printed nothing; `doing`: what we did meanwhile."""
    text = f"the connection to {cluster} was lost{doing} ({last_line(said) or otherwise}){fix}"
    return SessionRefused(text) if REFUSED in said else ConnectionLost(text)


def last_line(text: str) -> str:
    """The last line of what ssh printed that explains something, leaving out the server's greeting."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"ssh|mux|Connection|connection|closed|denied|bash|rsync|Control|kex_", line)]
    return one_line((telling or lines or [""])[-1])[:300]


# ---- Commands ------------------------------------------------------------------------------------------------------------------------


def command(cluster: Cluster, interactive: bool = True) -> list[str]:
    """The argument vector that runs `bash -s` on the cluster, after opening its connection. Raises Unreachable."""
    if cluster.tunnel == "local":
        return ["bash", "-s"]
    open_connection(cluster, interactive)
    return ["ssh", *through_master(cluster), "--", cluster.host, "exec bash -s"]


def environment(cluster: Cluster) -> dict[str, str] | None:
    """The environment of such a command. None means that of this process: ssh needs it and passes nothing on."""
    return {name: os.environ[name] for name in LOCAL_ENVIRONMENT if name in os.environ} if cluster.tunnel == "local" else None


def start(cluster: Cluster, interactive: bool = True) -> subprocess.Popen[bytes]:
    """`bash -s` on the cluster, with pipes, after opening its connection. Raises Unreachable."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command(cluster, interactive), stdin=pipe, stdout=pipe, stderr=pipe, env=environment(cluster))


def through_master(cluster: Cluster) -> list[str]:
    """The options with which an ssh command uses the master connection and nothing else."""
    return ["-S", str(socket_path(cluster)), *ONLY_THROUGH_MASTER]


def rsync_shell(cluster: Cluster) -> str:
    """The value of RSYNC_RSH with which rsync uses the master connection. The socket's path holds no space."""
    return shlex.join(["ssh", *through_master(cluster)])


def twice(act: Callable[[], T], cluster: Cluster, notice: str = "") -> T:
    """What `act` returns. If the connection breaks meanwhile, it is called once more, after this notice.

    While the server opens no more sessions, it is called again for REFUSED_SECONDS. Raises Unreachable, and what `act` raises.
    """
    began, was_lost = time.monotonic(), False
    while True:
        try:
            return act()
        except SessionRefused as error:
            if time.monotonic() - began > REFUSED_SECONDS:
                raise Unreachable(
                    f"{cluster} refuses another session on the connection (sshd's MaxSessions); wait until your other commands have ended"
                ) from error
            time.sleep(0.5)
        except ConnectionLost:
            if was_lost:
                raise
            was_lost = True
            if notice:
                console.notice(notice)


# ---- The master connection -----------------------------------------------------------------------------------------------------------


@cache
def socket_path(cluster: Cluster) -> Path:
    """The master's socket, in a private folder (0700) of this user. Its path is short, since a socket's must stay under 104 characters.

    Its name depends on where the connection goes and on which ssh is called. Raises Unreachable if the folder belongs to somebody else or
    is open to others.
    """
    folder = Path("/tmp") / f"evalmake-{os.getuid()}"  # noqa: S108  not TMPDIR, which may be long
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Unreachable(f"cannot make {folder} for the connection's socket: {error.strerror}") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise Unreachable(f"{folder} must belong to you alone, since it holds the connection's socket: remove it, or have it removed")
    parts = [cluster.host, cluster.user, cluster.port, cluster.identity, shutil.which("ssh")]
    return folder / hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def is_open(cluster: Cluster) -> bool:
    """Whether the master connection is open: its socket accepts a connection. Takes some microseconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        return probe.connect_ex(str(socket_path(cluster))) == 0


def open_command(cluster: Cluster) -> list[str]:
    """The command that opens the master connection. A person can run it too."""
    own = ["-l", cluster.user] if cluster.user else []
    own += ["-p", str(cluster.port)] if cluster.port else []
    own += ["-i", cluster.identity] if cluster.identity else []
    options = ["ControlMaster=yes", "RemoteCommand=none", "ClearAllForwardings=yes", "Compression=yes", f"ControlPersist={KEPT_SECONDS}"]
    options += [f"ConnectTimeout={CONNECT_SECONDS}", f"ServerAliveInterval={ALIVE_SECONDS}", f"ServerAliveCountMax={ALIVE_COUNT}"]
    return ["ssh", "-fN", "-S", str(socket_path(cluster)), *(word for one in options for word in ("-o", one)), *own, "--", cluster.host]


def open_connection(cluster: Cluster, interactive: bool = True) -> None:
    """Open the master connection unless it is open; two callers at once open one. Raises Unreachable with the fix."""
    if cluster.tunnel == "local" or is_open(cluster):
        return
    path = socket_path(cluster)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_open(cluster):
            return
        path.unlink(missing_ok=True)  # of a master that was killed
        asks = interactive and _has_terminal()
        argv = open_command(cluster)
        if not asks:
            argv[1:1] = ["-o", "BatchMode=yes"]
        # A file, not a pipe: the master goes to the background and would hold the pipe open.
        with tempfile.TemporaryFile() as said:
            try:
                code = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=None if asks else CONNECT_SECONDS * 3
                ).returncode
            except FileNotFoundError:
                raise Unreachable("there is no ssh command on this machine; install OpenSSH's client") from None
            except subprocess.TimeoutExpired:
                raise Unreachable(
                    f"{cluster.host} did not answer ssh within {CONNECT_SECONDS * 3} s; check the network or the VPN, then try again"
                ) from None
            said.seek(0)
            text = said.read().decode("utf-8", "replace")
        if code:
            raise Unreachable(why_not(cluster, text, asks))


def close(cluster: Cluster) -> None:
    """End the master connection, if there is one."""
    if cluster.tunnel == "ssh" and is_open(cluster):
        argv = ["ssh", "-S", str(socket_path(cluster)), "-O", "exit", "--", cluster.host]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10)


def _has_terminal() -> bool:
    """Whether ssh can ask a person: it asks on the controlling terminal, even if stdin is something else."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


# What ssh says, and what to tell the person. The first match counts; {host}, {cluster}, {said} (ssh's line) and {command} are filled in.
FIXES = {
    r"Could not resolve hostname": "this machine cannot resolve the host name {host}; check host in env.toml, ~/.ssh/config, or the VPN",
    r"Connection refused": "{host} refuses the connection; check host and port, and whether the cluster is up",
    r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed":
        "the host key of {host} has changed: ask the cluster's administrators if that is right, then `ssh-keygen -R {host}` and try again",
    r"Host key verification failed|No .* host key is known":
        "the host key of {host} is not known yet: run `ssh {host}` once and accept it, then try again",
    r"Identity file .* not accessible|Load key .*: (No such file|error|invalid)": "{said}: check identity in env.toml",
    r"Too many authentication failures": "ssh offered {cluster} too many keys: name the right one with identity in env.toml",
    r"Permission denied \([^)]*(keyboard-interactive|password)":
        "{cluster} asks for a password or a second factor, and there is no terminal to ask on; run this in a terminal, then try again "
        f"(the connection stays open for {KEPT_SECONDS // 60} minutes after its last use): {{command}}",
    r"Permission denied":
        "permission denied for {cluster}: check user and identity in env.toml, and that your key is loaded (`ssh-add -l`, `ssh {cluster}`)",
    r"timed out|No route to host|Network is unreachable": "{host} does not answer ({said}); check the network or the VPN, then try again",
    r"Bad configuration option|bad configuration options|Bad owner or permissions": "ssh cannot read its configuration: {said}",
    r"too long": "ssh cannot use its socket: {said}",
}  # fmt: skip


def why_not(cluster: Cluster, said: str, asked: bool = False) -> str:
    """What is wrong and how to fix it, in one line, from what ssh printed when it could not connect. `asked`: ssh could ask a person."""
    line = last_line(said) or "ssh printed nothing"
    for pattern, fix in FIXES.items():
        if (found := re.search(pattern, said)) and not (asked and "{command}" in fix):
            near = next((one for one in said.splitlines() if found[0] in one), line)
            return fix.format(host=cluster.host, cluster=cluster, said=one_line(near)[:300], command=shlex.join(open_command(cluster)))
    return f"the connection to {cluster} failed: {line}; try again, or see what `ssh {cluster}` says"
