"""helpers/images/cache.py: what a cache folder has of the images of a run, asked by the real inspect.sh in a real bash."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers.common.errors import StepFailed, Unreachable
from helpers.images import cache, squashing
from helpers.images import references as images
from image_cache import HERE, HOST, MODEL, ask, ask_all, config_for, keep
from registry_double import INDEX, RegistryDouble, digest_of, index_of
from slurm_double import SlurmDouble

pytestmark = pytest.mark.slow

AMD, ARM = digest_of(b"linux/amd64"), digest_of(b"linux/arm64")


# ---- Platforms ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "digest"), [("x86_64", AMD), ("aarch64", ARM)])
def test_of_an_index_the_nodes_platform_counts(
    registry: RegistryDouble, job_dir: Path, slurm: SlurmDouble, machine: str, digest: str
) -> None:
    slurm.nodes_are(machine)
    index = registry.put("team/model", "1", index_of("linux/amd64", "linux/arm64", "unknown/unknown", "unknown/unknown"), INDEX)
    store, (one,) = ask_all(job_dir, MODEL)
    assert store.platform == images.platform_of(machine)
    assert (one.digest, one.index, one.trouble, one.fatal) == (digest, index, "", "")


@pytest.mark.parametrize(
    ("platforms", "has"), [(("linux/arm64", "unknown/unknown"), "linux/arm64"), (("windows/amd64",), "windows/amd64"), ((), "nothing")]
)
def test_an_image_without_the_nodes_platform_is_refused_by_name_before_anything_is_queued(
    registry: RegistryDouble, job_dir: Path, slurm: SlurmDouble, platforms: tuple[str, ...], has: str
) -> None:
    registry.put("team/model", "1", index_of(*platforms), INDEX)
    with pytest.raises(StepFailed, match=f"{MODEL} has {has}, but the nodes are linux/amd64: choose another image or tag"):
        squashing.squash(HERE, config_for(job_dir), [images.parse(MODEL)], False, 4)
    assert slurm.calls("sbatch") == []


def test_an_index_that_is_none_is_reported(registry: RegistryDouble, job_dir: Path) -> None:
    registry.put("team/model", "1", b'{"manifests": 3}', INDEX)
    assert "with an invalid image index" in ask(job_dir).trouble


# ---- What is there -----------------------------------------------------------------------------------------------------------------------


def test_a_digest_that_is_there_is_a_hit_under_any_tag(registry: RegistryDouble, job_dir: Path) -> None:
    digest = registry.put("team/model", "1")
    registry.manifests["team/model", "other"] = registry.manifests["team/model", "1"]
    path = keep(job_dir / "containers", MODEL, digest=digest, index=digest)
    hits = [one.hit for one in ask_all(job_dir, MODEL, f"{HOST}/team/model:other")[1]]
    assert [hit.path for hit in hits if hit] == [str(path)] * 2


def test_an_index_that_a_sidecar_knows_is_not_brought_again(registry: RegistryDouble, job_dir: Path) -> None:
    index = registry.put("team/model", "1", index_of("linux/amd64", "linux/arm64"), INDEX)
    keep(job_dir / "containers", MODEL, digest=AMD, index=index)
    one = ask(job_dir)
    assert (one.digest, bool(one.hit)) == (AMD, True)
    assert [call.method for call in registry.calls] == ["HEAD"]


def test_an_index_that_is_known_of_another_platform_is_asked_for(registry: RegistryDouble, job_dir: Path, slurm: SlurmDouble) -> None:
    index = registry.put("team/model", "1", index_of("linux/amd64", "linux/arm64"), INDEX)
    keep(job_dir / "containers", MODEL, digest=AMD, index=index)
    slurm.nodes_are("aarch64")
    one = ask(job_dir)
    assert (one.digest, one.hit) == (ARM, None)


def test_a_pinned_digest_that_is_there_asks_no_registry(registry: RegistryDouble, job_dir: Path) -> None:
    keep(job_dir / "containers", MODEL, digest=AMD)
    assert ask(job_dir, f"{HOST}/team/model@{AMD}").hit
    assert registry.calls == []


def test_a_tag_that_moved_is_no_hit(registry: RegistryDouble, job_dir: Path) -> None:
    registry.put("team/model", "1")
    keep(job_dir / "containers", MODEL, digest=AMD)
    assert ask(job_dir).hit is None


def test_an_index_that_cannot_be_read_is_reported_since_its_tag_may_have_moved(registry: RegistryDouble, job_dir: Path) -> None:
    registry.put("team/model", "1", index_of("linux/amd64"), INDEX)
    registry.rule(fails={"GET": 429})
    path = keep(job_dir / "containers", MODEL, digest=ARM, index=ARM)
    one = ask(job_dir)
    assert one.digest is None
    assert one.hit
    assert one.hit.path == str(path)
    assert "(429, its rate limit)" in one.trouble


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_where_the_digest_is_not_told_the_newest_import_of_the_reference_counts(
    registry: RegistryDouble, job_dir: Path, status: int
) -> None:
    registry.rule(fails={"HEAD": status, "GET": status})
    keep(job_dir / "containers", MODEL, digest=ARM, at="2026-11-01T00:00:00Z")
    newest = keep(job_dir / "containers", MODEL, digest=AMD, at="2026-11-03T00:00:00Z")
    keep(job_dir / "containers", f"{HOST}/team/other:1", at="2026-11-04T00:00:00Z")
    one = ask(job_dir)
    assert one.hit
    assert one.hit.path == str(newest)
    assert one.trouble


@pytest.mark.parametrize("spoiled", ["bytes", "torn", "gone", "foreign", "no digest", "platform"])
def test_what_is_not_whole_or_not_ours_is_no_hit(registry: RegistryDouble, job_dir: Path, spoiled: str) -> None:
    digest = registry.put("team/model", "1")
    path = keep(job_dir / "containers", MODEL, digest=digest, **({"platform": "linux/arm64"} if spoiled == "platform" else {}))
    if spoiled == "bytes":
        path.write_text("hsq")
    elif spoiled == "torn":
        path.with_suffix(".json").write_text(path.with_suffix(".json").read_text()[:40])
    elif spoiled == "gone":
        path.unlink()
    elif spoiled == "foreign":
        path.with_suffix(".json").write_text("[1]")
    elif spoiled == "no digest":
        path.with_suffix(".json").write_text(json.dumps({"digest": digest, "bytes": 5}))
    assert ask(job_dir).hit is None


def test_an_archive_is_known_by_its_size_and_time(registry: RegistryDouble, job_dir: Path) -> None:
    archive = job_dir / "model.tar"
    archive.write_text("tar")
    # A reference holds no spaces; what the script stats is what it is given.
    image = images.Image("docker-archive:x", "docker-archive", name=str(archive))
    first, second = (cache.ask(HERE, str(job_dir), "", [image], True)[1][0] for _ in range(2))
    assert first.stamp == second.stamp
    assert first.key("linux/amd64") == second.key("linux/amd64")
    assert first.fatal == ""
    keep(job_dir / "containers", "x:1", canonical=image.canonical, key=images.short_key(first.key("linux/amd64")))
    assert cache.ask(HERE, str(job_dir), "", [image], True)[1][0].hit
    os.utime(archive, (1, 1))
    changed = cache.ask(HERE, str(job_dir), "", [image], True)[1][0]
    assert changed.key("linux/amd64") != first.key("linux/amd64")
    assert changed.hit is None
    archive.unlink()
    gone = cache.ask(HERE, str(job_dir), "", [image], True)[1][0]
    assert "is not on this login node, or cannot be read there: check the path" in gone.fatal
    assert gone.hit is None


@pytest.mark.parametrize("scheme", ["dockerd", "podman"])
def test_an_image_of_a_daemon_has_no_digest_to_ask(registry: RegistryDouble, job_dir: Path, scheme: str) -> None:
    one = ask(job_dir, f"{scheme}://team/model:1")
    assert f"{scheme}:// names an image of a daemon on the node" in one.trouble
    assert (one.fatal, one.hit, registry.calls) == ("", None, [])
    keep(job_dir / "containers", f"{scheme}://team/model:1")
    assert ask(job_dir, f"{scheme}://team/model:1").hit


# ---- The folder --------------------------------------------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(registry: RegistryDouble, job_dir: Path) -> None:
    registry.put("team/model", "1")
    ask_all(job_dir / "new", MODEL, make=False)
    assert list(job_dir.iterdir()) == []


def test_the_cache_is_for_those_who_may_use_the_folder_above(registry: RegistryDouble, job_dir: Path) -> None:
    job_dir.chmod(0o2775)
    store, _ = ask_all(job_dir, MODEL)
    assert store.folder == str(job_dir / "containers")
    assert oct((job_dir / "containers").stat().st_mode & 0o7777) == "0o2775"
    job_dir.chmod(0o700)
    (job_dir / "containers").rmdir()
    ask_all(job_dir, MODEL)
    assert oct((job_dir / "containers").stat().st_mode & 0o7777) == "0o750"


def test_a_cache_that_cannot_be_written_is_read_and_ours_lies_beside_it(registry: RegistryDouble, job_dir: Path) -> None:
    (job_dir / "containers").write_text("a file")
    store, _ = ask_all(job_dir, MODEL)
    assert Path(store.folder).name.startswith("containers-")
    assert Path(store.folder).is_dir()
    assert "cannot be written" in store.notice


def test_without_any_folder_the_fix_is_reported(registry: RegistryDouble, job_dir: Path) -> None:
    (job_dir / "file").write_text("")
    with pytest.raises(StepFailed, match=r"cannot be written \(.*\): free space, fix its permissions, or choose another remote_job_dir"):
        ask_all(job_dir / "file", MODEL)


def test_a_login_node_without_a_temporary_folder_is_unreachable(
    registry: RegistryDouble, job_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(Unreachable, match="no temporary file can be made there"):
        ask_all(job_dir, MODEL)
