"""The one door to a cluster: scripts and files over one OpenSSH connection, which all steps share, and the launcher too.

OpenSSH connects (the user's ~/.ssh/config, agent, ProxyJump and MFA keep working). One master connection a cluster is opened when it is
first needed, kept KEPT_SECONDS after its last use, and used by every command through its socket, so that a cluster that asks for a second
factor asks once. `tunnel = "local"` runs the same scripts without ssh, on a login node.

A script is sent to `bash -s` on its standard input: no value of ours goes through the remote login shell, whatever shell that is. What it
answers are frames, `@KIND KEY BYTES`, a line break, so many bytes, a line break; whatever a .bashrc prints before them is left out, and an
answer without its last frame counts as lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from helpers.common import console
from helpers.common.errors import Interrupted, StepFailed, Unreachable, one_line

KEPT_SECONDS = 600
CONNECT_SECONDS = 20
# A silent line is given up after 3 × 15 seconds: long enough for a Wi-Fi that changes, short enough for a person who waits.
ALIVE_SECONDS, ALIVE_COUNT = 15, 3
# How long sessions that the server refuses (MaxSessions, 10 of its own accord) are tried again.
REFUSED, REFUSED_SECONDS = "Session open refused by peer", 30
LOST = 255  # ssh's own exit code
SCRIPTS = Path(__file__).parent / "on_cluster"
# What a script needs beside common.sh.
SHARED: dict[str, tuple[str, ...]] = {"ask": ("asking",), "watch": ("asking",), "submit": ("queueing",), "resume": ("queueing",)}
SHARED |= {"images": ("registry", "cache"), "imports": ("queueing", "cache"), "clean_images": ("cache",)}
# A master that is gone must not be replaced in silence by a connection of its own: this one can go nowhere.
ONLY_THROUGH_MASTER = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-T", "-o", "RemoteCommand=none")
# What a command on a login node itself gets of our environment: as little as over ssh, so that no secret of ours gets into a job.
LOCAL_ENVIRONMENT = (
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "TMPDIR", "SLURM_CONF", "LD_LIBRARY_PATH", "MODULEPATH", "KRB5CCNAME",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "ENROOT_CONFIG_PATH", "ENROOT_SYSCONF_PATH", "ENROOT_ALLOW_HTTP",
)  # fmt: skip


class ConnectionLost(Unreachable):
    """The line broke while a command was at work: what it did there is not known."""


@dataclass(frozen=True)
class Cluster:
    """How a cluster is reached. `user`, `port` and `identity` None: what ssh itself would use."""

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

    def document(self) -> dict[str, Any]:
        """As submission.json holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Frame:
    """One piece of a script's answer."""

    kind: str
    key: str
    data: bytes

    @property
    def text(self) -> str:
        """The data as text, without the line break at its end."""
        return self.data.decode("utf-8", "replace").rstrip("\n")


# ---- Scripts -------------------------------------------------------------------------------------------------------------------------


def script(name: str, **values: str | int | Sequence[str]) -> str:
    """helpers/cluster/on_cluster/NAME.sh with what it shares with others before it, and these values as bash variables and arrays."""
    return f"{assigned(**values)}{text_of('common', *SHARED.get(name, ()), name)}main; exit\n"


def assigned(**values: str | int | Sequence[str]) -> str:
    """Lines of bash that give variables and arrays these values, each quoted."""
    return "".join(f"{key}={_quoted(value)}\n" for key, value in values.items())


def text_of(*names: str) -> str:
    """The text of these scripts of helpers/cluster/on_cluster, one after another."""
    return "".join((SCRIPTS / f"{name}.sh").read_text(encoding="utf-8") for name in names)


def _quoted(value: str | int | Sequence[str]) -> str:
    if isinstance(value, (str, int)):
        return shlex.quote(str(value))
    return f"({' '.join(shlex.quote(one) for one in value)})"


def run(cluster: Cluster, text: str, timeout: float = 90, interactive: bool = True) -> list[Frame]:
    """What a script (see `script`) answers on the cluster. `timeout` in seconds.

    A line that breaks is mended once and the script given again: every script here can be. `interactive`: a new connection may ask the
    person for a password or a second factor. Raises Unreachable, with the mend, and StepFailed for an answer that makes no sense.
    """
    began, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        try:
            return _run_once(cluster, text, timeout, interactive)
        except _Refused as error:
            if time.monotonic() - began > REFUSED_SECONDS:
                raise Unreachable(
                    f"{cluster} refuses another session on the connection (sshd's MaxSessions); wait until other commands of yours ended"
                ) from error
            attempt -= 1
            time.sleep(0.5)
        except ConnectionLost:
            if attempt > 1:
                raise


class _Refused(Exception):
    """The server opens no more sessions on this connection."""


def _run_once(cluster: Cluster, text: str, timeout: float, interactive: bool) -> list[Frame]:
    import sh

    token = secrets.token_hex(8)
    argv = command(cluster, interactive)
    try:
        running = sh.Command(argv[0])(
            *argv[1:],
            _in=f"TOKEN={token}\n{text}",
            _env=environment(cluster),
            _timeout=timeout,
            _ok_code=list(range(-64, 256)),
            _tty_out=False,
            _return_cmd=True,
            _decode_errors="replace",
            _bg=True,
            _bg_exc=False,
        )
        try:
            done = running.wait()
        except (KeyboardInterrupt, Interrupted):
            # ssh may not have heard of it, and sh would wait for its end when we end.
            with contextlib.suppress(OSError):
                running.process.kill()
            raise
    except sh.TimeoutException:
        raise Unreachable(
            f"{cluster} did not answer within {timeout:.0f} s; its login node may be overloaded, or the network gone: try again"
        ) from None
    except sh.CommandNotFound:
        raise Unreachable(f"there is no {argv[0]} command on this machine; install OpenSSH's client") from None
    return answer(cluster, done.stdout, done.stderr.decode("utf-8", "replace"), int(done.exit_code), token)


def answer(cluster: Cluster, stdout: bytes, stderr: str, code: int, token: str) -> list[Frame]:
    """The frames of an answer. Raises ConnectionLost for one that breaks off, Unreachable for a cluster without Slurm, StepFailed else."""
    if REFUSED in stderr:
        raise _Refused
    _, mark, rest = stdout.partition(f"@@{token}\n".encode())
    (frames, _), whole = split_frames(rest), False
    if mark and frames and frames[-1].kind == "end":
        frames.pop()
        whole = True
    for frame in frames:
        if frame.kind == "no-slurm":
            refuse_no_slurm(cluster, frame)
    if whole:
        return frames
    if code == LOST or code < 0 or (mark and not code):
        raise ConnectionLost(f"the connection to {cluster} was lost ({last_line(stderr) or 'it closed'}); give the same command again")
    raise StepFailed(f"bash on {cluster} ended with code {code}: {last_line(stderr) or 'it says nothing'}")


def refuse_no_slurm(cluster: Cluster, frame: Frame) -> NoReturn:
    """Raise Unreachable for a login node on which Slurm's commands are not found."""
    raise Unreachable(
        f"{cluster}: Slurm's commands are not on the PATH of a command over ssh ({frame.text}); put them on it in your ~/.bashrc there "
        "(before the line that ends it for shells that are not interactive), or ask the cluster's administrators"
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


def last_line(text: str) -> str:
    """The last telling line of what ssh printed: not the server's greeting."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"ssh|mux|Connection|connection|closed|denied|bash|rsync|Control|kex_", line)]
    return one_line((telling or lines or [""])[-1])[:300]


# ---- The connection ------------------------------------------------------------------------------------------------------------------


def command(cluster: Cluster, interactive: bool = True) -> list[str]:
    """The argument vector that runs `bash -s` on the cluster, with its connection open. Raises Unreachable."""
    if cluster.tunnel == "local":
        return ["bash", "-s"]
    open_connection(cluster, interactive)
    return ["ssh", *through_master(cluster), "--", cluster.host, "exec bash -s"]


def environment(cluster: Cluster) -> dict[str, str] | None:
    """The environment of such a command; None: this process's own, which ssh needs and does not hand on."""
    return {name: os.environ[name] for name in LOCAL_ENVIRONMENT if name in os.environ} if cluster.tunnel == "local" else None


def through_master(cluster: Cluster) -> list[str]:
    """The options with which an ssh command uses the master connection, and nothing else."""
    return ["-S", str(socket_path(cluster)), *ONLY_THROUGH_MASTER]


def rsync_shell(cluster: Cluster) -> str:
    """The value of RSYNC_RSH with which rsync uses the master connection. The socket's path holds no space."""
    return shlex.join(["ssh", *through_master(cluster)])


@cache
def socket_path(cluster: Cluster) -> Path:
    """The master's socket: in a private folder (0700) of this user, with a short path, since a socket's must stay under 104 characters.

    Named after all that says where a connection goes; which ssh is called belongs to it. Raises Unreachable for a folder that is another's.
    """
    folder = Path("/tmp") / f"evalmake-{os.getuid()}"  # noqa: S108  not TMPDIR, which may be long
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Unreachable(f"cannot make {folder} for the connection's socket: {error.strerror}") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise Unreachable(f"{folder} is not yours alone: remove it, or have it removed; the connection's socket belongs there")
    parts = [cluster.host, cluster.user, cluster.port, cluster.identity, shutil.which("ssh")]
    return folder / hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def is_open(cluster: Cluster) -> bool:
    """Whether the master connection is there: its socket takes a connection. Some microseconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(socket_path(cluster)))
        except OSError:
            return False
    return True


def open_command(cluster: Cluster) -> list[str]:
    """The command that opens the master connection; a person can give it too."""
    own = ["-l", cluster.user] if cluster.user else []
    own += ["-p", str(cluster.port)] if cluster.port else []
    own += ["-i", cluster.identity] if cluster.identity else []
    options = [
        f"ControlPersist={KEPT_SECONDS}",
        "ControlMaster=yes",
        "RemoteCommand=none",
        "ClearAllForwardings=yes",
        f"ConnectTimeout={CONNECT_SECONDS}",
        "Compression=yes",
    ]
    options += [f"ServerAliveInterval={ALIVE_SECONDS}", f"ServerAliveCountMax={ALIVE_COUNT}"]
    return ["ssh", "-fN", "-S", str(socket_path(cluster)), *(word for one in options for word in ("-o", one)), *own, "--", cluster.host]


def open_connection(cluster: Cluster, interactive: bool = True) -> None:
    """Open the master connection unless it is there; two at once open one. Raises Unreachable with the mend."""
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
        # A file, not a pipe: the master that goes to the background would hold the pipe open.
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
    """Whether ssh can ask a person: it does so on the controlling terminal, whatever stdin is."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


# What ssh says, and the mend. The first that fits counts; {host}, {cluster}, {said} (ssh's line) and {command} are filled in.
MENDS = [
    (r"Could not resolve hostname", "{host} is no name that this machine can resolve; check host in env.toml, ~/.ssh/config, or the VPN"),
    (r"Connection refused", "{host} refuses the connection: nothing listens there; check host and port, or the cluster is down"),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "the host key of {host} has changed: ask the cluster's administrators if that is right, then `ssh-keygen -R {host}` and try again",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "the host key of {host} is not known yet: `ssh {host}` once and accept it, then try again",
    ),
    (r"Identity file .* not accessible|Load key .*: (No such file|error|invalid)", "{said}: check identity in env.toml"),
    (r"Too many authentication failures", "{cluster} was offered too many keys: name the right one with identity in env.toml"),
    (
        r"Permission denied \([^)]*(keyboard-interactive|password)",
        (
            "{cluster} asks for a password or a second factor, and there is no terminal to ask on; give this in a terminal, then try again "
            f"(it stays open {KEPT_SECONDS // 60} minutes after its last use): {{command}}"
        ),
    ),
    (
        r"Permission denied",
        "permission denied for {cluster}: check user and identity in env.toml, and that your key is loaded (`ssh-add -l`, `ssh {cluster}`)",
    ),
    (
        r"timed out|No route to host|Network is unreachable",
        "{host} does not answer ({said}); check the network or the VPN, then try again",
    ),
    (r"Bad configuration option|bad configuration options|Bad owner or permissions", "ssh cannot read its configuration: {said}"),
    (r"too long", "ssh cannot use its socket: {said}"),
]


def why_not(cluster: Cluster, said: str, asked: bool = False) -> str:
    """One line out of what ssh printed when it could not connect: what is wrong, and the mend. `asked`: ssh could ask a person."""
    line = last_line(said) or "ssh says nothing"
    for pattern, mend in MENDS:
        if found := re.search(pattern, said):
            if "{command}" in mend and asked:
                continue
            near = next((one for one in said.splitlines() if found[0] in one), line)
            return mend.format(host=cluster.host, cluster=cluster, said=one_line(near)[:300], command=shlex.join(open_command(cluster)))
    return f"the connection to {cluster} failed: {line}; try again, or see what `ssh {cluster}` says"


# ---- Files ---------------------------------------------------------------------------------------------------------------------------


def upload(cluster: Cluster, sources: Sequence[Path], target: str, timeout: float = 600) -> None:
    """Copy folders into the folder `target` on the cluster, which is there; modes are kept. Given again, it goes on.

    Raises Unreachable when the line breaks twice, StepFailed when the cluster cannot take it (its disk is full).
    """
    _rsync(cluster, [*map(str, sources), _there(cluster, target)], timeout, ["--archive"])


def download(
    cluster: Cluster, folders: Sequence[str], target: Path, leave_out: Sequence[str], timeout: float = 600, interactive: bool = True
) -> None:
    """Copy what the folders on the cluster hold into folders of the same names below `target`, without what `leave_out` names.

    Files that are the same are not copied. A file that is being copied has another name, so none is ever half there. Raises as `upload`.
    """
    options = ["--recursive", "--times", "--links", *(f"--exclude={one}" for one in leave_out)]
    first, *others = folders
    # rsync takes several sources of one host as host:one :two; over one connection.
    sources = [_there(cluster, first), *((f":{one}" if cluster.tunnel == "ssh" else one) for one in others)]
    _rsync(cluster, [*sources, f"{target}/"], timeout, options, interactive)


def _there(cluster: Cluster, path: str) -> str:
    host = f"[{cluster.host}]" if ":" in cluster.host else cluster.host
    return f"{host}:{path}" if cluster.tunnel == "ssh" else path


# rsync's exit codes (its man page): 10 and 12 the connection, 30 and 35 a time-out, 255 ssh's own.
RSYNC_LOST = (10, 12, 30, 35, LOST)


def _rsync(cluster: Cluster, words: list[str], timeout: float, options: list[str], interactive: bool = True) -> None:
    import sh

    began, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        open_connection(cluster, interactive)
        try:
            done = sh.Command("rsync")(
                "--protect-args",
                "--timeout=60",
                *options,
                "--",
                *words,
                _env={**os.environ, "RSYNC_RSH": rsync_shell(cluster)} if cluster.tunnel == "ssh" else None,
                _timeout=timeout,
                _ok_code=list(range(-64, 256)),
                _tty_out=False,
                _return_cmd=True,
            )
        except sh.CommandNotFound:
            raise StepFailed("there is no rsync command on this machine; install rsync") from None
        except sh.TimeoutException:
            raise Unreachable(f"copying to or from {cluster} took longer than {timeout:.0f} s; give the same command again") from None
        said, code = done.stderr.decode("utf-8", "replace"), int(done.exit_code)
        if not code:
            return
        if REFUSED in said and time.monotonic() - began < REFUSED_SECONDS:
            attempt -= 1
            time.sleep(0.5)
            continue
        if "command not found" in said or "rsync: not found" in said:
            raise StepFailed(f"there is no rsync command on {cluster}; have it installed there")
        if re.search(r"is your shell clean|protocol incompatibility", said):
            raise StepFailed(
                f"rsync with {cluster} fails because a shell there prints something in sessions that are not interactive; "
                "in your ~/.bashrc there, put such lines behind `[[ $- == *i* ]] || return`"
            )
        if told := re.search(r"No space left on device|Disk quota exceeded|Permission denied \(13\)|Read-only file system", said):
            near = next(line for line in said.splitlines() if told[0] in line)
            raise StepFailed(f"{cluster}: {one_line(near)[:300]}; mend that, then give the same command")
        if code not in RSYNC_LOST and code >= 0:
            # Its very last line says no more than "see previous errors".
            before = "\n".join(line for line in said.splitlines() if not line.startswith("rsync error:"))
            raise StepFailed(f"rsync with {cluster} failed with code {code}: {last_line(before or said)}")
        if attempt > 1:
            raise ConnectionLost(f"the connection to {cluster} was lost while copying ({last_line(said)}); give the same command again")
        console.info(f"the connection to {cluster} was lost while copying: once more")
