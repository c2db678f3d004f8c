"""helpers/images/import_job.sh, queued by imports.sh, on doubles of Slurm, its nodes, enroot and registries."""

from __future__ import annotations

import base64
import json
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from compute_node import SQUASHFS, ComputeNode
from helpers.common.errors import StepFailed
from helpers.images import references as images
from image_cache import MODEL, bring, left_over
from registry_double import RegistryDouble
from slurm_double import SlurmDouble

pytestmark = [pytest.mark.usefixtures("imports"), pytest.mark.slow]
ME, NODE = pwd.getpwuid(os.getuid()).pw_name, os.uname().nodename
WHITEOUT = "[INFO] Converting whiteouts...\nenroot-aufs2ovlfs: failed to create ovlfs whiteout: /x: Operation not permitted\n"


# ---- One import --------------------------------------------------------------------------------------------------------------------------


def test_an_image_is_imported_once_and_is_a_hit_from_then_on(
    job_dir: Path, slurm: SlurmDouble, node: ComputeNode, capfd: pytest.CaptureFixture[str]
) -> None:
    (row,) = bring(job_dir)
    path = Path(row["path"])
    assert (row["state"], row["platform"], row["job"]) == ("imported", images.platform_of(os.uname().machine), "101")
    assert path.read_bytes() == base64.b64decode(SQUASHFS)
    assert left_over(job_dir) == [path.with_suffix(".json").name, path.name]
    sidecar = json.loads(path.with_suffix(".json").read_text())
    expected = {"reference": MODEL, "canonical": MODEL, "digest": row["digest"], "bytes": 151, "enroot": "3.5.0", "job": "101"}
    assert {name: sidecar[name] for name in expected} == expected
    assert oct(path.stat().st_mode & 0o777) == "0o644"  # as readable as the folder above, 0755
    said = capfd.readouterr().err
    assert f"{MODEL}: job 101 queued" in said
    assert f"{MODEL}: imported" in said
    (again,) = bring(job_dir)
    assert (again["state"], again["path"], again["job"], again["seconds"]) == ("hit", row["path"], "101", 0)
    assert len(slurm.calls("sbatch")) == 1
    assert slurm.jobs()[0]["name"].startswith(f"acc-evalmake.import-{path.stem}.")


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("3.4.1", "docker://registry.example#team/model:1"),
        ("3.5.0", "docker://registry.example#team/model:1"),
        ("4.0.1", "docker://registry.example#team/model@{digest}"),
        ("10.1.0", "docker://registry.example#team/model@{digest}"),
        ("unknown", "docker://registry.example#team/model:1"),
        ("", "docker://registry.example#team/model:1"),
    ],
)
def test_what_enroot_is_told_to_import_depends_on_its_version(job_dir: Path, node: ComputeNode, version: str, form: str) -> None:
    node.enroot_is(version)
    (row,) = bring(job_dir)
    assert node.lines("asked") == [form.format(digest=row["digest"])]


def test_of_an_index_enroot_four_is_given_the_platform_s_own_digest(job_dir: Path, node: ComputeNode, registry: RegistryDouble) -> None:
    from registry_double import INDEX, digest_of, index_of

    registry.put("team/model", "1", index_of("linux/amd64", "linux/arm64", "unknown/unknown"), INDEX)
    node.enroot_is("4.0.0")
    (row,) = bring(job_dir)
    digest = digest_of(images.platform_of(os.uname().machine).encode())
    assert row["digest"] == digest
    assert node.lines("asked") == [f"docker://registry.example#team/model@{digest}"]


def test_a_digest_alone_is_for_enroot_four(job_dir: Path, node: ComputeNode, registry: RegistryDouble) -> None:
    digest = registry.put("team/model", "1")
    reference = f"registry.example/team/model@{digest}"
    with pytest.raises(StepFailed, match=r"enroot 3\.5\.0 cannot import by digest: give a tag too"):
        bring(job_dir, reference)
    node.enroot_is("4.0.0")
    assert bring(job_dir, reference)[0]["state"] == "imported"


@pytest.mark.parametrize("version", ["3.5.0", "4.0.0"])
@pytest.mark.parametrize("scheme", ["dockerd", "podman"])
def test_an_image_of_a_daemon_is_imported_by_its_name(job_dir: Path, node: ComputeNode, version: str, scheme: str) -> None:
    node.enroot_is(version)
    (row,) = bring(job_dir, f"{scheme}://team/local:1")
    assert node.lines("asked") == [f"{scheme}://team/local:1"]
    assert (row["state"], row["digest"]) == ("imported", None)
    assert "its digest cannot be looked up" in row["why"]
    assert bring(job_dir, f"{scheme}://team/local:1")[0]["state"] == "hit"


def test_two_names_of_one_image_are_one_import(job_dir: Path, slurm: SlurmDouble, registry: RegistryDouble) -> None:
    registry.manifests["team/model", "latest"] = registry.manifests["team/model", "1"]
    rows = bring(job_dir, MODEL, "registry.example/team/model")
    assert [row["state"] for row in rows] == ["imported", "imported"]
    assert rows[0]["path"] == rows[1]["path"]
    assert len(slurm.calls("sbatch")) == 1


def test_so_many_are_imported_at_a_time_as_are_asked_for(
    job_dir: Path, registry: RegistryDouble, node: ComputeNode, capfd: pytest.CaptureFixture[str]
) -> None:
    references = [f"registry.example/team/model:{number}" for number in range(3)]
    for number in range(3):
        registry.put("team/model", str(number))
    rows = bring(job_dir, *references, at_once=1)
    assert {row["state"] for row in rows} == {"imported"}
    assert len({row["path"] for row in rows}) == 3
    assert node.most == 1
    assert "waits until fewer than 1 imports are running (IMPORTS)" in capfd.readouterr().err


# ---- What goes wrong on the node ---------------------------------------------------------------------------------------------------------


def test_a_failure_leaves_nothing_that_counts_and_the_same_command_continues(
    job_dir: Path, node: ComputeNode, capfd: pytest.CaptureFixture[str]
) -> None:
    node.fails("[INFO] Fetching image manifest\n[ERROR] URL https://registry.example/v2/x returned error code: 503 Service Unavailable\n")
    with pytest.raises(StepFailed) as caught:
        bring(job_dir)
    said = str(caught.value)
    assert f"{MODEL} was not imported (job 101): registry.example has trouble of its own" in said
    log = Path(said.rpartition("its log: ")[2])
    assert "503" in log.read_text()
    assert "> [ERROR] URL" in capfd.readouterr().err
    assert left_over(job_dir) == [log.parent.name]
    node.repaired()
    assert bring(job_dir)[0]["state"] == "imported"


def test_of_several_each_failure_is_reported_and_what_was_imported_stays(
    job_dir: Path, node: ComputeNode, registry: RegistryDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        registry.put("team/model", str(number))
    node.fails("[ERROR] Command not found: jq\n", 1)
    node.fails("tar: x: Cannot write: No space left on device\n", 3)
    with pytest.raises(StepFailed, match=r"\(and 1 more, see above\)"):
        bring(job_dir, *(f"registry.example/team/model:{number}" for number in range(3)))
    assert "✗ registry.example/team/model:2 was not imported" in capfd.readouterr().err
    assert len([name for name in left_over(job_dir) if name.endswith(".sqsh")]) == 1


def test_a_stale_token_that_enroot_kept_is_thrown_away_once(job_dir: Path, node: ComputeNode) -> None:
    tokens = job_dir / "containers" / f".layers-{ME}" / ".tokens.0"
    tokens.mkdir(parents=True)
    (tokens / "registry.example").write_text("header")
    node.fails("[ERROR] URL https://x returned error code: 401 Unauthorized\n", 1)
    assert bring(job_dir)[0]["state"] == "imported"
    assert len(node.lines("asked")) == 2
    assert not tokens.exists()
    (node.state / "keeps-tokens").touch()
    node.fails("[ERROR] URL https://x returned error code: 401 Unauthorized\n")
    with pytest.raises(StepFailed, match="refuses it \\(401\\)"):
        bring(job_dir, force=True)
    assert len(node.lines("asked")) == 4


DAMAGED = "[INFO] Extracting image layers...\n/*stdin*\\ : Read error (39) : premature end\ntar: Unexpected EOF in archive\n"


def layer(folder: Path, name: str, cut: bool) -> Path:
    """A layer as enroot keeps it: a zstd file, named by 64 hex digits; `cut`: without its end."""
    packed = subprocess.run(["zstd", "-q", "-c"], input=name.encode() * 9000, capture_output=True, check=True).stdout
    path = folder / (name * 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed[: len(packed) // 2] if cut else packed)
    return path


@pytest.mark.slow
def test_a_damaged_layer_that_enroot_kept_is_thrown_away_and_fetched_again_once(job_dir: Path, node: ComputeNode) -> None:
    """enroot does not check the layers in its cache: until it is gone, such a layer beats every retry."""
    cache = job_dir / "containers" / f".layers-{ME}"
    damaged, good = layer(cache, "a", cut=True), layer(cache, "b", cut=False)
    node.fails(DAMAGED, 1)
    assert bring(job_dir)[0]["state"] == "imported"
    assert (damaged.exists(), good.exists()) == (False, True)
    assert len(node.lines("asked")) == 2
    layer(cache, "a", cut=True)
    node.fails(DAMAGED)
    with pytest.raises(StepFailed, match="a layer is damaged"):
        bring(job_dir, force=True)
    assert len(node.lines("asked")) == 4


def test_layers_that_are_whole_are_not_fetched_again(job_dir: Path, node: ComputeNode) -> None:
    good = layer(job_dir / "containers" / f".layers-{ME}", "b", cut=False)
    node.fails(DAMAGED)
    with pytest.raises(StepFailed, match="a layer is damaged"):
        bring(job_dir)
    assert good.exists()
    assert len(node.lines("asked")) == 1


def test_credentials_that_are_refused_without_a_word_are_named(job_dir: Path, node: ComputeNode) -> None:
    node.fails("[INFO] Querying registry for permission grant\n[INFO] Authenticating with user: me\n")
    with pytest.raises(StepFailed, match=r"refuses the credentials.*machine registry\.example login"):
        bring(job_dir)


def test_without_a_token_a_refusal_is_final(job_dir: Path, node: ComputeNode) -> None:
    node.fails("[ERROR] URL https://x returned error code: 401 Unauthorized\n")
    with pytest.raises(StepFailed):
        bring(job_dir)
    assert len(node.lines("asked")) == 1


def test_a_filesystem_that_cannot_hold_layers_is_followed_by_the_node_s_own_disk(
    job_dir: Path, node: ComputeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "the node's disk"
    disk.mkdir()
    monkeypatch.setenv("TMPDIR", str(disk))
    node.fails(WHITEOUT, 1)
    assert bring(job_dir)[0]["state"] == "imported"
    first, second = node.lines("places")
    assert first.startswith(str(job_dir / "containers"))
    assert second.startswith(str(disk))
    assert list(disk.iterdir()) == []


def test_another_failure_after_that_step_is_not_tried_elsewhere(job_dir: Path, node: ComputeNode) -> None:
    node.fails("[INFO] Converting whiteouts...\n[INFO] Creating squashfs filesystem...\nWrite failed because No space left on device\n")
    with pytest.raises(StepFailed, match="no space is left"):
        bring(job_dir)
    assert len(node.lines("asked")) == 1


@pytest.mark.parametrize("image", ["aHNxcw==", "bm90IGEgc3F1YXNoZnM=", base64.b64encode(base64.b64decode(SQUASHFS)[:-9]).decode(), ""])
def test_what_is_no_whole_squashfs_is_not_taken_for_one(job_dir: Path, node: ComputeNode, image: str) -> None:
    (node.state / "image").write_text(image)
    with pytest.raises(StepFailed, match="incomplete squashfs"):
        bring(job_dir)
    assert not [name for name in left_over(job_dir) if name.endswith((".sqsh", ".json"))]


def test_an_image_of_another_architecture_is_not_kept(job_dir: Path, node: ComputeNode) -> None:
    node.says("[WARN] Image architecture doesn't match the requested one: arm64 != amd64\n")
    with pytest.raises(StepFailed, match="it is not for linux/"):
        bring(job_dir)


def test_a_tag_that_moves_under_enroot_three_is_not_kept_under_the_old_digest(
    job_dir: Path, node: ComputeNode, registry: RegistryDouble
) -> None:
    node.before = lambda: registry.put("team/model", "1", b"another") and None
    with pytest.raises(StepFailed, match=r"the tag moved to sha256:[0-9a-f]{64} during the import: run the same command again"):
        bring(job_dir)
    assert bring(job_dir)[0]["state"] == "imported"
    node.enroot_is("4.0.0")  # imports the very digest
    node.before = lambda: registry.put("team/model", "1", b"a third") and None
    assert bring(job_dir, force=True)[0]["state"] == "imported"


def test_a_node_without_enroot_leaves_the_image_as_it_is_and_says_so(
    job_dir: Path, node: ComputeNode, capfd: pytest.CaptureFixture[str]
) -> None:
    (node.bin / "enroot").unlink()
    (row,) = bring(job_dir)
    assert (row["state"], row["path"], row["digest"]) == ("left", None, None)
    assert f"there is no enroot on {NODE}" in row["why"]
    assert "is not squashed: there is no enroot" in capfd.readouterr().err
    assert not [name for name in left_over(job_dir) if name.endswith(".lock")]


def test_a_job_whose_node_died_is_followed_by_another_and_not_for_ever(job_dir: Path, node: ComputeNode, slurm: SlurmDouble) -> None:
    node.ends = ["NODE_FAIL", "PREEMPTED"]
    assert (bring(job_dir)[0]["state"], len(slurm.calls("sbatch"))) == ("imported", 3)
    node.ends = ["NODE_FAIL"] * 4
    with pytest.raises(StepFailed, match="its node failed: run the same command again"):
        bring(job_dir, force=True)
    assert len(slurm.calls("sbatch")) == 6


@pytest.mark.parametrize(
    ("state", "said"), [("TIMEOUT", "a longer build_time"), ("OUT_OF_MEMORY", "more mem"), ("CANCELLED", "it was cancelled")]
)
def test_slurm_s_word_for_the_end_of_the_job_is_reported(
    job_dir: Path, node: ComputeNode, slurm: SlurmDouble, state: str, said: str
) -> None:
    node.ends = [state]
    with pytest.raises(StepFailed, match=said):
        bring(job_dir)
    assert len(slurm.calls("sbatch")) == 1
    assert bring(job_dir)[0]["state"] == "imported"
