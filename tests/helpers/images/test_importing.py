"""helpers/images/importing.py: imports that Slurm refuses, that others are at, and that are forced. See also test_import_job_sh.py."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from compute_node import ComputeNode
from helpers.common.errors import StepFailed
from helpers.images import importing
from helpers.images import references as images
from helpers.images.cache import Lookup, Store, Stored
from image_cache import MODEL, bring, left_over
from registry_double import RegistryDouble
from slurm_double import SlurmDouble
from slurm_submissions import NOTICES, probe, texts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("imports")]


# ---- What goes wrong before --------------------------------------------------------------------------------------------------------------


def test_a_job_that_slurm_refuses_is_reported_in_slurm_s_words_and_leaves_no_lock(job_dir: Path, slurm: SlurmDouble) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Invalid partition name specified")
    with pytest.raises(
        StepFailed, match=r"Slurm refused the import job: .*Invalid partition name.*\(imports use build_partition and build_time"
    ):
        bring(job_dir)
    assert left_over(job_dir) == []
    slurm.repaired()
    assert bring(job_dir)[0]["state"] == "imported"


def test_a_controller_that_is_busy_is_asked_again(job_dir: Path, slurm: SlurmDouble, capfd: pytest.CaptureFixture[str]) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", calls="1")
    assert bring(job_dir)[0]["state"] == "imported"
    assert "Slurm does not answer, trying again" in capfd.readouterr().err


def test_a_job_that_was_queued_though_sbatch_said_nothing_is_not_queued_twice(job_dir: Path, slurm: SlurmDouble, node: ComputeNode) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", calls="1", when="after")
    assert bring(job_dir)[0]["state"] == "imported"
    assert len(slurm.jobs()) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_notices_around_slurm_s_answers_are_no_job_no_state_and_no_node(
    job_dir: Path, slurm: SlurmDouble, node: ComputeNode, when: str
) -> None:
    slurm.answers_for("gaea")
    for command in ("sbatch", "squeue", "sacct", "sinfo"):
        slurm.greets(command, *NOTICES)
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", calls="1", when=when)
    assert bring(job_dir)[0]["job"] == "101"
    node.ends = ["OUT_OF_MEMORY"]
    with pytest.raises(StepFailed, match="it ran out of memory"):
        bring(job_dir, force=True)


def test_a_running_import_with_a_notice_before_its_state_has_not_ended(job_dir: Path, slurm: SlurmDouble, script_folder: Path) -> None:
    slurm.job(77, "RUNNING", "import", job_dir)
    slurm.greets("squeue", *NOTICES)
    body = '. /dev/stdin <<< "$(sed -n "/^ending()/,/^}/p" "$IMPORTS")"; ending 77 && frame ended - "$states" || frame alive - ""'
    imports = str(Path(importing.__file__).with_name("imports.sh"))
    assert [frame.kind for frame in probe(script_folder, job_dir, body, IMPORTS=imports)] == ["alive"]
    slurm.job(77, "FAILED", "import", job_dir)
    slurm.greets("sacct", *NOTICES)
    assert texts(probe(script_folder, job_dir, body, IMPORTS=imports)) == ["FAILED FAILED "]


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


# ---- Others ------------------------------------------------------------------------------------------------------------------------------


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


def test_an_import_whose_node_is_broken_says_so_and_not_that_it_was_cancelled(job_dir: Path, node: ComputeNode) -> None:
    node.ends = ["CANCELLED Error running slurm prolog: 3\n"]
    with pytest.raises(StepFailed, match=r"\(its prolog\) failed on the node: run the same command again"):
        bring(job_dir)


# ---- By force ----------------------------------------------------------------------------------------------------------------------------


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
