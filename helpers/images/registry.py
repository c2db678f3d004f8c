"""Asking a containers registry for a digest from this machine, for clusters that cannot reach it (on_cluster/registry.sh)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.images.references import HUB_REGISTRY, Image

SECONDS = 15
INDEXES = ("application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json")
ACCEPT = ", ".join(
    (*INDEXES, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"),
)


@dataclass(frozen=True)
class Answer:
    """What a registry said of an image: its HTTP status (0: no answer), the digest of what the tag names, that content's type, the index
    where it is one and was brought, and words of trouble. `realm`: the host that gives tokens; the lines: whether the credentials that were
    read have one for the registry, and for the realm.
    """

    status: int
    digest: str = ""
    type: str = ""
    realm: str = ""
    host_line: bool = False
    realm_line: bool = False
    words: str = ""
    index: str | None = None
    here: bool = False

    @property
    def is_index(self) -> bool:
        """Whether the digest is of an index, which has one image a platform."""
        return "index" in self.type or "manifest.list" in self.type


def ask(images: list[Image]) -> list[Answer]:
    """What the registries say of these images, all asked at once, with the credentials of `docker login`."""
    if not images:
        return []
    with ThreadPoolExecutor(min(8, len(images))) as pool:
        return list(pool.map(_ask, images))


def _ask(image: Image) -> Answer:
    """HEAD first: a GET counts as a pull where pulls are counted."""
    url = f"https://{image.registry}/v2/{image.name}/manifests/{image.digest or image.tag}"
    headers = {"Accept": ACCEPT}
    try:
        status, answer, _ = _call("HEAD", url, headers)
        challenge = answer.get("www-authenticate", "")
        if status == 401 and challenge:  # noqa: PLR2004  HTTP's word for: say who you are
            headers |= _let_in(image, challenge)
            status, answer, _ = _call("HEAD", url, headers)
        digest, kind = answer.get("docker-content-digest", ""), answer.get("content-type", "").partition(";")[0]
        index = None
        if status == 200 and (not digest or kind in INDEXES):  # noqa: PLR2004  HTTP's OK
            status, _, body = _call("GET", url, headers)
            digest = digest or "sha256:" + hashlib.sha256(body).hexdigest()
            index = body.decode("utf-8", "replace") if kind in INDEXES else None
        return Answer(status, digest, kind, index=index, here=True)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(0, words=str(getattr(error, "reason", error)), here=True)


def _call(method: str, url: str, headers: dict[str, str]) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(url, method=method)  # noqa: S310  https, or what an https answer named
    for name, value in headers.items():
        # urllib would show what lets us in to every host that it is sent on to.
        (request.add_unredirected_header if name == "Authorization" else request.add_header)(name, value)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, b""


def _let_in(image: Image, challenge: str) -> dict[str, str]:
    """The header that answers a 401: what `docker login` stored, or a token that the realm gives for it (or for nobody)."""
    stored = _stored(image.host) or _stored(image.registry)
    basic = {"Authorization": f"Basic {stored}"} if stored else {}
    parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if challenge.lower().startswith("basic") or not parts.get("realm", "").startswith("https://"):
        return basic
    query = urllib.parse.urlencode({name: parts[name] for name in ("service", "scope") if name in parts})
    status, _, body = _call("GET", f"{parts['realm']}?{query}", basic)
    if status != 200:  # noqa: PLR2004
        return {}
    told = json.loads(body)
    return {"Authorization": f"Bearer {told.get('token') or told.get('access_token')}"}


def _stored(host: str) -> str | None:
    """user:password in base64, out of ~/.docker/config.json or the credential helper that it names; None where there is none."""
    names = [host, f"https://{host}"] + (["https://index.docker.io/v1/"] if host in ("docker.io", HUB_REGISTRY) else [])
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        config = json.loads(path.read_text(encoding="utf-8"))
        for name in names:
            if auth := config.get("auths", {}).get(name, {}).get("auth"):
                return str(auth)
            if helper := config.get("credHelpers", {}).get(name) or config.get("credsStore"):
                got = _from_helper(str(helper), name)
                if got:
                    return got
    return None


def _from_helper(helper: str, name: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        done = subprocess.run([f"docker-credential-{helper}", "get"], input=name, capture_output=True, text=True, timeout=10, check=False)
        told = json.loads(done.stdout)
        return base64.b64encode(f"{told['Username']}:{told['Secret']}".encode()).decode()
    return None
