"""Container images on the test cluster: imported once for all, known by digest, whole or not there; and every failure is named."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import faults
from cluster.gates import gate
from cluster.image_cases import Images, push, registry, run, settings, until_said, wait_until_free
from cluster.testbed import Bed, until
from helpers.images import references as rules

USER, PASSWORD = "reader", "s3cret-of-the-registry"


@pytest.fixture
def store(cluster: Bed, tmp_path: Path, idle: None) -> Images:
    """An empty cache on the cluster."""
    job_dir = cluster.name / "jobs" / f"images-{secrets.token_hex(4)}"
    job_dir.mkdir()
    return Images(cluster, tmp_path, str(job_dir))


@pytest.fixture
def tiny(cluster: Bed) -> str:
    return f"{registry(cluster)}/evalmake/tiny:1"


@pytest.fixture
def private(cluster: Bed, tmp_path: Path) -> Iterator[str]:
    """A registry that asks for a password; its HOST:PORT."""
    port, login = settings(cluster)
    address = f"{login}:{port + 6}"
    code = f"import crypt; print('{USER}:' + crypt.crypt('{PASSWORD}', '$2y$05$' + 'a' * 22))"
    (tmp_path / "htpasswd").write_text(run("/usr/bin/python3", "-W", "ignore", "-c", code))
    (tmp_path / "private.yml").write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/private}}}}\n"
        f'http: {{addr: "{address}"}}\nauth: {{htpasswd: {{realm: basic, path: {tmp_path}/htpasswd}}}}\n'
    )
    with (tmp_path / "private.log").open("w") as log:
        server = subprocess.Popen(["docker-registry", "serve", tmp_path / "private.yml"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    until(
        lambda: subprocess.run(["curl", "-s", "--noproxy", "*", f"http://{address}/v2/"], capture_output=True, check=False).returncode == 0
    )
    yield address
    server.terminate()
    server.wait(10)


@pytest.fixture
def credentials(cluster: Bed) -> Iterator[Path]:
    """~/.config/enroot/.credentials on the cluster, which is not there."""
    path = cluster.folder / "remote-home/.config/enroot/.credentials"
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


class OtherUser(Images):
    """Somebody else who uses the same remote_job_dir, logged in on the login node (tunnel = local).

    As nobody, who may read this checkout and its Python wherever they lie.
    """

    def __init__(self, store: Images) -> None:
        home = Path(store.job_dir) / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        super().__init__(store.bed, home, store.job_dir, {"tunnel": "local"})

    def env(self) -> dict[str, str]:
        """The login node's, and a home of their own."""
        env = {name: value for name, value in super().env().items() if "proxy" not in name.lower() and not name.startswith("BED")}
        env |= {"SLURM_CONF": str(self.bed.name / "etc/slurm.conf"), "PATH": f"{self.bed.name}/bin:{env['PATH']}", "HOME": str(self.folder)}
        return {**env, "USER": "nobody", "ENROOT_ALLOW_HTTP": "yes", "TMPDIR": str(self.folder)}

    def argv(self, reference: str, *words: str) -> list[str]:
        """The same, as nobody."""
        who = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=+dac_read_search"]
        return [*who, "--ambient-caps=+dac_read_search", *super().argv(reference, *words)]


def test_the_first_imports_and_the_second_finds_it_with_one_ssh_command(store: Images, tiny: str) -> None:
    row, _ = store.squash(f"docker://{tiny}")
    assert row["state"] == "imported"
    path = Path(row["path"])
    assert path.parent == store.cache
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    assert path.stat().st_mode & 0o440 == 0o440
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["digest"] == row["digest"]
    assert (sidecar["job"], sidecar["bytes"], sidecar["by"]) == (row["job"], len(before[0]), "root@login")
    (store.folder / "ssh.log").unlink()
    again, _ = store.squash(tiny)
    assert (again["state"], again["path"], again["job"]) == ("hit", row["path"], row["job"])
    assert len([line for line in (store.folder / "ssh.log").read_text().splitlines() if "bash -s" in line]) == 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    other, _ = store.squash(tiny.replace(":1", ":latest"))  # another tag of the same image
    assert (other["state"], other["path"]) == ("hit", row["path"])
    assert len(store.jobs()) == 1
    assert store.files() == [path.with_suffix(".json").name, path.name]


def test_a_tag_that_moved_is_imported_again_and_the_old_file_stays(store: Images, cluster: Bed, tmp_path: Path) -> None:
    first, _ = store.squash(push(cluster, tmp_path, "evalmake/moving:1", secrets.token_hex(4)))
    second, _ = store.squash(push(cluster, tmp_path, "evalmake/moving:1", secrets.token_hex(4)))
    assert (first["state"], second["state"]) == ("imported", "imported")
    assert first["path"] != second["path"]
    assert Path(first["path"]).exists()


def test_names_that_look_alike_are_two_files(store: Images, cluster: Bed, tmp_path: Path) -> None:
    rows = [store.squash(push(cluster, tmp_path, f"evalmake/{name}", mark))[0] for name, mark in (("a.b:1", "dot"), ("a-b:1", "dash"))]
    assert len({row["path"] for row in rows}) == 2


def test_eight_at_once_of_two_users_are_one_import(store: Images, cluster: Bed, tmp_path: Path) -> None:
    Path(store.job_dir).chmod(0o777)
    reference = push(cluster, tmp_path, "evalmake/eight:1", secrets.token_hex(4), megabytes=8)
    other, out = OtherUser(store), []
    with faults.enroot_is(cluster, "download", "3"), ExitStack() as stack:
        commands = [stack.enter_context(user.at_work(reference)) for user in [store] * 4 + [other] * 4]
        for command in commands:
            stdout, stderr = command.communicate(timeout=120)
            assert command.returncode == 0, stderr
            out.append(json.loads(stdout)["images"][0])
    assert sorted(row["state"] for row in out) == ["adopted"] * 7 + ["imported"]
    assert len({row["path"] for row in out}) == 1
    assert len(store.jobs()) == 1


def test_of_two_users_one_imports_and_the_other_waits_for_it(store: Images, cluster: Bed, tmp_path: Path) -> None:
    """The other logs in on the login node itself (tunnel = local)."""
    Path(store.job_dir).chmod(0o777)
    reference = push(cluster, tmp_path, "evalmake/both:1", secrets.token_hex(4), megabytes=4)
    other = OtherUser(store)
    with faults.enroot_is(cluster, "download", "60") as go_on, store.at_work(reference) as ours:
        store.under_way("Querying")
        with other.at_work(reference) as waiting:
            assert waiting.stderr
            assert any("root@login" in line for line in waiting.stderr)
            go_on()
            out, _ = waiting.communicate(timeout=60)
            theirs = json.loads(out)["images"][0]
        mine, _ = ours.communicate(timeout=60)
    rows = [json.loads(mine)["images"][0], theirs]
    assert [row["state"] for row in rows] == ["imported", "adopted"]
    assert rows[0]["path"] == rows[1]["path"]
    assert len(store.jobs()) == 1


def test_a_cache_that_is_not_ours_to_write_to_is_read_and_new_images_go_beside_it(store: Images, cluster: Bed, tiny: str) -> None:
    row, _ = store.squash(tiny)
    Path(store.job_dir).chmod(0o777)
    (store.cache).chmod(0o755)
    other = OtherUser(store)

    hit, _ = other.squash(tiny)
    assert (hit["state"], hit["path"]) == ("hit", row["path"])
    forced, heard = other.squash(tiny, "--force=1")
    assert Path(forced["path"]).parent.name == "containers-nobody"
    assert "[notice]" in heard


def test_the_lock_of_another_user_whose_import_is_dead_is_taken_over(store: Images, cluster: Bed, tiny: str) -> None:
    """Nobody can see the other's job, so its beat counts: here it is made to look two minutes old."""
    Path(store.job_dir).chmod(0o777)
    other = OtherUser(store)
    with faults.enroot_is(cluster, "download", "60"), store.at_work(tiny) as command:
        job = store.under_way("Querying")
        node = cluster.slurm("squeue", "-h", "-j", job, "-o", "%N").strip()
        os.killpg(command.pid, signal.SIGKILL)
        faults.kill_sessions(cluster)
        with faults.node_killed(cluster, node):
            cluster.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=power")
            wait_until_free(cluster)
    (beat,) = store.cache.glob(".*.lock/*/beat")
    with other.at_work(tiny) as theirs:
        time.sleep(3)
        assert theirs.poll() is None, "so long as it beats, it may be at work"
        past = time.time() - 120
        os.utime(beat, (past, past))
        out, said = theirs.communicate(timeout=60)
    assert theirs.returncode == 0, said
    assert f"job {job} " in said
    assert json.loads(out)["images"][0]["state"] == "imported"
    assert not [name for name in store.files() if name.endswith(".lock")]


def test_killed_while_the_job_is_being_queued_the_next_command_finds_it(store: Images, cluster: Bed, tiny: str) -> None:
    with gate(cluster, "sbatch") as held, store.at_work(tiny) as command:
        until(held.reached)
        os.killpg(command.pid, signal.SIGKILL)
        held.open()
        row, _ = store.squash(tiny)
    assert row["state"] in ("adopted", "hit")
    assert len(store.jobs()) == 1


def test_an_image_without_its_sidecar_does_not_count(store: Images, tiny: str) -> None:
    """An import writes the sidecar last: killed before, it leaves this."""
    row, _ = store.squash(tiny)
    path = Path(row["path"])
    path.write_bytes(path.read_bytes()[:1000])
    assert store.squash(tiny)[0]["state"] == "imported", "the sidecar says how many bytes there are"
    path.with_suffix(".json").unlink()
    assert store.squash(tiny)[0]["state"] == "imported"
    run("unsquashfs", "-s", row["path"])


def test_enroot_4_is_told_the_digest_that_was_asked(store: Images, cluster: Bed, tmp_path: Path) -> None:
    """So a tag that moves meanwhile makes no difference."""
    reference = push(cluster, tmp_path, "evalmake/four:1", secrets.token_hex(4))
    with faults.enroot_is(cluster, "generation", "4"), faults.enroot_is(cluster, "download", "4"), store.at_work(reference) as command:
        store.under_way("Querying")
        push(cluster, tmp_path, "evalmake/four:1", secrets.token_hex(4))
        out, said = command.communicate(timeout=60)
    assert command.returncode == 0, said
    row = json.loads(out)["images"][0]
    assert json.loads(Path(row["path"]).with_suffix(".json").read_text())["enroot"] == "4.5.0"
    assert store.squash(f"{reference.rpartition(':')[0]}@{row['digest']}")[0]["state"] == "hit"


def test_a_tag_that_moves_while_enroot_3_imports_it_is_reported(store: Images, cluster: Bed, tmp_path: Path) -> None:
    reference = push(cluster, tmp_path, "evalmake/three:1", secrets.token_hex(4))
    with faults.enroot_is(cluster, "download", "4"), store.at_work(reference) as command:
        store.under_way("Querying")
        push(cluster, tmp_path, "evalmake/three:1", secrets.token_hex(4))
        _, said = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "tag" in said
    assert store.squash(reference)[0]["state"] == "imported"


def test_a_stale_token_of_an_earlier_import_is_not_believed(store: Images, cluster: Bed, tiny: str) -> None:
    token = store.cache / ".layers-root" / ".tokens.0" / tiny.partition("/")[0]
    token.parent.mkdir(parents=True)
    token.write_text("long expired")
    assert store.squash(tiny)[0]["state"] == "imported"
    assert not token.exists()


@pytest.mark.parametrize("point", ["download", "squash"])
def test_a_job_that_is_killed_leaves_nothing_that_counts_and_the_next_run_is_good(
    store: Images, cluster: Bed, tmp_path: Path, point: str
) -> None:
    reference = push(cluster, tmp_path, "evalmake/killed:1", secrets.token_hex(4))
    with faults.enroot_is(cluster, point, "60"), store.at_work(reference) as command:
        job = store.under_way("Querying" if point == "download" else "Creating")
        cluster.slurm("scancel", "--signal=KILL", "--full", job)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 1
    assert f"(job {job})" in said
    assert not [name for name in store.files() if name.endswith((".sqsh", ".json", ".lock"))]
    row, _ = store.squash(reference)
    assert row["state"] == "imported"
    run("unsquashfs", "-s", row["path"])


def test_the_node_of_an_import_loses_power(store: Images, cluster: Bed, tmp_path: Path) -> None:
    reference = push(cluster, tmp_path, "evalmake/power:1", secrets.token_hex(4))
    with faults.enroot_is(cluster, "download", "60"), store.at_work(reference) as command:
        job = store.under_way("Querying")
        node = cluster.slurm("squeue", "-h", "-j", job, "-o", "%N").strip()
        with faults.node_killed(cluster, node):
            (cluster.folder / "faults/enroot-download").unlink()
            cluster.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=power")
            out, said = command.communicate(timeout=60)
    assert command.returncode == 0, said
    assert json.loads(out)["images"][0]["state"] == "imported"
    assert not [name for name in store.files() if name.endswith(".lock")]


def test_interrupted_the_import_continues_and_the_next_run_adopts_it(store: Images, cluster: Bed, tmp_path: Path) -> None:
    reference = push(cluster, tmp_path, "evalmake/interrupted:1", secrets.token_hex(4))
    with faults.enroot_is(cluster, "download", "250") as go_on:
        with store.at_work(reference) as command:
            job = store.under_way("Querying")
            until_said(command, f"job {job}")
            command.send_signal(signal.SIGINT)
            _, said = command.communicate(timeout=60)
        assert command.returncode == 130
        assert reference in said
        assert job in said
        with store.at_work(reference) as again:
            until_said(again, f"job {job}")  # it has found the import, which cannot end before go_on()
            go_on()
            out, _ = again.communicate(timeout=120)
    row = json.loads(out)["images"][0]
    assert (row["state"], row["job"]) == ("adopted", job)
    assert len(store.jobs()) == 1


@pytest.mark.parametrize("point", ["download", "squash"])
def test_a_force_that_fails_half_way_leaves_the_good_image(store: Images, cluster: Bed, tiny: str, point: str) -> None:
    row, _ = store.squash(tiny)
    before = Path(row["path"]).read_bytes()
    with faults.enroot_is(cluster, point, "fail"):
        _, said = store.squash(tiny, "--force=1", code=1)
    assert "failed at" in said
    assert Path(row["path"]).read_bytes() == before
    assert store.squash(tiny)[0]["state"] == "hit"
    forced, _ = store.squash(tiny, "--force=1")
    assert (forced["state"], forced["path"]) == ("imported", row["path"])
    assert forced["job"] != row["job"]


def test_a_full_disk_is_named_with_its_path(store: Images, cluster: Bed, tmp_path: Path) -> None:
    reference = push(cluster, tmp_path, "evalmake/large:1", secrets.token_hex(4), megabytes=24)
    store.job_dir = f"{cluster.name}/small/{secrets.token_hex(3)}"
    _, said = store.squash(reference, code=1)
    assert f"{store.job_dir}/containers" in said
    assert "space" in said
    assert not [name for name in store.files() if name.endswith((".sqsh", ".lock"))]
    with faults.disk_full(cluster):
        _, said = store.squash(reference, code=1)
    assert store.job_dir in said
    subprocess.run(["rm", "-rf", store.job_dir], check=True)


def test_a_broken_layer_is_named(store: Images, cluster: Bed, tmp_path: Path) -> None:
    mark = secrets.token_hex(4)
    reference = push(cluster, tmp_path, "evalmake/broken:1", mark, megabytes=1)
    blobs = (cluster.folder / "registry/docker/registry/v2/blobs").glob("sha256/*/*/data")
    layer = max(blobs, key=lambda path: path.stat().st_mtime_ns if path.stat().st_size > 1 << 20 else 0)
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.write_bytes(data)
    _, said = store.squash(reference, code=1)
    assert "layer" in said


def test_a_private_registry_is_asked_with_the_users_own_credentials(
    store: Images, cluster: Bed, private: str, credentials: Path, tmp_path: Path
) -> None:
    reference = push(cluster, tmp_path, "team/model:1", secrets.token_hex(4), to=private, login=f"{USER}:{PASSWORD}")
    host = private.partition(":")[0]
    _, said = store.squash(reference, code=1)
    assert f"machine {host} login" in said
    assert store.jobs() == []  # said before anything was queued
    credentials.write_text(f"machine {host} login {USER} password wrong\n")
    credentials.chmod(0o600)
    assert "401" in store.squash(reference, code=1)[1]
    credentials.write_text(f"machine {host} login {USER} password {PASSWORD}\n")
    row, said = store.squash(reference)
    assert row["state"] == "imported"
    assert row["digest"]
    assert store.squash(reference)[0]["state"] == "hit"
    everything = [path.read_bytes() for path in Path(store.job_dir).rglob("*") if path.is_file()]
    assert PASSWORD not in said
    assert not any(PASSWORD.encode() in content for content in everything)
    missing = reference.replace(":1", ":none") if reference.endswith(":1") else reference
    assert "404" in store.squash(missing, code=1)[1]


def test_credentials_that_are_refused_on_the_node_are_named_though_enroot_says_nothing(
    store: Images, cluster: Bed, private: str, credentials: Path, tmp_path: Path
) -> None:
    reference = push(cluster, tmp_path, "team/model:1", secrets.token_hex(4), to=private, login=f"{USER}:{PASSWORD}")
    host = private.partition(":")[0]
    credentials.write_text(f"machine {host} login {USER} password {PASSWORD}\n")
    with faults.enroot_is(cluster, "download", "60") as go_on, store.at_work(reference) as command:
        store.under_way("Querying")
        credentials.write_text(f"machine {host} login {USER} password wrong\n")
        go_on()
        _, said = command.communicate(timeout=60)
    assert command.returncode == 1
    assert f"{private} refuses the credentials" in said
    assert f"machine {host} login" in said


def test_a_layer_that_was_damaged_in_the_cache_is_fetched_again(store: Images, tiny: str) -> None:
    """enroot does not check it."""
    store.squash(tiny)
    (layer,) = (path for path in (store.cache / ".layers-root").iterdir() if not path.name.startswith("."))
    layer.write_bytes(layer.read_bytes()[: layer.stat().st_size // 2])
    row, _ = store.squash(tiny, "--force=1")
    assert row["state"] == "imported"
    run("zstd", "-tq", str(layer))


def test_a_container_is_read_only_unless_somebody_asks_for_a_writable_one(cluster: Bed, store: Images, tiny: str) -> None:
    """As enroot's are: a stand-in that were more lenient would hide what fails on a real cluster."""
    row, _ = store.squash(tiny)
    step = f"srun --account=research --no-container-mount-home --container-image={row['path']}"
    touch = "sh -c 'touch /x 2>&1; true'"
    assert "Read-only file system" in cluster.login(f"{step} {touch}")
    assert cluster.login(f"{step} --container-writable {touch}") == ""
    assert cluster.login(f"PYXIS_CONTAINER_WRITABLE=1 {step} {touch}") == ""


def test_an_archive_that_root_imports_starts_for_others(store: Images, cluster: Bed, tiny: str, tmp_path: Path) -> None:
    """Only root may create the device files that are in it; enroot leaves them out itself."""
    device = tmp_path / "null"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{tiny}", f"oci:{tmp_path}/oci:x")
    run("umoci", "insert", "--image", f"{tmp_path}/oci:x", str(device), "/dev/null")
    archive = Path(store.job_dir) / "devices.tar"
    run("skopeo", "copy", "-q", f"oci:{tmp_path}/oci:x", f"oci-archive:{archive}:x")
    row, _ = store.squash(f"oci-archive:{archive}")
    assert not re.search(r"^[bc]", run("unsquashfs", "-lls", row["path"]), re.MULTILINE)
    Path(store.job_dir).chmod(0o755)
    step = f"srun --account=research --chdir=/ --no-container-mount-home --container-image={row['path']} id -u"
    assert cluster.login(f"setpriv --reuid=nobody --regid=nogroup --clear-groups {step}") == "65534\n"


@pytest.mark.parametrize("reference", ["a:1;touch PLANTED", "a:$(touch PLANTED)", "a:`touch PLANTED`", "a b", "-o/x"])
def test_a_hostile_reference_is_refused_before_anything_is_contacted(store: Images, reference: str) -> None:
    _, said = store.squash(reference, code=2)
    assert said.startswith("error: image ")
    assert not (store.folder / "ssh.log").exists()


def test_what_the_registry_does_not_have_is_reported_before_anything_is_queued(store: Images, tiny: str) -> None:
    _, said = store.squash(tiny.replace(":1", ":9"), code=1)
    assert "404" in said
    assert store.jobs() == []


def test_a_registry_that_nobody_can_ask_lets_the_reference_stand_for_the_image(store: Images, cluster: Bed, tiny: str) -> None:
    with faults.stopped(cluster, "registry"):
        _, said = store.squash(tiny, code=1)
        assert re.search(rf"\[notice\] .*{re.escape(tiny)}", said), said
    row, _ = store.squash(tiny)
    assert row["state"] == "imported"
    with faults.stopped(cluster, "registry"):
        row, said = store.squash(tiny)
    assert row["state"] == "hit"
    assert "digest" in said


def test_a_walltime_that_is_too_short_is_named(store: Images, cluster: Bed, tiny: str) -> None:
    store.fields = {"build_time": "00:01:00"}
    with faults.enroot_is(cluster, "download", "300"), store.at_work(tiny) as command:
        job = store.under_way()
        cluster.slurm(
            "scontrol", "update", f"jobid={job}", "EndTime=now"
        )  # Slurm looks every half a minute; a walltime is a minute at least
        _, said = command.communicate(timeout=150)
    assert command.returncode == 1
    assert "build_time" in said


def test_a_node_without_enroot_leaves_images_as_they_are(store: Images, cluster: Bed, tiny: str) -> None:
    enroot = cluster.folder / "bin/enroot"
    away = enroot.with_name("enroot.away")
    enroot.rename(away)
    try:
        row, said = store.squash(tiny)
    finally:
        away.rename(enroot)
    assert (row["state"], row["path"]) == ("left", None)
    assert "enroot" in row["why"]
    assert "[notice]" in said


def test_a_path_with_spaces(store: Images, tiny: str) -> None:
    store.job_dir += " and a space"
    row, _ = store.squash(tiny)
    assert Path(row["path"]).exists()
    assert store.squash(tiny)[0]["state"] == "hit"


def test_an_archive_on_the_cluster(store: Images, cluster: Bed, tiny: str) -> None:
    archive = Path(store.job_dir) / "tiny.tar"
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{tiny}", f"docker-archive:{archive}:tiny:1")
    row, _ = store.squash(f"docker-archive:{archive}")
    assert row["state"] == "imported"
    assert "etc/environment" in run("unsquashfs", "-l", row["path"])
    assert store.squash(f"docker-archive:{archive}")[0]["state"] == "hit"
    archive.touch()
    os.utime(archive, (1, 1))
    assert store.squash(f"docker-archive:{archive}")[0]["state"] == "imported"


def test_the_file_is_named_by_what_a_person_recognises(store: Images, tiny: str) -> None:
    row, _ = store.squash(tiny)
    assert Path(row["path"]).name == f"tiny-1-{rules.short_key(row['digest'])}.sqsh"
