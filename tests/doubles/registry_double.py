"""A double of container registries for tests without a cluster, for answers that the real one of tests/cluster cannot be made to give.

One HTTPS server stands in for any number of hosts, distinguished by the Host header: tokens given by another host, Basic, refusals, a rate
limit, errors, redirects, image indexes, answers without a digest, slowness. It holds only manifests: nothing is ever pulled from it. Its
certificate is its own authority, for curl (a .curlrc, which sends every host here) and for Python (SSL_CERT_FILE).
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# The hosts that its certificate is for.
HOSTS = ("localhost", "nvcr.io", "authn.nvidia.com", "registry-1.docker.io", "auth.docker.io", "registry.example", "tokens.example")


def digest_of(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def index_of(*platforms: str) -> bytes:
    """An image index: an image for each platform, the digest of each a hash of the platform's name."""
    pairs = [(one, *one.split("/")) for one in platforms]
    entries = [{"digest": digest_of(one.encode()), "platform": {"os": os, "architecture": machine}} for one, os, machine in pairs]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


@dataclass
class Call:
    """A request: method, host and path, with the user of Basic or the token of Bearer."""

    method: str
    host: str
    path: str
    user: str = ""
    token: str = ""


@dataclass
class Rule:
    """How a host answers for manifests. `auth`: Bearer or Basic; `realm`: the address that gives tokens; `fails`: statuses by method."""

    auth: str = ""
    realm: str = ""
    accounts: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    fails: dict[str, int] = field(default_factory=dict)
    seconds: float = 0
    redirect: str = ""  # where it sends authorized requests: https://HOST[:PORT]
    tells_digest: bool = True


class RegistryDouble:
    """The double as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.rules: dict[str, Rule] = {}
        self.calls: list[Call] = []
        self.certificate = folder / "registry.pem"
        names = ",".join([*(f"DNS:{name}" for name in HOSTS), "IP:127.0.0.1"])
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder / "registry.key"]
        options = ["-days", "2", "-subj", "/CN=double", "-addext", f"subjectAltName={names}"]
        subprocess.run(["openssl", "req", "-x509", *key, *options, "-out", self.certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, folder / "registry.key")
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": self}))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        """HOST:PORT for clients that resolve names as usual."""
        return f"localhost:{self.port}"

    def curlrc(self, port: int | None = None) -> str:
        """A .curlrc that sends every host to the double, or to another port of this machine."""
        return f'cacert = "{self.certificate}"\nconnect-to = "::127.0.0.1:{self.port if port is None else port}"\n'

    def put(self, name: str, tag: str, body: bytes = b"", type_: str = MANIFEST) -> str:
        """Store a manifest under a tag and under its digest; returns the digest."""
        body = body or json.dumps({"name": name, "tag": tag}).encode()
        for reference in (tag, digest_of(body)):
            self.manifests[name, reference] = (type_, body)
        return digest_of(body)

    def rule(self, host: str = "registry.example", **more: Any) -> Rule:
        """Set how a host answers from now on; returns the rule."""
        self.rules[host] = Rule(**more)
        return self.rules[host]

    def asked(self, method: str = "") -> list[str]:
        """HOST/PATH of each call for a manifest."""
        return [f"{call.host}{call.path}" for call in self.calls if "/manifests/" in call.path and method in ("", call.method)]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that hung up or rejects the certificate: tests look at what the client reports."""


class _Handler(BaseHTTPRequestHandler):
    double: ClassVar[RegistryDouble]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name for it
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        host = self.headers.get("Host", "").partition(":")[0]
        kind, _, secret = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(secret).decode().partition(":") if kind == "Basic" else ("", "", "")
        call = Call(self.command, host, self.path, user, secret if kind == "Bearer" else "")
        self.double.calls.append(call)
        if "/manifests/" not in self.path:
            self._token(user, password)
            return
        rule = self.double.rules.get(host, Rule())
        time.sleep(rule.seconds)
        if rule.auth == "Bearer" and not call.token.startswith("token-of-"):
            scope = f"repository:{self.path.split('/manifests/')[0].removeprefix('/v2/')}:pull"
            self._send(401, b"", **{"WWW-Authenticate": f'Bearer realm="{rule.realm}",service="{host}",scope="{scope}"'})
        elif rule.auth == "Basic" and (not user or rule.accounts.get(user) != password):
            self._send(401, b"", **{"WWW-Authenticate": 'Basic realm="Registry"'})
        elif rule.redirect:
            self._send(307, b"", Location=rule.redirect + self.path)
        elif status := rule.fails.get(self.command):
            self._send(status, b"no")
        else:
            self._manifest(rule)

    def _token(self, user: str, password: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        rule = self.double.rules.get(query.get("service", [""])[0], Rule())
        if "scope" in query and (rule.accounts.get(user) == password if user else rule.anonymous):
            self._send(200, json.dumps({"token": f"token-of-{user or 'nobody'}"}).encode(), **{"Content-Type": "application/json"})
        else:
            self._send(401, b"no")

    def _manifest(self, rule: Rule) -> None:
        name, _, reference = self.path.removeprefix("/v2/").partition("/manifests/")
        found = self.double.manifests.get((name, reference))
        if not found or found[0] not in self.headers.get("Accept", ""):
            self._send(404, b"MANIFEST_UNKNOWN")
            return
        headers = {"Docker-Content-Digest": digest_of(found[1])} if rule.tells_digest else {}
        self._send(200, found[1], **{"Content-Type": found[0], **headers})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
