"""images/importing.py and import_job.sh: the real scripts, nemo-run's too, on doubles of Slurm, its nodes, enroot and registries."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compute_node import SQUASHFS, ComputeNode
from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput, StepFailed
from helpers.images import import_job, importing, squashing
from helpers.images import references as images
from helpers.images.cache import Lookup, Store, Stored
from helpers.images.import_job import Resources
from registry_double import RegistryDouble
from slurm_double import SlurmDouble

pytestmark = pytest.mark.slow

HERE = Cluster("here", tunnel="local")
ME, HOST = pwd.getpwuid(os.getuid()).pw_name, os.uname().nodename
MODEL = "registry.example/team/model:1"
WHITEOUT = "[INFO] Converting whiteouts...\nenroot-aufs2ovlfs: failed to create ovlfs whiteout: /x: Operation not permitted\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks ten times as often."""
    monkeypatch.setattr(importing, "ASK_FIRST", 0.1)
    monkeypatch.setattr(importing, "ASK_MOST", 0.3)


@pytest.fixture
def job_dir(tmp_path: Path, slurm: SlurmDouble, node: ComputeNode, registry: RegistryDouble) -> Path:
    """A remote_job_dir with a space and quotes, on a cluster of x86_64 nodes, and a registry that has the model."""
    slurm.nodes_are(os.uname().machine)
    registry.put("team/model", "1")
    folder = tmp_path / "jobs of 'mine'"
    folder.mkdir(mode=0o755)
    return folder


def bring(job_dir: Path, *references: str, force: bool = False, at_once: int = 4) -> list[dict[str, Any]]:
    """The rows of images.json."""
    wanted = [images.parse(reference) for reference in references or (MODEL,)]
    found = squashing.squash(HERE, str(job_dir), "batch", wanted, Resources("acc"), force, at_once)
    return [found.rows[image.reference] for image in wanted]


def left_over(job_dir: Path) -> list[str]:
    """What lies in the cache, but for the layers that enroot keeps."""
    return sorted(path.name for path in (job_dir / "containers").iterdir() if not path.name.startswith(".layers-"))


# ---- What the job asks of Slurm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, Resources("acc", "part", "01:00:00")),
        ({"partition": "p"}, Resources("acc", "p", "01:00:00")),
        ({"partition": "p", "run_partition": "r"}, Resources("acc", "r", "01:00:00")),
        ({"partition": "p", "run_partition": "r", "build_partition": "cpu"}, Resources("acc", "cpu", "01:00:00")),
        ({"time": "04:00:00"}, Resources("acc", "part", "04:00:00")),
        ({"time": "04:00:00", "build_time": "00:30:00"}, Resources("acc", "part", "00:30:00")),
        ({"build_gpus_per_node": 8}, Resources("acc", "part", "01:00:00")),
        ({"build_include_gpus": True}, Resources("acc", "part", "01:00:00", gpus=1)),
        ({"build_include_gpus": True, "build_gpus_per_node": "8"}, Resources("acc", "part", "01:00:00", gpus=8)),
        ({"mem": 0, "cpus_per_task": "16", "exclusive": True}, Resources("acc", "part", "01:00:00", mem="0", cpus=16, exclusive=True)),
    ],
)
def test_what_the_profile_says_of_imports_comes_first(env: dict[str, Any], expected: Resources) -> None:
    execution = {"account": "acc", "partition": "part", "walltime": "01:00:00"}
    assert import_job.resources_of({"execution": execution, "run": {"env": env}}) == expected


@pytest.mark.parametrize("gpus", ["all", -1, True, 1.5])
def test_gpus_that_are_no_number_are_refused(gpus: Any) -> None:
    env = {"build_include_gpus": True, "build_gpus_per_node": gpus}
    with pytest.raises(BadInput, match="build_gpus_per_node: expected a number"):
        import_job.resources_of({"execution": {"account": "a"}, "run": {"env": env}})


def test_nemo_run_writes_the_script_and_leaves_out_what_nobody_asked_for() -> None:
    lines = import_job.sbatch_script(Resources("acc"), "acc-evalmake.import-x.t").splitlines()
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    own = ["no-requeue", "nodes=1", "ntasks-per-node=1", "open-mode=append", "output=slurm.out"]
    assert asked == ["account=acc", "job-name=acc-evalmake.import-x.t", *own]
    full = import_job.sbatch_script(Resources("acc", "cpu", "00:30:00", 2, "8G", 4, True), "n")
    for line in ("partition=cpu", "time=00:30:00", "gpus-per-node=2", "mem=8G", "cpus-per-task=4", "exclusive"):
        assert f"#SBATCH --{line}\n" in full
    assert str(Path.home()) not in full


# ---- One import ----------------------------------------------------------------------------------------------------------------------


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


# ---- What goes wrong on the node -----------------------------------------------------------------------------------------------------


def test_a_failure_leaves_nothing_that_counts_and_the_same_command_goes_on(
    job_dir: Path, node: ComputeNode, capfd: pytest.CaptureFixture[str]
) -> None:
    node.fails("[INFO] Fetching image manifest\n[ERROR] URL https://registry.example/v2/x returned error code: 503 Service Unavailable\n")
    with pytest.raises(StepFailed) as caught:
        bring(job_dir)
    said = str(caught.value)
    assert f"{MODEL} was not imported (job 101): enroot failed with code 1: [ERROR] URL" in said
    log = Path(said.rpartition("its log: ")[2])
    assert "503" in log.read_text()
    assert "> [ERROR] URL" in capfd.readouterr().err
    assert left_over(job_dir) == [log.parent.name]
    node.mended()
    assert bring(job_dir)[0]["state"] == "imported"


def test_of_several_each_failure_is_said_and_what_was_imported_stays(
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
    assert f"there is no enroot on {HOST}" in row["why"]
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
def test_slurm_s_word_for_the_end_of_the_job_is_told(job_dir: Path, node: ComputeNode, slurm: SlurmDouble, state: str, said: str) -> None:
    node.ends = [state]
    with pytest.raises(StepFailed, match=said):
        bring(job_dir)
    assert len(slurm.calls("sbatch")) == 1
    assert bring(job_dir)[0]["state"] == "imported"


# ---- What goes wrong before --------------------------------------------------------------------------------------------------------------


def test_a_job_that_slurm_refuses_is_told_in_slurm_s_words_and_leaves_no_lock(job_dir: Path, slurm: SlurmDouble) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Invalid partition name specified")
    with pytest.raises(
        StepFailed, match=r"Slurm refused the import's job: .*Invalid partition name.*\(imports use build_partition and build_time"
    ):
        bring(job_dir)
    assert left_over(job_dir) == []
    slurm.mended()
    assert bring(job_dir)[0]["state"] == "imported"


def test_a_controller_that_is_busy_is_asked_again(job_dir: Path, slurm: SlurmDouble, capfd: pytest.CaptureFixture[str]) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", calls="1")
    assert bring(job_dir)[0]["state"] == "imported"
    assert "Slurm does not answer, trying again" in capfd.readouterr().err


def test_a_job_that_was_queued_though_sbatch_said_nothing_is_not_queued_twice(job_dir: Path, slurm: SlurmDouble, node: ComputeNode) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", calls="1", when="after")
    assert bring(job_dir)[0]["state"] == "imported"
    assert len(slurm.jobs()) == 1


def test_while_squeue_does_not_say_whether_a_job_was_queued_none_is(job_dir: Path, slurm: SlurmDouble, node: ComputeNode) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", calls="1", when="after")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller", calls="2,3")
    assert bring(job_dir)[0]["state"] == "imported"
    assert len(slurm.jobs()) == 1


def test_without_nemo_run_images_stay_as_they_are(
    job_dir: Path, slurm: SlurmDouble, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nemo_run.core.execution.slurm", None)
    (row,) = bring(job_dir)
    assert (row["state"], row["path"]) == ("left", None)
    assert "`make setup`, or `pip install nemo-run`" in row["why"]
    assert "images are not squashed: nemo-run cannot be imported" in capfd.readouterr().err
    assert slurm.calls("sbatch") == []


# ---- Others --------------------------------------------------------------------------------------------------------------------------


def key_of_model(registry: RegistryDouble) -> str:
    return images.short_key(registry.put("team/model", "1"))


def held_by_another(job_dir: Path, key: str, beat_age: float = 0) -> Path:
    """The lock of an import of somebody else's, which has beaten so many seconds ago."""
    holder = job_dir / "containers" / f".{key}.lock" / "beef00"
    holder.mkdir(parents=True)
    for name, text in (("holder", "somebody@login2"), ("id", "77"), ("beat", "5000000 12"), ("log", "[INFO] Fetching image manifest\n")):
        (holder / name).write_text(text + "\n")
    os.utime(holder / "beat", (time.time() - beat_age,) * 2)
    return holder


def test_another_s_import_is_waited_for_and_adopted(
    job_dir: Path, slurm: SlurmDouble, registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = registry.put("team/model", "1")
    key = images.short_key(digest)
    holder = held_by_another(job_dir, key)
    asked: list[int] = []

    def done(seconds: float) -> None:
        asked.append(1)
        if len(asked) == 2:
            path = job_dir / "containers" / f"model-1-{key}"
            path.with_suffix(".sqsh").write_bytes(b"hsqs!")
            sidecar = {
                "canonical": MODEL, "key": key, "platform": images.platform_of(os.uname().machine), "digest": digest, "bytes": 5,
                "import": "beef00", "job": "77", "by": "somebody@login2", "at": "2026-11-24T00:00:00Z",
            }  # fmt: skip
            path.with_suffix(".json").write_text(json.dumps(sidecar, indent=2))
            shutil.rmtree(holder.parent)

    monkeypatch.setattr(importing, "time", SimpleNamespace(monotonic=time.monotonic, sleep=done))
    (row,) = bring(job_dir)
    assert (row["state"], row["job"]) == ("adopted", "77")
    assert slurm.calls("sbatch") == []
    said = capfd.readouterr().err
    assert "job 77 of somebody@login2, waiting for it: fetching image manifest, 5 MB, 12 s" in said
    assert "by somebody@login2" in said


def test_an_import_that_waits_long_is_not_taken_for_dead_because_squeue_does_not_answer(
    job_dir: Path, slurm: SlurmDouble, registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is queued, so nothing beats yet; only squeue knows that it is there."""
    key = key_of_model(registry)
    holder = held_by_another(job_dir, key)
    (holder / "beat").unlink()
    past = time.time() - importing.GIVEN_UP_SECONDS - 60
    os.utime(holder, (past, past))
    slurm.job(77, "PENDING", "import", holder, user="somebody")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller", calls="1")
    looked: list[bool] = []

    def look(seconds: float) -> None:
        looked.append(holder.is_dir())
        if len(looked) == 3:
            shutil.rmtree(holder.parent)

    monkeypatch.setattr(importing, "time", SimpleNamespace(monotonic=time.monotonic, sleep=look))
    assert bring(job_dir)[0]["state"] == "imported"
    assert looked[:3] == [True] * 3


def test_a_dead_import_of_another_s_is_taken_over(
    job_dir: Path, slurm: SlurmDouble, registry: RegistryDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    held_by_another(job_dir, key_of_model(registry), beat_age=importing.STALE_SECONDS + 5)
    (row,) = bring(job_dir)
    assert row["state"] == "imported"
    assert "job 77 of another command died, starting again" in capfd.readouterr().err
    assert not [name for name in left_over(job_dir) if name.endswith(".lock")]


# ---- By force ------------------------------------------------------------------------------------------------------------------------


def test_a_forced_import_replaces_the_file_and_keeps_the_old_one_for_those_who_have_it_open(job_dir: Path, node: ComputeNode) -> None:
    (first,) = bring(job_dir)
    (forced,) = bring(job_dir, force=True)
    assert (forced["state"], forced["path"]) == ("imported", first["path"])
    assert forced["job"] != first["job"]
    assert len([name for name in left_over(job_dir) if ".replaced-" in name]) == 1
    assert bring(job_dir)[0]["job"] == forced["job"]


def test_a_forced_import_that_fails_leaves_the_good_image(job_dir: Path, node: ComputeNode) -> None:
    (first,) = bring(job_dir)
    node.fails("tar: No space left on device\n")
    with pytest.raises(StepFailed, match="no space is left"):
        bring(job_dir, force=True)
    (again,) = bring(job_dir)
    assert (again["state"], again["job"]) == ("hit", first["job"])


def test_a_forced_import_under_another_tag_replaces_the_same_file() -> None:
    image = images.parse("registry.example/team/model:latest")
    digest = "sha256:" + "ab" * 32
    key = images.short_key(digest)
    kept = [Stored(f"/c/model-1-{key}.sqsh", {"key": key, "import": one}) for one in ("aa", "bb")]
    wanted = Lookup(image, digest, digest, hit=kept[0])
    begun = importing.begin(wanted, Store("/c", "linux/amd64", stored=kept), force=True)
    assert (begun.stem, begun.old) == (f"model-1-{key}", "aa bb")
    elsewhere = importing.begin(wanted, Store("/c-me", "linux/amd64", stored=kept), force=True)
    assert elsewhere.stem == f"model-latest-{key}"
    assert importing.begin(wanted, Store("/c", "linux/amd64", stored=kept), force=False).old == ""


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (2_000, "2 kB"), (120_000_000, "120 MB"), (1_440_000_000, "1.4 GB")]
)
def test_sizes_are_read_by_people(number: int, text: str) -> None:
    assert importing.size(number) == text
