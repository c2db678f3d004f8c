"""requirements/*.lock are complete and fit each other, and scripts/lock.sh makes such locks, with the real uv and a small index."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "lock.sh"
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.lock"))
ENTRY = re.compile(r"^([\w.-]+)==(\S+)( ; .+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)

each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)


def run(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run lock.sh on the .in files in `folder`."""
    full = os.environ | {"LOCK_DIR": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | (env or {})
    return subprocess.run(["/bin/bash", str(SCRIPT), *arguments], env=full, capture_output=True, text=True, timeout=120, check=False)


def versions(lock: Path) -> dict[tuple[str, str], str]:
    """What a lock pins: (package, marker) to version."""
    return {(match[1], match[3] or ""): match[2] for match in ENTRY.finditer(lock.read_text())}


def test_every_list_has_its_lock_and_no_lock_is_stale() -> None:
    assert {path.stem for path in LOCKS} == {path.stem for path in REQUIREMENTS.glob("*.in")}
    done = run(REQUIREMENTS, "--check")
    assert done.returncode == 0, done.stderr


@each_lock
def test_every_package_is_pinned_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    rest = "\n".join(line for line in ENTRY.sub("", text).splitlines() if not re.match(r" *#", line))
    assert rest == ""
    assert versions(lock)


@each_lock
def test_no_lock_names_a_host_or_a_path(lock: Path) -> None:
    assert not re.search(r"://|^-|@|(?<![\w.])/\w|\.txt", lock.read_text(), re.MULTILINE)
    assert lock.read_text().startswith("# Made by scripts/lock.sh from ")


def test_no_two_locks_pin_different_versions_of_a_package() -> None:
    pinned: dict[tuple[str, str], dict[str, str]] = {}
    for lock in LOCKS:
        for key, version in versions(lock).items():
            pinned.setdefault(key, {})[lock.name] = version
    assert {key: found for key, found in pinned.items() if len(set(found.values())) > 1} == {}


def test_build_tools_are_locked_before_the_packages_that_are_built() -> None:
    assert {name for name, _ in versions(REQUIREMENTS / "build.lock")} >= {"setuptools", "wheel"}


class Index:
    """A package index on loopback, with a folder of wheels to publish."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{port}/simple"

    def publish(self, name: str, version: str, *requires: str) -> None:
        """Add a wheel, its dependencies in `requires`."""
        info = f"{name}-{version}.dist-info"
        path = self.folder / "simple" / name / f"{name}-{version}-py3-none-any.whl"
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {text}\n" for text in requires)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        links = [
            f'<a href="{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">{file.name}</a>'
            for file in path.parent.glob("*.whl")
        ]
        (path.parent / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The standard file server, without its log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with a, which needs b<2; b in 1.0 and 2.0; and d."""
    folder = tmp_path / "index"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index = Index(folder, server.server_address[1])
        for name, version, *requires in (("tiny-a", "1.0", "tiny-b<2"), ("tiny-b", "1.0"), ("tiny-b", "2.0"), ("tiny-d", "1.0", "tiny-a")):
            index.publish(name.replace("-", "_"), version, *requires)
        for path in (folder / "simple").iterdir():
            path.rename(path.with_name(path.name.replace("_", "-")))
        yield index
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sets: one needs tiny-a, the other tiny-b, and the weights carry a dependency that must not come along."""
    path = tmp_path / "requirements"
    path.mkdir()
    (path / "one.in").write_text("tiny-a\n")
    (path / "two.in").write_text("tiny-b   # alone it would be 2.0\n")
    (path / "weights.in").write_text("tiny-d\n")
    return path


def uv(index: Index, tmp_path: Path) -> dict[str, str]:
    """Variables that send uv to the small index, with a cache of its own."""
    return {"UV_INDEX_URL": index.url, "UV_DEFAULT_INDEX": index.url, "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(tmp_path / "cache")}


@pytest.mark.slow
def test_sets_are_resolved_together_and_each_lock_holds_only_its_own(index: Index, folder: Path, tmp_path: Path) -> None:
    done = run(folder, env=uv(index, tmp_path))
    assert done.returncode == 0, done.stderr
    found = {path.stem: {name: version for (name, _), version in versions(path).items()} for path in folder.glob("*.lock")}
    assert found == {"one": {"tiny-a": "1.0", "tiny-b": "1.0"}, "two": {"tiny-b": "1.0"}, "weights": {"tiny-d": "1.0"}}
    for path in folder.glob("*.lock"):
        test_no_lock_names_a_host_or_a_path(path)
        test_every_package_is_pinned_with_hashes(path)
    assert "# via tiny-a\n" in (folder / "one.lock").read_text()
    assert run(folder, "--check").returncode == 0
    assert [path.name for path in folder.iterdir() if path.suffix not in (".in", ".lock")] == []


@pytest.mark.slow
def test_versions_stay_until_an_upgrade_is_asked_for(index: Index, folder: Path, tmp_path: Path) -> None:
    env = uv(index, tmp_path)
    assert run(folder, env=env).returncode == 0
    (index.folder / "simple" / "tiny-d").rename(tmp_path / "away")
    (folder / "weights.in").unlink()
    (index.folder / "simple" / "tiny-a").rename(index.folder / "simple" / "tiny_a")
    index.publish("tiny_a", "1.1", "tiny-b<2")
    (index.folder / "simple" / "tiny_a").rename(index.folder / "simple" / "tiny-a")
    shutil.rmtree(tmp_path / "cache")  # uv would remember the index for some minutes
    assert run(folder, env=env).returncode == 0
    assert versions(folder / "one.lock")["tiny-a", ""] == "1.0"
    done = run(folder, "--upgrade", env=env)
    assert done.returncode == 0, done.stderr
    assert versions(folder / "one.lock")["tiny-a", ""] == "1.1"


@pytest.mark.slow
def test_a_conflict_is_shown_and_changes_no_lock(index: Index, folder: Path, tmp_path: Path) -> None:
    env = uv(index, tmp_path)
    assert run(folder, env=env).returncode == 0
    before = {path.name: path.read_text() for path in folder.glob("*.lock")}
    (folder / "two.in").write_text("tiny-b==2.0\n")
    done = run(folder, env=env)
    assert done.returncode == 1
    assert "tiny-b" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: uv found no versions")
    assert {path.name: path.read_text() for path in folder.glob("*.lock")} == before
    assert list(folder.glob(".lock.*")) == []


@pytest.mark.slow
def test_an_index_that_does_not_answer_is_exit_code_3(folder: Path, tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        closed = Index(tmp_path, server.server_address[1])
    done = run(folder, env=uv(closed, tmp_path) | {"UV_HTTP_RETRIES": "0"})
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the package index did not answer")


@pytest.mark.slow
def test_an_address_in_a_list_is_refused(index: Index, folder: Path, tmp_path: Path) -> None:
    (folder / "two.in").write_text(f"tiny-b @ {index.url}/tiny-b/tiny_b-1.0-py3-none-any.whl\n")
    done = run(folder, env=uv(index, tmp_path))
    assert done.returncode == 1
    assert "names an address or a path" in done.stderr


def test_check_names_the_stale_and_the_missing_and_needs_no_uv(tmp_path: Path) -> None:
    copy = tmp_path / "requirements"
    shutil.copytree(REQUIREMENTS, copy)
    (copy / "dev.in").write_text("pytest\n")
    (copy / "local.lock").unlink()
    done = run(copy, "--check", env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert "dev.in changed since dev.lock was made" in done.stderr
    assert "local.lock is missing" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: locks are stale; run: make lock"
    assert "pipeline" not in done.stderr


def test_without_uv_the_fix_is_named(folder: Path, tmp_path: Path) -> None:
    # The script stands alone here, so that it finds no .venv with a uv either.
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "scripts")
    env = os.environ | {"PATH": "/usr/bin:/bin", "LOCK_DIR": str(folder)}
    done = subprocess.run(["/bin/bash", script], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "python3 -m pip install uv" in done.stderr


@pytest.mark.parametrize("arguments", [["--nope"], ["--check", "--upgrade"]])
def test_wrong_usage_is_reported(folder: Path, arguments: list[str]) -> None:
    assert run(folder, *arguments).returncode == 2


def test_help_shows_the_commands() -> None:
    done = run(REQUIREMENTS, "--help")
    assert done.returncode == 0
    assert "scripts/lock.sh --check" in done.stdout
