"""helpers/images/cache.py: the cache and the digests, asked by the real scripts in a real bash, of a double of registries and of Slurm."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster.connection import Cluster
from helpers.common.errors import StepFailed, Unreachable
from helpers.images import cache, squashing
from helpers.images import references as images
from helpers.images.cache import Lookup, Store
from registry_double import INDEX, RegistryDouble, digest_of, index_of
from slurm_double import SlurmDouble

HERE = Cluster("here", tunnel="local")
HOST = "registry.example"
MODEL = f"{HOST}/team/model:1"
USER, PASSWORD = "reader", "s3cret"
AMD, ARM = digest_of(b"linux/amd64"), digest_of(b"linux/arm64")


@pytest.fixture
def job_dir(tmp_path: Path, slurm: SlurmDouble) -> Path:
    """A remote_job_dir whose name people do give; its nodes are x86_64."""
    slurm.nodes_are("x86_64")
    folder = tmp_path / "jobs of $USER; 'mine'"
    folder.mkdir()
    return folder


def ask_all(job_dir: Path, *references: str, make: bool = True) -> tuple[Store, list[Lookup]]:
    return cache.ask(HERE, str(job_dir), "batch", [images.parse(reference) for reference in references], make)


def ask(job_dir: Path, reference: str = MODEL) -> Lookup:
    return ask_all(job_dir, reference)[1][0]


def credentials(tmp_path: Path, *hosts: str, password: str = PASSWORD) -> Path:
    """~/.config/enroot/.credentials on the cluster, with a line a host."""
    path = tmp_path / "home/.config/enroot/.credentials"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"machine {host} login {USER} password {password}\n" for host in hosts))
    path.chmod(0o600)
    return path


def log_in_here(tmp_path: Path, host: str) -> None:
    """`docker login` on this machine."""
    (tmp_path / "home/.docker").mkdir()
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "home/.docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def keep(folder: Path, reference: str, **more: Any) -> Path:
    """An image in the cache, with its sidecar; the path of its .sqsh file."""
    folder.mkdir(parents=True, exist_ok=True)
    image = images.parse(reference)
    fields = {
        "canonical": image.canonical, "platform": "linux/amd64", "digest": None, "index": None, "bytes": 5, "import": "aa11",
        "at": "2026-11-01T00:00:00Z", "job": "7", **more,
    }  # fmt: skip
    fields.setdefault("key", images.short_key(images.key_of(image, fields["platform"], fields["digest"])))
    path = folder / f"{image.readable}-{fields['key']}.sqsh"
    path.write_text("hsqs!")
    path.with_suffix(".json").write_text(json.dumps(fields, indent=2))
    return path


# ---- Platforms -----------------------------------------------------------------------------------------------------------------------


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
        squashing.squash(HERE, str(job_dir), "batch", [images.parse(MODEL)], None, False, 4)
    assert slurm.calls("sbatch") == []


def test_an_index_that_is_none_is_said(registry: RegistryDouble, job_dir: Path) -> None:
    registry.put("team/model", "1", b'{"manifests": 3}', INDEX)
    assert "with an invalid image index" in ask(job_dir).trouble


# ---- Letting in ----------------------------------------------------------------------------------------------------------------------


def test_one_manifest_is_one_head_and_no_pull(registry: RegistryDouble, job_dir: Path) -> None:
    digest = registry.put("team/model", "1")
    assert ask(job_dir).digest == digest
    assert [call.method for call in registry.calls] == ["HEAD"]


def test_a_token_is_asked_of_another_host_with_that_host_s_line(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    registry.rule(auth="Bearer", realm="https://tokens.example/token", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    credentials(tmp_path, HOST, "tokens.example")
    one = ask(job_dir)
    assert (one.digest, one.trouble) == (digest, "")
    assert [(call.host, call.user, call.token) for call in registry.calls] == [
        (HOST, "", ""),
        ("tokens.example", USER, ""),
        (HOST, "", f"token-of-{USER}"),
    ]


def test_an_anonymous_token_is_enough_for_public_images(registry: RegistryDouble, job_dir: Path) -> None:
    registry.rule(auth="Bearer", realm="https://tokens.example/token", anonymous=True)
    assert registry.put("team/model", "1") == ask(job_dir).digest


def test_basic_is_answered_with_the_registry_s_line(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    registry.rule(auth="Basic", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    credentials(tmp_path, HOST)
    assert ask(job_dir).digest == digest


BEARER = {"auth": "Bearer", "realm": "https://tokens.example/token"}


@pytest.mark.parametrize(
    ("rule", "lines", "mend"),
    [
        ({"auth": "Basic"}, [], f"add the line `machine {HOST} login … password …` to "),
        ({"auth": "Basic"}, [HOST], "refuses the credentials in ~/.config/enroot/.credentials there: renew them"),
        (BEARER, [], f"`machine {HOST} login … password …` and `machine tokens.example login … password …`"),
        (BEARER, [HOST], "add the line `machine tokens.example login … password …` to"),
        (BEARER, ["tokens.example"], f"add the line `machine {HOST} login … password …` to"),
        (BEARER, [HOST, "tokens.example"], "refuses the credentials in ~/.config/enroot/.credentials there: renew them"),
    ],
)
def test_who_is_not_let_in_is_told_which_lines_are_missing(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path, rule: dict[str, str], lines: list[str], mend: str
) -> None:
    registry.rule(**rule, accounts={USER: PASSWORD})
    registry.put("team/model", "1")
    credentials(tmp_path, *lines, password="wrong")
    one = ask(job_dir)
    assert f"{HOST} refuses {MODEL} (401)" in one.fatal
    assert mend in one.fatal
    assert "wrong" not in one.fatal


@pytest.mark.parametrize(
    ("lines", "named", "mend"),
    [
        ([], ["nvcr.io", "authn.nvidia.com"], "add the line"),
        (["nvcr.io"], ["authn.nvidia.com"], "add the line"),
        (["authn.nvidia.com"], ["nvcr.io"], "add the line"),
        (["nvcr.io", "authn.nvidia.com"], [], "refuses the credentials in ~/.config/enroot/.credentials there: renew them"),
    ],
)
def test_nvcr_io_needs_the_lines_of_two_hosts(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path, lines: list[str], named: list[str], mend: str
) -> None:
    """It gives tokens itself, at /proxy_auth, which sends on to authn.nvidia.com."""
    registry.rule("nvcr.io", auth="Bearer", realm="https://nvcr.io/proxy_auth", accounts={USER: PASSWORD})
    credentials(tmp_path, *lines, password="stale")
    fatal = ask(job_dir, "nvcr.io/nvidia/nemo:25.11").fatal
    assert mend in fatal
    for host in ("nvcr.io", "authn.nvidia.com"):
        assert (f"`machine {host} login" in fatal) == (host in named)


def test_a_login_that_begins_with_a_dollar_is_no_command(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    """nvcr.io's login is `$oauthtoken`, to the letter."""
    registry.rule("nvcr.io", auth="Bearer", realm="https://nvcr.io/proxy_auth", accounts={"$oauthtoken": PASSWORD})
    path = credentials(tmp_path, "nvcr.io", "authn.nvidia.com", password="stale")
    path.write_text(path.read_text().replace(USER, "$oauthtoken"))
    digest = registry.put("nvidia/nemo", "25.11")
    assert "renew them" in ask(job_dir, "nvcr.io/nvidia/nemo:25.11").fatal
    path.write_text(path.read_text().replace("stale", PASSWORD))
    assert ask(job_dir, "nvcr.io/nvidia/nemo:25.11").digest == digest


def test_the_hub_s_tokens_come_from_auth_docker_io(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    registry.rule("registry-1.docker.io", auth="Bearer", realm="https://auth.docker.io/token", accounts={USER: PASSWORD})
    digest = registry.put("library/python", "3.12")
    credentials(tmp_path, "registry-1.docker.io", "auth.docker.io")
    assert ask(job_dir, "python:3.12").digest == digest


def test_a_password_that_enroot_makes_by_a_command_is_not_taken_for_a_wrong_one(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path
) -> None:
    """enroot's documentation has `password $(aws ecr get-login-password)`: enroot runs it, curl does not."""
    registry.rule(auth="Basic", accounts={USER: PASSWORD})
    registry.put("team/model", "1")
    credentials(tmp_path, HOST, password=f"$(echo {PASSWORD})")
    one = ask(job_dir)
    assert one.fatal == ""
    assert "comes from a command" in one.trouble


@pytest.mark.parametrize(
    ("status", "said", "is_final"),
    [
        (403, f"{HOST} refuses {MODEL} (403)", True),
        (404, f"{HOST} has no {MODEL} (404): check the name and the tag", True),
        (429, "(429, its rate limit): wait, or log in with a line in ~/.config/enroot/.credentials", False),
        (500, f"{HOST} answers 500 for {MODEL}", False),
        (503, f"{HOST} answers 503 for {MODEL}", False),
    ],
)
def test_what_a_registry_answers_is_told_and_only_a_no_is_final(
    registry: RegistryDouble, job_dir: Path, status: int, said: str, is_final: bool
) -> None:
    registry.rule(fails={"HEAD": status, "GET": status})
    registry.put("team/model", "1")
    one = ask(job_dir)
    assert said in one.trouble
    assert one.fatal == (one.trouble if is_final else "")
    assert one.digest is None


def test_a_redirect_is_followed_and_no_token_goes_with_it(registry: RegistryDouble, job_dir: Path) -> None:
    registry.rule(**BEARER, anonymous=True, redirect="https://authn.nvidia.com")
    digest = registry.put("team/model", "1")
    assert ask(job_dir).digest == digest
    moved = [call for call in registry.calls if call.host == "authn.nvidia.com"]
    assert [(call.method, call.token) for call in moved] == [("HEAD", "")]


@pytest.mark.parametrize("platforms", [(), ("linux/amd64",)])
def test_a_registry_that_sends_no_digest_is_hashed(registry: RegistryDouble, job_dir: Path, platforms: tuple[str, ...]) -> None:
    registry.rule(tells_digest=False)
    digest = registry.put("team/model", "1", *((index_of(*platforms), INDEX) if platforms else ()))
    one = ask(job_dir)
    assert (one.index, one.digest) == (digest, AMD if platforms else digest)


def test_all_are_asked_at_once(registry: RegistryDouble, job_dir: Path) -> None:
    def seconds(count: int) -> float:
        began = time.monotonic()
        found = ask_all(job_dir, *(f"{HOST}/team/model:{number}" for number in range(count)))[1]
        assert all(one.digest for one in found)
        return time.monotonic() - began

    registry.rule(seconds=0.3)
    for number in range(8):
        registry.put("team/model", str(number))
    one, eight = seconds(1), seconds(8)
    assert eight < one + 0.9  # one after another: 2.1 s more


# ---- Asked from here -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_curl(tmp_path: Path, slurm: SlurmDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node without curl: every other program is there."""
    folder = tmp_path / "no-curl"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for path in Path(place).iterdir() if Path(place).is_dir() else ():
            if path.name != "curl" and not (folder / path.name).is_symlink():
                (folder / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def unreached(registry: RegistryDouble, tmp_path: Path) -> Iterator[None]:
    """A login node from which no registry answers: curl says 000."""
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        (tmp_path / "home/.curlrc").write_text(registry.curlrc(held.getsockname()[1]))
        yield


@pytest.mark.parametrize("login_node", ["no_curl", "unreached"])
def test_where_the_cluster_cannot_ask_this_machine_does(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path, request: pytest.FixtureRequest, login_node: str
) -> None:
    request.getfixturevalue(login_node)
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    index = registry.put("team/model", "1", index_of("linux/amd64", "linux/arm64"), INDEX)
    log_in_here(tmp_path, registry.address)
    one = ask(job_dir, f"{registry.address}/team/model:1")
    assert (one.digest, one.index, one.trouble) == (AMD, index, "")


def test_what_this_machine_is_refused_is_not_final_since_nodes_may_be_let_in(
    registry: RegistryDouble, job_dir: Path, no_curl: None
) -> None:
    one = ask(job_dir, f"{registry.address}/team/model:1")
    assert "(404)" in one.trouble
    assert one.fatal == ""


def test_who_is_not_let_in_here_is_told_to_log_in_here(registry: RegistryDouble, job_dir: Path, no_curl: None) -> None:
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    one = ask(job_dir, f"{registry.address}/team/model:1")
    assert f"`docker login {registry.address}` here" in one.trouble
    assert one.fatal == ""


def test_without_any_network_it_is_said_and_nothing_is_final(registry: RegistryDouble, job_dir: Path, unreached: None) -> None:
    one = ask(job_dir, "localhost:9/team/model:1")
    assert "neither the cluster nor this machine could reach localhost:9 (" in one.trouble
    assert "onnect" in one.trouble
    assert (one.fatal, one.digest) == ("", None)


# ---- What is there -------------------------------------------------------------------------------------------------------------------


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


def test_an_index_that_cannot_be_read_is_said_since_its_tag_may_have_moved(registry: RegistryDouble, job_dir: Path) -> None:
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


# ---- The folder ----------------------------------------------------------------------------------------------------------------------


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
    assert "cannot be written" in store.notices[0]


def test_without_any_folder_the_mend_is_said(registry: RegistryDouble, job_dir: Path) -> None:
    (job_dir / "file").write_text("")
    with pytest.raises(StepFailed, match=r"cannot be written \(.*\): free space, fix its permissions, or choose another remote_job_dir"):
        ask_all(job_dir / "file", MODEL)


def test_a_login_node_without_a_temporary_folder_is_unreachable(
    registry: RegistryDouble, job_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(Unreachable, match="no temporary file can be made there"):
        ask_all(job_dir, MODEL)
