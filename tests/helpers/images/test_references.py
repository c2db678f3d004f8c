"""helpers/images/references.py: references as people write them, and names that no two images share."""

from __future__ import annotations

import json

import pytest

from helpers.common.errors import BadInput
from helpers.images import references
from helpers.images.cache import Lookup

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("reference", "canonical", "three", "four"),
    [
        (
            "python",
            "docker.io/library/python:latest",
            "docker://registry-1.docker.io#library/python:latest",
            "docker://registry-1.docker.io#library/python:latest",
        ),
        ("python:3.12.7-slim", "docker.io/library/python:3.12.7-slim", "docker://registry-1.docker.io#library/python:3.12.7-slim", None),
        ("vllm/vllm-openai:v0.1", "docker.io/vllm/vllm-openai:v0.1", "docker://registry-1.docker.io#vllm/vllm-openai:v0.1", None),
        ("nvcr.io/nvidia/nemo:25.11", "nvcr.io/nvidia/nemo:25.11", "docker://nvcr.io#nvidia/nemo:25.11", None),
        ("docker://nvcr.io/nvidia/nemo:25.11", "nvcr.io/nvidia/nemo:25.11", "docker://nvcr.io#nvidia/nemo:25.11", None),
        ("docker://nvcr.io#nvidia/nemo:25.11", "nvcr.io/nvidia/nemo:25.11", "docker://nvcr.io#nvidia/nemo:25.11", None),
        ("nvcr.io#nvidia/nemo:25.11", "nvcr.io/nvidia/nemo:25.11", "docker://nvcr.io#nvidia/nemo:25.11", None),
        ("docker://$oauthtoken@nvcr.io#a/b:1", "nvcr.io/a/b:1", "docker://$oauthtoken@nvcr.io#a/b:1", None),
        ("10.1.2.3:5000/a/b", "10.1.2.3:5000/a/b:latest", "docker://10.1.2.3:5000#a/b:latest", None),
        ("localhost/a", "localhost/a:latest", "docker://localhost#a:latest", None),
        ("registry-1.docker.io/library/python:3", "docker.io/library/python:3", "docker://registry-1.docker.io#library/python:3", None),
        (f"nvcr.io/a/b@sha256:{HEX}", f"nvcr.io/a/b@sha256:{HEX}", "", f"docker://nvcr.io#a/b@sha256:{HEX}"),
        (f"nvcr.io/a/b:1@sha256:{HEX}", f"nvcr.io/a/b:1@sha256:{HEX}", "docker://nvcr.io#a/b:1", f"docker://nvcr.io#a/b@sha256:{HEX}"),
        ("dockerd://a/b:1", "dockerd:a/b:1", "dockerd://a/b:1", None),
        ("podman://a", "podman:a", "podman://a", None),
    ],
)
def test_a_reference_in_any_form(reference: str, canonical: str, three: str, four: str | None) -> None:
    image = references.parse(reference)
    assert image.canonical == canonical
    assert image.forms(None) == (three, three if four is None else four)


def test_enroot_four_imports_the_very_digest() -> None:
    assert references.parse("nvcr.io/a/b:1").forms(f"sha256:{HEX}") == ("docker://nvcr.io#a/b:1", f"docker://nvcr.io#a/b@sha256:{HEX}")


@pytest.mark.parametrize("reference", ["/lustre/a.sqsh", "/lustre/image"])
def test_a_path_is_left_alone(reference: str) -> None:
    assert references.parse(reference).kind == "file"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("a:1;reboot", "contains ;"),
        ("docker://me:s3cret@nvcr.io#a/b:1", r"^image …@nvcr.io#a/b:1: contains a password"),
        ("a:$(reboot)", r"contains \$\("),
        ("a:${HOME}", r"contains \$\{"),
        ("a:`id`", "contains `"),
        ("a b:1", "contains a space"),
        ("a:1\n", "contains a space"),
        ("a|b", r"contains \|"),
        ("a:1\x1b", "contains"),
        ("$HOME/a:1", "not an image name"),
        ("-o/a:1", "not an image name"),
        ("nvcr.io/NVIDIA/nemo:1", "lower-case"),
        ("a:-x", "not a tag"),
        ("a@sha256:12", "not a digest"),
        ("http://a/b", "docker://"),
        ("images/toy.sqsh", "must be absolute"),
        ("docker-archive:a.tar", "absolute path"),
        ("", "not an image name"),
        ("-h.io/a:1", "not a registry"),
    ],
)
def test_a_reference_that_is_none_is_refused_by_name(reference: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        references.parse(reference)


@pytest.mark.parametrize(
    ("reference", "form"),
    [
        ("10.0.0.1:5000/a/b:1", "10.0.0.1:5000#a/b:1"),
        ("docker://10.0.0.1:5000/a/b:1", "10.0.0.1:5000#a/b:1"),
        ("docker://nvcr.io#nvidia/nemo:25.11", "nvcr.io#nvidia/nemo:25.11"),
        ("nvcr.io/nvidia/nemo", "nvcr.io#nvidia/nemo:latest"),
        ("docker://me@nvcr.io/nvidia/nemo:1", "me@nvcr.io#nvidia/nemo:1"),
        (f"nvcr.io/a/b:1@sha256:{HEX}", f"nvcr.io#a/b@sha256:{HEX}"),
        ("docker.io/python:3.12", "registry-1.docker.io#library/python:3.12"),
        ("python:3.12.7-slim", "python:3.12.7-slim"),
        ("dockerd://a/b:1", "dockerd://a/b:1"),
        ("/lustre/a.sqsh", "/lustre/a.sqsh"),
    ],
)
def test_for_pyxis_a_reference_is_written_so_that_both_versions_of_enroot_read_it(reference: str, form: str) -> None:
    """enroot 3 refuses a `/` after HOST:PORT, and looks for HOST/NAME on Docker Hub."""
    assert references.parse(reference).for_pyxis == form


def test_no_two_references_share_a_file() -> None:
    pairs = [("x/a.b:1", "x/a-b:1"), ("x/nemo:25.11", "x/nemo:25-11"), ("x/a:1", "y/a:1"), ("docker-archive:/a", "oci-archive:/a")]
    for one, other in pairs:
        names = [references.stem(image, Lookup(image).key("linux/amd64")) for image in map(references.parse, (one, other))]
        assert names[0] != names[1]


def test_one_digest_is_one_key_whatever_the_tag() -> None:
    keys = {Lookup(references.parse(tag), f"sha256:{HEX}").key("linux/amd64") for tag in ("a:1", "a:latest", "nvcr.io/a:1")}
    assert len(keys) == 1


def test_an_index_is_read_for_the_platform() -> None:
    entries = [("linux", "amd64"), ("linux", "arm64"), ("unknown", "unknown")]
    index = json.dumps({"manifests": [{"digest": f"sha256:{arch}", "platform": {"os": os, "architecture": arch}} for os, arch in entries]})
    assert references.pick(index, references.platform_of("aarch64")) == ("sha256:arm64", ["linux/amd64", "linux/arm64"])
    assert references.pick(index, references.platform_of("ppc64le"))[0] is None
