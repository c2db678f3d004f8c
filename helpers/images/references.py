"""Container images: which ones a run uses and for what, how a reference is read, and what its .sqsh file is called. Pure: asks nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from helpers.common.errors import BadInput
from helpers.config import tasks
from helpers.credentials import auto_export

HUB, HUB_REGISTRY = "docker.io", "registry-1.docker.io"
# The launcher's own, where the config names none: of the job that exports results, and of the proxy (its executors/slurm/executor.py).
EXPORT_IMAGE, PROXY_IMAGE = "python:3.12.7-slim", "haproxy:latest"
# `uname -m` and Slurm's Arch, in the words of container images.
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
    """A reference, read. `kind`: registry, dockerd, podman, docker-archive, oci-archive, or file (a path: nothing to be done)."""

    reference: str
    kind: str
    host: str = ""
    name: str = ""
    tag: str = ""
    digest: str | None = None
    user: str = ""

    @property
    def canonical(self) -> str:
        """One text for all ways to write the same reference: `nvcr.io/nvidia/nemo:25.11`, `docker.io/library/python:3.12`."""
        if self.kind == "registry":
            return f"{self.host}/{self.name}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        return f"{self.kind}:{self.name}" + (f":{self.tag}" if self.tag else "")

    @property
    def registry(self) -> str:
        """The host, and port, that answers for a registry image."""
        return HUB_REGISTRY if self.host == HUB else self.host

    @property
    def readable(self) -> str:
        """What a person recognises the file by: the last part of the name, and the tag."""
        last = self.name.rstrip("/").rpartition("/")[2]
        text = "-".join(part for part in (last, self.tag or (self.digest or "")[7:19]) if part)
        return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:60].strip("._-") or "image"

    def forms(self, digest: str | None) -> tuple[str, str]:
        """What enroot 3 and enroot 4 are told to import; `digest`: the platform's, which 4 takes. Empty: that one cannot import it."""
        if self.kind in DAEMONS:
            both = f"{self.kind}://{self.name}" + (f":{self.tag}" if self.tag else "")
            return both, both
        at = f"{self.user}@" if self.user else ""
        # Of the Hub too the host is named: enroot looks for a user's line in its credentials by the host that it is given.
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
            f"image {reference!r} holds {character}, which no image reference has: write [HOST/]NAME:TAG or the path of a .sqsh file"
        )
    if reference.startswith("/"):
        return Image(reference, "file", name=reference)
    scheme, colon, rest = reference.partition(":")
    if colon and scheme in ARCHIVES:
        if not rest.startswith("/") or rest.startswith("//"):
            raise BadInput(f"image {reference!r}: {scheme}: and the archive's absolute path on the cluster were expected")
        return Image(reference, scheme, name=rest)
    if colon and scheme in DAEMONS and rest.startswith("//"):
        name, tag, _ = _split(reference, rest[2:])
        return Image(reference, scheme, name=name, tag=tag)
    text = reference.removeprefix("docker://")
    if "://" in text:
        raise BadInput(f"image {reference!r}: docker://, dockerd://, podman://, docker-archive: or oci-archive: was expected, or no scheme")
    if text.endswith(".sqsh"):
        raise BadInput(f"image {reference!r}: the path of a .sqsh file must be absolute: it is one of the cluster")
    return _registry_image(reference, text)


def _registry_image(reference: str, text: str) -> Image:
    user = ""
    # NAME@sha256:… holds an @ too; a user stands before everything else.
    if (found := re.match(r"([^@/#]+)@(?!sha256:)(.+)", text)) and _USER.fullmatch(found[1]):
        user, text = found[1], found[2]
    elif found and ":" in found[1]:
        raise BadInput(f"image …@{found[2]}: a password was given; it belongs into ~/.config/enroot/.credentials on the cluster")
    if "#" in text:
        host, _, text = text.partition("#")
    else:
        first, slash, rest = text.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        host, text = (first, rest) if is_host else (HUB, text)
    if host in (HUB, HUB_REGISTRY, "index.docker.io"):
        host = HUB
    if not _HOST.fullmatch(host):
        raise BadInput(f"image {reference!r}: {host!r} is no registry: HOST or HOST:PORT was expected before the name")
    name, tag, digest = _split(reference, text)
    if host == HUB and "/" not in name:
        name = f"library/{name}"
    return Image(reference, "registry", host, name, tag or ("" if digest else "latest"), digest, user)


def _split(reference: str, text: str) -> tuple[str, str, str | None]:
    """Name, tag and digest. Raises BadInput, by part."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise BadInput(f"image {reference!r}: {digest!r} is no digest: sha256: and 64 hex digits were expected after @")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    name = head + slash + last
    if not _NAME.fullmatch(name):
        hint = "; names have lower-case letters only" if _NAME.fullmatch(name.lower()) else ""
        raise BadInput(f"image {reference!r}: {name!r} is no image name: [HOST/]NAME:TAG was expected{hint}")
    if colon and not _TAG.fullmatch(tag):
        raise BadInput(f"image {reference!r}: {tag!r} is no tag: letters, digits, and . _ - were expected after the colon")
    return name, tag, digest or None


# ---- What a run uses -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """One image, what uses it, and the config key that names it."""

    reference: str
    user: str
    key: tuple[str | int, ...]


def uses(config: Mapping[str, Any], wandb_mode: str = "online") -> Iterator[Use]:
    """Every use of a container image in a run of this config. A process uses none, and an export that is made from here neither."""
    execution = config["execution"]
    if execution["type"] == "process":
        return
    if config["deployment"]["type"] != "none" and config["deployment"].get("image"):
        yield Use(str(config["deployment"]["image"]), "deployment", ("deployment", "image"))
    for index, entry in enumerate(config["evaluation"]["tasks"]):
        if image := of_task(config, entry):
            yield Use(image, f"task {entry['name']}", ("evaluation", "tasks", index, "container"))
    listed = config.get("auxiliary_deployments") or {}
    auxiliary = {name: one for name, one in listed.items() if (one or {}).get("type", "none") != "none"}
    for name, one in auxiliary.items():
        if one.get("image"):
            yield Use(str(one["image"]), f"auxiliary deployment {name}", ("auxiliary_deployments", name, "image"))
    # HAProxy stands before several instances, of the model or of an auxiliary deployment.
    if execution["type"] == "slurm" and any((one.get("num_instances") or 1) > 1 for one in [execution, *auxiliary.values()]):
        yield Use(str((execution.get("proxy") or {}).get("image") or PROXY_IMAGE), "proxy", ("execution", "proxy", "image"))
    if execution["type"] == "slurm" and auto_export.by_launcher(config, wandb_mode, auto_export.WandbExport.ONE_JOB_A_TASK):
        export = execution["auto_export"]
        image = str((export.get("export_image") if isinstance(export, dict) else None) or EXPORT_IMAGE)
        yield Use(image, "auto-export", ("execution", "auto_export", "export_image"))


def of_task(config: Mapping[str, Any], entry: Mapping[str, Any]) -> str | None:
    """The image that a task runs in: its own, or the catalogue's; None for a process."""
    if config["execution"]["type"] == "process":
        return None
    return entry.get("container") or tasks.define(dict(entry)).container


def users(config: Mapping[str, Any], wandb_mode: str = "online") -> dict[str, list[str]]:
    """Every image of a run, with what uses it."""
    found: dict[str, list[str]] = {}
    for use in uses(config, wandb_mode):
        found.setdefault(use.reference, []).append(use.user)
    return found


def put_paths(data: dict[str, Any], paths: Mapping[str, str]) -> None:
    """Put into a config the .sqsh path of each image that has one, by reference."""
    for use in list(uses(data)):
        if use.reference in paths:
            node: Any = data
            for part in use.key[:-1]:
                if isinstance(node, dict) and node.get(part) is None:
                    node[part] = {}  # the launcher's own image, which the config does not name
                node = node[part]
            node[use.key[-1]] = paths[use.reference]


# ---- Platforms and files -------------------------------------------------------------------------------------------------------------


def platform_of(machine: str) -> str:
    """`linux/amd64` of `x86_64`."""
    return f"linux/{ARCHITECTURES.get(machine, machine)}"


def pick(index: str, platform: str) -> tuple[str | None, list[str]]:
    """The digest that an image index (its JSON) has for a platform, and the platforms it has. Attestations, `unknown/unknown`, are none.

    Raises ValueError for text that is no index.
    """
    listed = json.loads(index)["manifests"]
    found: dict[str, str] = {}
    for one in listed:
        of = one.get("platform") or {}
        name = f"{of.get('os', 'linux')}/{of.get('architecture', 'unknown')}"
        if not name.endswith("/unknown"):
            found.setdefault(name, str(one["digest"]))
    return found.get(platform), sorted(found)


def key_of(image: Image, platform: str, digest: str | None, stamp: str = "") -> str:
    """What an image is known by: its digest for the platform; else its reference, the platform, and for an archive its size and time."""
    return digest or f"{image.canonical} {platform} {stamp}".rstrip()


def short_key(key: str) -> str:
    """12 hex digits of the key: in file names, and in the name of the import's lock."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def stem(image: Image, key: str) -> str:
    """The file's name without .sqsh: `nemo-25.11-1f2e3d4c5b6a`. The digits make `a.b:1` and `a-b:1` two files."""
    return f"{image.readable}-{short_key(key)}"
