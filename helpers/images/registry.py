"""Asking a container registry for a digest from this machine, for clusters that cannot reach it (registry.sh)."""

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

from helpers.common import http_client
from helpers.images.references import HUB_REGISTRY, Image

SECONDS = 15
AT_ONCE = 8
INDEXES = ("application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json")
ACCEPT = ", ".join((*INDEXES, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"))


@dataclass(frozen=True)
class Reply:
    """A registry's reply about an image.

    `status`: of HTTP, 0 for no answer; `digest` and `type`: of what the tag names; `index`: its text, where the tag names an index;
    `realm`: the host that gives tokens; `host_line`, `realm_line`: whether the credentials that were read have a line for the registry
    and for the realm; `words`: why there is no answer; `here`: whether this machine asked, instead of the cluster.
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


def ask(images: list[Image]) -> list[Reply]:
    """The answers about these images, in their order: all asked at once, with the credentials of `docker login`."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_ask, images))


def _ask(image: Image) -> Reply:
    """HEAD first: registries that limit pulls count a GET as one."""
    url = f"https://{image.registry}/v2/{image.name}/manifests/{image.digest or image.tag}"
    headers = {"Accept": ACCEPT}
    try:
        answer = http_client.request("HEAD", url, SECONDS, follow_redirects=True, headers=headers)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code == HTTPStatus.UNAUTHORIZED and challenge:
            headers |= _authorization(image, challenge)
            answer = http_client.request("HEAD", url, SECONDS, follow_redirects=True, headers=headers)
        status, digest = answer.status_code, answer.headers.get("Docker-Content-Digest", "")
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        index = None
        if status == HTTPStatus.OK and (not digest or kind in INDEXES):
            answer = http_client.request("GET", url, SECONDS, follow_redirects=True, headers=headers)
            status, digest = answer.status_code, digest or "sha256:" + hashlib.sha256(answer.content).hexdigest()
            index = answer.content.decode("utf-8", "replace") if kind in INDEXES else None
        return Reply(status, digest, kind, index=index, here=True)
    except (http_client.NoAnswer, ValueError) as error:
        return Reply(0, words=str(error), here=True)


def _authorization(image: Image, challenge: str) -> dict[str, str]:
    """The header that answers a 401: what `docker login` stored, or a token that the realm gives for it (or to anybody)."""
    stored = _stored(image.host) or _stored(image.registry)
    basic = {"Authorization": f"Basic {stored}"} if stored else {}
    parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if challenge.lower().startswith("basic") or not parts.get("realm", "").startswith("https://"):
        return basic
    query = urlencode({name: parts[name] for name in ("service", "scope") if name in parts})
    joint = "&" if "?" in parts["realm"] else "?"
    answer = http_client.request("GET", f"{parts['realm']}{joint}{query}", SECONDS, follow_redirects=True, headers=basic)
    if answer.status_code != HTTPStatus.OK:
        return {}
    given = answer.json()
    return {"Authorization": f"Bearer {given.get('token') or given.get('access_token')}"}


def _stored(host: str) -> str | None:
    """user:password in base64, from ~/.docker/config.json or the credential helper it names; None when it has nothing for the host."""
    names = [host, f"https://{host}"] + (["https://index.docker.io/v1/"] if host in ("docker.io", HUB_REGISTRY) else [])
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        config = json.loads(path.read_text(encoding="utf-8"))
        for name in names:
            if auth := config.get("auths", {}).get(name, {}).get("auth"):
                return str(auth)
            helper = config.get("credHelpers", {}).get(name) or config.get("credsStore")
            if helper and (given := _from_helper(str(helper), name)):
                return given
    return None


def _from_helper(helper: str, name: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        done = subprocess.run([f"docker-credential-{helper}", "get"], input=name, capture_output=True, text=True, timeout=10, check=False)
        given = json.loads(done.stdout)
        return base64.b64encode(f"{given['Username']}:{given['Secret']}".encode()).decode()
    return None
