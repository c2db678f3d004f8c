"""helpers/steps/clean_images.py: what may go from a cache and what must stay, listed and removed by the real script in a real bash."""

from __future__ import annotations

import json
import os
import pty
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster.connection import Cluster
from helpers.common import files, step
from helpers.common.errors import BadInput, StepFailed
from helpers.images import cache
from helpers.steps import clean_images
from helpers.steps.clean_images import Removable
from slurm_double import SlurmDouble

HERE = Cluster("here", tunnel="local")
ME = pwd.getpwuid(os.getuid()).pw_name

DAYS = 86400
RUN = "20261122T013512Z-local-7f3a"


@pytest.fixture
def job_dir(slurm: SlurmDouble, tmp_path: Path) -> Path:
    folder = tmp_path / "jobs of 'mine'"
    (folder / "containers").mkdir(parents=True)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def keep(folder: Path, stem: str, sidecar: bool = True, days: float = 3, **more: Any) -> Path:
    """An image in the cache; its .sqsh file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{stem}.sqsh"
    path.write_bytes(b"x" * 2000)
    os.utime(path, (time.time() - days * DAYS,) * 2)
    if sidecar:
        fields = {
            "canonical": f"h/{stem[:-13]}", "key": stem[-12:], "platform": "linux/amd64", "bytes": 2000, "import": "aa11",
            "at": "2026-11-02T00:00:00Z", **more,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(fields, indent=2))
    return path


def use(runs: Path, *paths: Path, name: str = RUN, ended: bool = False) -> Path:
    """A run that uses these images."""
    run = runs / name
    run.mkdir()
    row = {"users": ["task one"], "digest": None, "platform": None, "state": "hit", "why": "", "seconds": 0, "job": None}
    rows = [{"reference": f"r:{number}", "path": str(path), **row} for number, path in enumerate(paths)]
    rows.append({"reference": "left:1", "path": None, **row, "state": "left"})
    document = {"made_by": "squash_image.py", "made_from": {}, "cluster": None, "folder": None, "images": rows}
    files.write_json(run / "images.json", document, "images")
    if ended:
        (run / "results.json").write_text("{}")
    return run


def listed(job_dir: Path, runs: Path) -> dict[str, Removable]:
    """What could go, by the file's name."""
    frames = cache.listing(HERE, str(job_dir))
    return {Path(one.path).name: one for one in clean_images.removable(frames, *clean_images.used_here(runs))}


# ---- What may go -------------------------------------------------------------------------------------------------------------------------


def test_what_no_run_here_uses_may_go_with_its_size_and_age(job_dir: Path, runs: Path) -> None:
    path = keep(job_dir / "containers", "nemo-25.11-0123456789ab")
    (job_dir / f"containers-{ME}").mkdir()
    mine = keep(job_dir / f"containers-{ME}", "mine-1-0123456789ac")
    found = listed(job_dir, runs)
    assert set(found) == {path.name, mine.name}
    assert (found[path.name].path, found[path.name].bytes, found[path.name].why) == (str(path), 2000, "no run here uses it")
    assert found[path.name].age == pytest.approx(3 * DAYS, abs=60)


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_run_uses_stays(job_dir: Path, runs: Path, ended: bool) -> None:
    use(runs, keep(job_dir / "containers", "nemo-25.11-0123456789ab"), ended=ended)
    assert listed(job_dir, runs) == {}


@pytest.mark.parametrize(("ended", "goes"), [(False, False), (True, True)])
def test_what_a_tag_meant_before_it_moved_may_go_once_no_run_is_at_it(job_dir: Path, runs: Path, ended: bool, goes: bool) -> None:
    old = keep(job_dir / "containers", "nemo-1-0123456789ab", canonical="h/nemo:1", at="2026-11-01T00:00:00Z")
    new = keep(job_dir / "containers", "nemo-1-ba9876543210", canonical="h/nemo:1", at="2026-11-02T00:00:00Z")
    keep(job_dir / "containers", "nemo-1-aaaaaaaaaaaa", canonical="h/nemo:1", platform="linux/arm64", at="2026-11-01T00:00:00Z")
    use(runs, old, new, job_dir / "containers/nemo-1-aaaaaaaaaaaa.sqsh", ended=ended)
    found = listed(job_dir, runs)
    assert set(found) == ({old.name} if goes else set())
    assert not goes or found[old.name].why == "h/nemo:1 is a newer image now"


@pytest.mark.parametrize(("ended", "goes"), [(False, False), (True, True)])
def test_what_a_forced_import_replaced_may_go_once_no_run_is_at_it(job_dir: Path, runs: Path, ended: bool, goes: bool) -> None:
    path = keep(job_dir / "containers", "nemo-1-0123456789ab")
    replaced = path.with_name("nemo-1-0123456789ab.replaced-20261101T000000Z.sqsh")
    replaced.write_bytes(b"x")
    use(runs, path, ended=ended)
    found = listed(job_dir, runs)
    assert set(found) == ({replaced.name} if goes else set())
    assert not goes or found[replaced.name].why == "replaced by a forced import"


def test_what_has_no_sidecar_that_fits_may_go_and_somebody_s_own_file_stays(job_dir: Path, runs: Path) -> None:
    folder = job_dir / "containers"
    torn, wrong = keep(folder, "torn-1-0123456789ab", sidecar=False), keep(folder, "wrong-1-0123456789ac", bytes=1)
    for name in ("own", "own-0123456789", "own-0123456789AB", "nemo-25.11"):
        keep(folder, name, sidecar=False)
    (folder / "notes.txt").write_text("mine")
    found = listed(job_dir, runs)
    assert {name: one.why for name, one in found.items()} == dict.fromkeys((torn.name, wrong.name), "no sidecar that fits it")


def test_what_is_being_imported_stays(job_dir: Path, runs: Path) -> None:
    folder = job_dir / "containers"
    path = keep(folder, "nemo-1-0123456789ab")
    path.with_name("nemo-1-0123456789ab.replaced-20261101T000000Z.sqsh").write_bytes(b"x")
    half = keep(folder, "half-1-0123456789ac", sidecar=False)
    for key in ("0123456789ab", "0123456789ac"):
        (folder / f".{key}.lock/beef00").mkdir(parents=True)
    (folder / f".layers-{ME}").mkdir()
    assert listed(job_dir, runs) == {}
    for holder in folder.glob(".*.lock/*"):
        holder.rmdir()  # an empty lock is nobody's
    assert half.name in listed(job_dir, runs)


def test_layers_and_what_failed_may_go_when_nobody_wants_them(job_dir: Path, runs: Path) -> None:
    folder = job_dir / "containers"
    for name in (f".layers-{ME}", ".failed.aa", ".done.bb"):
        (folder / name).mkdir()
        (folder / name / "x").write_bytes(b"x" * 10_000)
    assert set(listed(job_dir, runs)) == {f".layers-{ME}"}, "a log of today may still be read"
    for name in (".failed.aa", ".done.bb"):
        os.utime(folder / name, (time.time() - 2 * DAYS,) * 2)
    found = listed(job_dir, runs)
    assert {name: one.why for name, one in found.items()} == {
        f".layers-{ME}": "layers that enroot keeps for the next import",
        ".failed.aa": "left by a failed import",
        ".done.bb": "left by a failed import",
    }
    assert found[".failed.aa"].bytes >= 10_000
    (folder / ".0123456789ab.lock/beef00").mkdir(parents=True)
    assert f".layers-{ME}" not in listed(job_dir, runs)


def test_what_others_left_is_not_listed(job_dir: Path, runs: Path) -> None:
    left = job_dir / "containers/.failed.aa"
    if os.geteuid():  # only root can give files away: another's folder then
        left.symlink_to("/usr")
    else:
        left.mkdir()
        os.chown(left, 65534, 65534)
        os.utime(left, (time.time() - 9 * DAYS,) * 2)
    assert listed(job_dir, runs) == {}


# ---- What runs use -----------------------------------------------------------------------------------------------------------------------


def test_every_run_here_counts(tmp_path: Path, runs: Path) -> None:
    a, b = tmp_path / "a.sqsh", tmp_path / "b.sqsh"
    use(runs, a, ended=True)
    use(runs, b, name="20261122T013513Z-local-7f3b")
    (runs / "20261122T013514Z-local-7f3c").mkdir()
    assert clean_images.used_here(runs) == ({str(a), str(b)}, {str(b)})
    assert clean_images.used_here(tmp_path / "none") == (set(), set())


def test_while_a_run_imports_its_images_nothing_is_removed(tmp_path: Path) -> None:
    """Which they are is recorded when all are there."""
    run = tmp_path / "20261124T100000Z-x-0001"
    run.mkdir()
    with step.recorded(run, "squash_image"), pytest.raises(StepFailed, match=f"RUN={run.name} may still be importing images"):
        clean_images.used_here(tmp_path)
    assert clean_images.used_here(tmp_path) == (set(), set())


def test_what_events_say_decides_nothing(tmp_path: Path) -> None:
    """A step that was killed has no end there, a torn line is no line, and none of it forbids anything."""
    run = tmp_path / "20261124T100000Z-x-0001"
    run.mkdir()
    (run / "events.jsonl").write_text(f'{{"step": "squash_image", "event": "start", "pid": {os.getpid()}}}\n{{"st')
    assert clean_images.used_here(tmp_path) == (set(), set())


def test_a_run_that_has_its_images_forbids_nothing_while_a_step_is_at_work(tmp_path: Path, runs: Path) -> None:
    """Waiting for the results takes hours."""
    run = use(runs, tmp_path / "a.sqsh")
    with step.recorded(run, "follow"):
        assert clean_images.used_here(runs) == ({str(tmp_path / "a.sqsh")}, {str(tmp_path / "a.sqsh")})


def test_a_run_whose_images_cannot_be_read_forbids_it_all(tmp_path: Path, runs: Path) -> None:
    run = use(runs, tmp_path / "a.sqsh")
    (run / "images.json").write_text((run / "images.json").read_text().replace("a.sqsh", "b.sqsh"))
    with pytest.raises(StepFailed, match=r"cannot tell which images a run uses: .*edited.*; nothing was removed"):
        clean_images.used_here(runs)


# ---- The command -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def profile(job_dir: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The profile CLUSTER, whose login node this machine is, and no run that uses anything."""
    cluster = f'executor = "slurm"\ntunnel = "local"\nremote_job_dir = {json.dumps(f"{job_dir}/")}\n'
    (tmp_path / "env.toml").write_text(f'[CLUSTER]\n{cluster}[BARE]\nexecutor = "slurm"\nhost = "h"\n')
    monkeypatch.setenv("EVALMAKE_ENV_FILE", str(tmp_path / "env.toml"))
    monkeypatch.setattr(clean_images.used_here, "__defaults__", (runs,))
    return tmp_path / "env.toml"


@pytest.mark.slow
def test_with_yes_what_is_listed_goes_sidecars_first_and_nothing_else(
    profile: Path, job_dir: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job_dir / "containers"
    used, gone, own = keep(folder, "used-1-0123456789ab"), keep(folder, "gone-1-0123456789ac"), keep(folder, "own", sidecar=False)
    use(runs, used)
    asked: list[str] = []
    real = cache.remove
    monkeypatch.setattr(cache, "remove", lambda cluster, folder, paths: (asked.extend(paths), real(cluster, folder, paths))[1])
    clean_images.clean("CLUSTER", yes=True)
    assert asked == [str(gone.with_suffix(".json")), str(gone)]
    assert sorted(folder.iterdir()) == [own, used.with_suffix(".json"), used]
    said = capsys.readouterr()
    assert str(gone) in said.out.replace("\n", "") or gone.name in said.out
    assert "runs of other people and of other checkouts are not known here" in said.err
    assert "removed 1 file, 2 kB" in said.err
    clean_images.clean("CLUSTER", yes=True)
    assert f"nothing to remove from {job_dir}/containers on this login node" in capsys.readouterr().err


def test_without_a_terminal_it_is_refused_and_nothing_goes(profile: Path, job_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(job_dir / "containers", "gone-1-0123456789ac")
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        with pytest.raises(BadInput, match="there is no terminal to ask on; YES=1 removes without asking"):
            clean_images.clean("CLUSTER", yes=False)
    assert path.exists()
    assert path.with_suffix(".json").exists()


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("YES", True), ("", False), ("n", False), ("yesterday", False), ("\x04", False)])
def test_a_person_is_asked(
    profile: Path, job_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, goes: bool
) -> None:
    path = keep(job_dir / "containers", "gone-1-0123456789ac")
    terminal, person = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        with os.fdopen(person, "r") as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            clean_images.clean("CLUSTER", yes=False)
    finally:
        os.close(terminal)
    assert path.exists() is not goes
    said = capsys.readouterr().err
    assert "Remove 1 file, 2 kB? [y/N]" in said
    assert ("nothing was removed" in said) is not goes


def test_what_cannot_be_removed_is_reported(profile: Path, job_dir: Path, monkeypatch: pytest.MonkeyPatch, slurm: SlurmDouble) -> None:
    """Root may remove everything, so that rm is one that fails."""
    keep(job_dir / "containers", "gone-1-0123456789ac")
    (slurm.bin / "rm").write_text("#!/bin/bash\necho \"rm: cannot remove '$3': Operation not permitted\" >&2\nexit 1\n")
    (slurm.bin / "rm").chmod(0o755)
    with pytest.raises(StepFailed, match=r"2 files could not be removed: .*Operation not permitted.*; ask the owner to remove them"):
        clean_images.clean("CLUSTER", yes=True)


def test_names_outside_of_the_cache_or_of_no_image_are_not_removed(job_dir: Path, tmp_path: Path) -> None:
    own = job_dir / "containers/notes.txt"
    outside = tmp_path / "x.sqsh"
    deeper = job_dir / "containers/sub/x.sqsh"
    lock = job_dir / "containers/.0123456789ab.lock"
    deeper.parent.mkdir()
    lock.mkdir()
    for path in (own, outside, deeper):
        path.write_text("x")
    names = [str(path) for path in (own, outside, deeper, lock, job_dir / "containers/../../x.sqsh")]
    assert cache.remove(HERE, str(job_dir), names) == []
    assert all(path.exists() for path in (own, outside, deeper, lock))


@pytest.mark.parametrize(
    ("name", "said"), [("BARE", "has no remote_job_dir, so it has no image cache"), (None, "PROFILE is missing"), ("X", "X")]
)
def test_a_profile_without_a_cache_is_refused(profile: Path, name: str | None, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        clean_images.clean(name, yes=True)
