"""helpers/images/failures.py: why an import failed, out of the tools' own words, with the fix."""

from __future__ import annotations

import pytest

from helpers.images import failures, references
from helpers.images.failures import STATES, FailedImport

NEMO = references.parse("nvcr.io/nvidia/nemo:25.11")
CACHE = "/lustre/me/containers"
DIGEST = "sha256:" + "ab" * 32

# What enroot says up to the point where it fails.
QUERY = "[INFO] Querying registry for permission grant\n[INFO] Authenticating with user: $oauthtoken\n"
IN = QUERY + "[INFO] Using credentials from file: /home/me/.config/enroot/.credentials\n[INFO] Authentication succeeded\n"
FETCH = IN + "[INFO] Fetching image manifest list\n[INFO] Fetching image manifest\n"
LAYERS = FETCH + "[INFO] Downloading 59 missing layers...\n"
EXTRACT = LAYERS + "[INFO] Extracting image layers...\n"
WHITEOUTS = EXTRACT + "[INFO] Converting whiteouts...\n"
SQUASH = WHITEOUTS + "[INFO] Creating squashfs filesystem...\n"
URL = "https://nvcr.io/v2/nvidia/nemo/manifests/25.11"


def why(log: str, verdict: str = "failed 1", states: str = "FAILED", image: references.Image = NEMO, digest: str | None = None) -> str:
    failed = failures.read(f"t\n7\n{states}\n{verdict}\n3.4.1\n{log}")
    return failures.why(failed, image, CACHE, "linux/amd64", digest)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (QUERY + "[ERROR] URL https://nvcr.io/proxy_auth returned error code: 401 Unauthorized", "nvcr.io refuses it (401)"),
        (FETCH + f"[ERROR] URL {URL} returned error code: 401 Unauthorized", "nvcr.io refuses it (401)"),
        (FETCH + f"[ERROR] URL {URL} returned error code: 403 Forbidden", "nvcr.io refuses it (401)"),
        (
            FETCH + f"[ERROR] URL {URL} returned error code: 404 Not Found",
            "nvcr.io has no nvcr.io/nvidia/nemo:25.11 (404): check the name and the tag",
        ),
        (FETCH + f"[ERROR] URL {URL} returned error code: 429 Too Many Requests", "its rate limit"),
        (FETCH + f"[ERROR] URL {URL} returned error code: 429", "its rate limit"),
        (
            FETCH + f"[ERROR] URL {URL} returned error code: 503 Service Unavailable",
            "nvcr.io has trouble of its own (an answer of 500 or more): try again later",
        ),
        (QUERY + "curl: (6) Could not resolve host: nvcr.io", "cannot reach nvcr.io: choose a build_partition"),
        (QUERY + "curl: (7) Failed to connect to nvcr.io port 443 after 1 ms: Couldn't connect to server", "cannot reach nvcr.io"),
        (QUERY + "curl: (28) Connection timed out after 30001 milliseconds", "cannot reach nvcr.io"),
        (
            QUERY + "curl: (60) SSL certificate problem: unable to get local issuer certificate\nMore details here: "
            "https://curl.se/docs/sslcerts.html\n\ncurl failed to verify the legitimacy of the server\nmentioned above.",
            "does not trust the certificate of nvcr.io",
        ),
        (LAYERS + "Checksum mismatch: 3c2cba919283", "a layer is damaged"),
        (EXTRACT + "/*stdin*\\ : Read error (39) : premature end\ntar: Unexpected EOF in archive", "a layer is damaged"),
        (
            LAYERS + "curl: (22) The requested URL returned error: 404\nparallel: This job failed:\ndocker::_download_extract",
            "nvcr.io has the image's manifest, but lacks one of its layers (404): push the image again",
        ),
        (LAYERS + "curl: (22) The requested URL returned error: 502", "nvcr.io has trouble of its own"),
        *(
            (
                LAYERS + said + "\nChecksum mismatch: 3c2cba919283",
                "the connection to nvcr.io broke while a layer was downloaded: run the same",
            )
            for said in (
                "curl: (18) transfer closed with 1048576 bytes remaining to read",
                "pigz: skipping: <stdin>: corrupted -- incomplete deflate data",
                "gzip: stdin: unexpected end of file",
                "curl: (56) Recv failure: Connection reset by peer",
            )
        ),
        (QUERY + "[ERROR] Could not process JSON input", "what answered was not nvcr.io, but perhaps a proxy"),
        (QUERY, "nvcr.io refuses the credentials, whereupon enroot ends without a word (401): ~/.config/enroot/.credentials there must"),
        (QUERY + "[INFO] Using credentials from file: /home/me/.config/enroot/.credentials", "nvcr.io refuses the credentials"),
        (QUERY + "srun: error: n1: task 0: Exited with exit code 1", "nvcr.io refuses the credentials"),
        (EXTRACT + "tar: ./opt/blob: Wrote only 5632 of 10240 bytes\ntar: Exiting with failure status", f"no space is left in {CACHE}"),
        *(
            (SQUASH + f"enroot-nsenter: failed to create user namespace: {said}", "no user namespace to enroot: its limit (user.max_user")
            for said in ("No space left on device", "Permission denied")
        ),
        (LAYERS + 'time="…" level=fatal msg="writing blob: Digest did not match, expected sha256:1"', "a layer is damaged"),
        (EXTRACT + "tar: usr/lib/libcudnn.so.8.9.7: Cannot write: No space left on device", f"no space is left in {CACHE}"),
        (
            SQUASH + "Write failed because No space left on device\nFATAL ERROR:Failed to write to output filesystem",
            f"no space is left in {CACHE}",
        ),
        (EXTRACT + "tar: usr/lib/x: Cannot write: Disk quota exceeded", f"no space is left in {CACHE}"),
        (
            WHITEOUTS + "enroot-aufs2ovlfs: failed to create ovlfs whiteout: /tmp/enroot.x/39/var/lib/apt/lists/x: Operation not permitted",
            f"the filesystem of {CACHE} cannot hold layers",
        ),
        (WHITEOUTS + "enroot-aufs2ovlfs: failed to set capabilities: Operation not permitted", "have its package enroot+caps installed"),
        (SQUASH + 'enroot-mksquashovlfs: Compressor "lzo" is not supported!', "ENROOT_SQUASH_OPTIONS in enroot.conf"),
        (SQUASH + "mksquashfs: something new", "enroot failed with code 1: mksquashfs: something new"),
        ("[ERROR] Command not found: jq", "enroot lacks a program on the node"),
        ("/usr/bin/enroot: line 12: parallel: command not found", "enroot lacks a program on the node"),
        ("[ERROR] Invalid image reference: docker://nvcr.io#nvidia/nemo@sha256:1", "enroot 3.4.1 cannot read this form"),
        ("mkdir: cannot create directory '/lustre/me/containers/x': Permission denied", "cannot be read or written"),
        (LAYERS + "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0", "it ran out of memory: give the profile more mem"),
        (LAYERS + "/usr/bin/enroot: line 5:  4242 Killed   mksquashfs", "it ran out of memory"),
        ("", "enroot failed with code 1: it printed nothing"),
        ("srun: error: n1: task 0: Exited with exit code 1", "enroot failed with code 1: it printed nothing"),
    ],
)
def test_the_tools_own_words_become_a_sentence_with_the_fix(log: str, said: str) -> None:
    assert said in why(log)


def test_a_log_that_goes_through_every_step_blames_none_of_them() -> None:
    """The names of its steps hold words such as whiteouts."""
    assert why(SQUASH + "[ERROR] File already exists: x").startswith("enroot failed with code 1: [ERROR] File already exists")


@pytest.mark.parametrize(
    ("reference", "hosts"),
    [
        ("nvcr.io/nvidia/nemo:25.11", ["nvcr.io", "authn.nvidia.com"]),
        ("python:3.12", ["registry-1.docker.io", "auth.docker.io"]),
        ("10.0.0.1:5000/a/b:1", ["10.0.0.1"]),
    ],
)
def test_the_lines_that_credentials_must_have_are_named(reference: str, hosts: list[str]) -> None:
    said = why("[ERROR] URL https://x returned error code: 401 Unauthorized", image=references.parse(reference))
    for host in hosts:
        assert f"`machine {host} login … password …`" in said


def test_a_manifest_that_the_registry_has_and_enroot_is_not_given_is_of_the_wrong_format() -> None:
    """Older enroot asks for Docker's format alone, and a registry answers 404 for an image in OCI's."""
    said = why(FETCH + f"[ERROR] URL {URL} returned error code: 404 Not Found", digest=DIGEST)
    assert "not in Docker's format, the only one that enroot 3.4.1 reads (404)" in said
    assert "skopeo copy --format v2s2" in said


@pytest.mark.parametrize("scheme", ["dockerd", "podman"])
@pytest.mark.parametrize(
    "log",
    [
        "[ERROR] Command not found: docker",
        "[INFO] Fetching image\nCannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "Error response from daemon: pull access denied for a/b, repository does not exist: access to the resource is denied",
        "Error: a/b:1: image not known",
        "Error response from daemon: manifest for a/b:1 not found: manifest unknown: manifest unknown",
    ],
)
def test_a_daemon_that_is_not_there_or_lacks_the_image_is_no_registry_s_fault(scheme: str, log: str) -> None:
    said = why(log, image=references.parse(f"{scheme}://a/b:1"))
    assert said.startswith(f"{scheme.removesuffix('d')} on the node has no a/b:1, or is not running")
    assert "docker://" in said
    assert "machine" not in said


def test_a_program_that_enroot_lacks_is_no_daemon_s_fault() -> None:
    assert "enroot lacks a program" in why("[ERROR] Command not found: jq", image=references.parse("dockerd://a/b:1"))


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("no-enroot n7", "there is no enroot on n7: choose a build_partition"),
        ("no-archive /a.tar", "/a.tar cannot be read on the node"),
        ("no-tool umoci", "the node lacks umoci"),
        ("no-digest 3.4.1", "enroot 3.4.1 cannot import by digest: give a tag too"),
        ("broken", "an incomplete squashfs"),
        ("moved sha256:1", "the tag moved to sha256:1 during the import: run the same command again"),
        ("architecture x86_64", "it is not for linux/amd64"),
    ],
)
def test_what_the_job_itself_found_comes_before_the_log(verdict: str, said: str) -> None:
    assert said in why(FETCH + f"[ERROR] URL {URL} returned error code: 404 Not Found", verdict)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verdict", ["", "stopped", "ended", "failed 143"])
def test_slurm_s_word_for_the_end_comes_before_the_log(state: str, verdict: str) -> None:
    assert why(LAYERS + "[ERROR] URL https://x returned error code: 404 Not Found", verdict, state) == STATES[state]


def test_a_step_that_was_killed_for_memory_counts_behind_the_job_s_own_failed() -> None:
    assert "more mem" in why(LAYERS, "failed 137", "FAILED FAILED OUT_OF_MEMORY")
    assert "longer build_time" in why(LAYERS, "stopped", "TIMEOUT TIMEOUT")
    assert why(LAYERS, "stopped", "CANCELLED+ CANCELLED by 0") == STATES["CANCELLED"]


def test_a_job_that_was_ended_while_it_logged_in_was_not_refused() -> None:
    assert "refuses the credentials" in why(QUERY)
    assert "its job ended (FAILED) before it was done" in why(QUERY, "stopped")


def test_a_job_that_left_no_word_is_reported_by_its_states() -> None:
    assert why("", "", "") == "its job ended (unknown) before it was done: see the log, and run the same command again"
    assert "its job ended (COMPLETED) before" in why("", "", "COMPLETED COMPLETED")


def test_a_frame_may_break_off_anywhere() -> None:
    assert failures.read("") == FailedImport("", "", [], "", "", [])
    assert failures.read("t\n5\nFAILED").states == ["FAILED"]
    assert failures.read("t\n5\nFAILED\nno-enroot n1").is_without_enroot
