"""References to container images: reading them, and naming their .sqsh files. Contacts nothing."""

import hashlib
import json
import re
from dataclasses import dataclass

from helpers.common.errors import BadInput

HUB, HUB_REGISTRY = "docker.io", "registry-1.docker.io"
# What `uname -m` and Slurm call an architecture, and what container images call it.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DAEMONS = ("dockerd", "podman")
ARCHIVES = ("docker-archive", "oci-archive")

_SHELL = re.compile(r"""[\s;&|<>()`"'\\{}*?!\[\]\x00-\x1f\x7f]""")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_USER = re.compile(r"[\w.!~%=+$,-]+", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """A reference in its parts. `kind`: registry, dockerd, podman, docker-archive, oci-archive, or file (a path, used as it is)."""

    reference: str
    kind: str
    host: str = ""
    name: str = ""
    tag: str = ""
    digest: str | None = None
    user: str = ""

    @property
    def canonical(self) -> str:
        """The same text for every way to write a reference: `nvcr.io/nvidia/nemo:25.11`, `docker.io/library/python:3.12`."""
        if self.kind == "registry":
            return f"{self.host}/{self.name}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        return f"{self.kind}:{self.name}" + (f":{self.tag}" if self.tag else "")

    @property
    def registry(self) -> str:
        """The host, and port, that serves a registry image."""
        return HUB_REGISTRY if self.host == HUB else self.host

    @property
    def readable(self) -> str:
        """The part of a file name that people recognise: the last part of the name, and the tag."""
        last = self.name.rstrip("/").rpartition("/")[2]
        text = "-".join(part for part in (last, self.tag or (self.digest or "")[7:19]) if part)
        return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:60].strip("._-") or "image"

    @property
    def for_pyxis(self) -> str:
        """The form that enroot 3 and 4 both read through Pyxis: [USER@]HOST#NAME:TAG; for Docker Hub as it was written, if without a host.

        A digest, if there is one, stands for the tag; only enroot 4 reads it.
        """
        if self.kind != "registry" or (self.host == HUB and "docker.io" not in self.reference):
            return self.reference
        by_tag, by_digest = self.forms(self.digest)
        return (by_digest or by_tag).removeprefix("docker://")

    def forms(self, digest: str | None) -> tuple[str, str]:
        """The reference for enroot 3 and for enroot 4 (which accepts the `digest` of the platform). Empty: that one cannot import it."""
        if self.kind in DAEMONS:
            both = f"{self.kind}://{self.name}" + (f":{self.tag}" if self.tag else "")
            return both, both
        at = f"{self.user}@" if self.user else ""
        # Docker Hub's host is written too: enroot looks up the user's line in its credentials by the host.
        place = f"docker://{at}{self.registry}#{self.name}"
        by_tag = f"{place}:{self.tag}" if self.tag else ""
        pinned = digest or self.digest
        return by_tag, f"{place}@{pinned}" if pinned else by_tag


def parse(reference: str) -> Image:
    """Read a reference: docker://[USER@][HOST#]NAME[:TAG|@sha256:…], dockerd://, podman://, docker-archive:PATH, oci-archive:PATH, bare
    [HOST[:PORT]/]NAME[:TAG][@sha256:…], HOST#NAME:TAG, or the absolute path of a .sqsh file. Raises BadInput for anything else.
    """
    if found := re.search(r"\$[({]", reference) or _SHELL.search(reference):
        character = "a space" if found[0].isspace() else found[0]
        raise BadInput(
            f"image {reference!r} contains {character}, not allowed in a reference: write [HOST/]NAME:TAG or the path of a .sqsh file"
        )
    if reference.startswith("/"):
        return Image(reference, "file", name=reference)
    scheme, colon, rest = reference.partition(":")
    if colon and scheme in ARCHIVES:
        if not rest.startswith("/") or rest.startswith("//"):
            raise BadInput(f"image {reference!r}: expected {scheme}: and the archive's absolute path on the cluster")
        return Image(reference, scheme, name=rest)
    if colon and scheme in DAEMONS and rest.startswith("//"):
        name, tag, _ = _split(reference, rest[2:])
        return Image(reference, scheme, name=name, tag=tag)
    text = reference.removeprefix("docker://")
    if "://" in text:
        raise BadInput(f"image {reference!r}: expected docker://, dockerd://, podman://, docker-archive:, oci-archive:, or no scheme")
    if text.endswith(".sqsh"):
        raise BadInput(f"image {reference!r}: the path of a .sqsh file must be absolute, since it is a path on the cluster")
    return _registry_image(reference, text)


def _registry_image(reference: str, text: str) -> Image:
    user = ""
    # NAME@sha256:… contains an @ too; a user comes before everything else.
    if (found := re.match(r"([^@/#]+)@(?!sha256:)(.+)", text)) and _USER.fullmatch(found[1]):
        user, text = found[1], found[2]
    elif found and ":" in found[1]:
        raise BadInput(f"image …@{found[2]}: contains a password; write it to ~/.config/enroot/.credentials on the cluster instead")
    if "#" in text:
        host, _, text = text.partition("#")
    else:
        first, slash, rest = text.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        host, text = (first, rest) if is_host else (HUB, text)
    if host in (HUB, HUB_REGISTRY, "index.docker.io"):
        host = HUB
    if not _HOST.fullmatch(host):
        raise BadInput(f"image {reference!r}: {host!r} is not a registry: expected HOST or HOST:PORT before the name")
    name, tag, digest = _split(reference, text)
    if host == HUB and "/" not in name:
        name = f"library/{name}"
    return Image(reference, "registry", host, name, tag or ("" if digest else "latest"), digest, user)


def _split(reference: str, text: str) -> tuple[str, str, str | None]:
    """Name, tag and digest. Raises BadInput that names the invalid part."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise BadInput(f"image {reference!r}: {digest!r} is not a digest: expected sha256: and 64 hex digits after @")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    name = head + slash + last
    if not _NAME.fullmatch(name):
        hint = "; names are lower-case" if _NAME.fullmatch(name.lower()) else ""
        raise BadInput(f"image {reference!r}: {name!r} is not an image name: expected [HOST/]NAME:TAG{hint}")
    if colon and not _TAG.fullmatch(tag):
        raise BadInput(f"image {reference!r}: {tag!r} is not a tag: expected letters, digits, and . _ - after the colon")
    return name, tag, digest or None


# ---- Platforms and files -------------------------------------------------------------------------------------------------------------


def platform_of(machine: str) -> str:
    """`linux/amd64` of `x86_64`."""
    return f"linux/{ARCHITECTURES.get(machine, machine)}"


def pick(index: str, platform: str) -> tuple[str | None, list[str]]:
    """The digest that an image index (its JSON) has for a platform, and its platforms, without attestations (`unknown/unknown`).

    Raises ValueError, KeyError or TypeError for text that is not an index.
    """
    listed = json.loads(index)["manifests"]
    found: dict[str, str] = {}
    for one in listed:
        of = one.get("platform") or {}
        name = f"{of.get('os', 'linux')}/{of.get('architecture', 'unknown')}"
        if not name.endswith("/unknown"):
            found.setdefault(name, str(one["digest"]))
    return found.get(platform), sorted(found)


def short_key(key: str) -> str:
    """12 hex digits of the key: in file names, and in the name of the import's lock."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def stem(image: Image, key: str) -> str:
    """The file's name without .sqsh: `nemo-25.11-1f2e3d4c5b6a`. The digits keep the files of `a.b:1` and `a-b:1` apart."""
    return f"{image.readable}-{short_key(key)}"
