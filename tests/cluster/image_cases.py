"""Images on the test cluster: variants of its tiny image in its registries, a cache folder of one's own, and squash_image.py at work."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkout import ROOT
from cluster.testbed import Bed, until

SCRIPT = ROOT / "scripts" / "squash_image.py"


def settings(bed: Bed) -> tuple[int, str]:
    """The first of the bed's ports, and the address of its login node."""
    lines = dict(line.split("=", 1) for line in (bed.folder / "etc/settings").read_text().split())
    return int(lines["port"]), f"{lines['subnet']}.1"


def registry(bed: Bed) -> str:
    """HOST:PORT of the bed's registry."""
    port, login = settings(bed)
    return f"{login}:{port + 1}"


def push(bed: Bed, folder: Path, name: str, mark: str, megabytes: int = 0, to: str = "", login: str = "") -> str:
    """A variant of the tiny image, told apart by `mark` and so large, as NAME:TAG in a registry; its whole reference."""
    target = f"{to or registry(bed)}/{name}"
    layout = folder / f"oci-{mark}"
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry(bed)}/evalmake/tiny:1", f"oci:{layout}:x")
    if megabytes:
        extra = folder / f"extra-{mark}"
        extra.write_bytes(os.urandom(megabytes << 20))
        run("umoci", "insert", "--image", f"{layout}:x", str(extra), f"/{mark}")
    run("umoci", "config", "--image", f"{layout}:x", "--config.env", f"MARK={mark}")
    credentials = [f"--dest-creds={login}"] if login else []
    run("skopeo", "copy", "-q", "-f", "v2s2", "--dest-tls-verify=false", *credentials, f"oci:{layout}:x", f"docker://{target}")
    return target


def run(*argv: str, **more: Any) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Images:
    """A cache of squashed images on the cluster, for one test: its remote_job_dir, and the profile that names it."""

    bed: Bed
    folder: Path
    job_dir: str
    fields: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """The cache folder, as this machine sees it too."""
        return Path(self.job_dir) / "containers"

    def env(self) -> dict[str, str]:
        """The client's environment, with an env.toml of the test's own."""
        path = self.folder / "env.toml"
        fields = {
            "executor": "slurm", "account": "research", "partition": "batch", "host": self.bed.alias, "user": "root", "time": "00:10:00",
            "remote_job_dir": self.job_dir, **self.fields,
        }  # fmt: skip
        path.write_text("[CLUSTER]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
        return {**self.bed.env(), "EVALMAKE_ENV_FILE": str(path), "BED_SSH_LOG": str(self.folder / "ssh.log"), **self.environment}

    def argv(self, reference: str, *words: str) -> list[str]:
        """squash_image.py on one reference."""
        return [sys.executable, str(SCRIPT), f"--reference={reference}", "--profile=CLUSTER", *words]

    def squash(self, reference: str, *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
        """The row of images.json for it (nothing when it fails), and what was said."""
        done = subprocess.run(
            self.argv(reference, *words), env=self.env(), capture_output=True, text=True, check=False, timeout=200, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return (json.loads(done.stdout)["images"][0] if not code else {}), done.stderr

    @contextmanager
    def at_work(self, reference: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """squash_image.py at work, in a session of its own; killed at the end."""
        process = subprocess.Popen(
            self.argv(reference, *words), env=self.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def files(self) -> list[str]:
        """What lies in the cache folder: finished images, and everything that should not be there any more."""
        names = [path.name for path in self.cache.iterdir()] if self.cache.exists() else []
        return sorted(name for name in names if not name.startswith((".layers-", ".done.")))

    def under_way(self, point: str = "") -> str:
        """The job of an import that is at work now, once its log has got to a point."""

        def job() -> str:
            for path in self.cache.glob(".*.lock/*/id"):
                log = path.with_name("log")
                if path.with_name("beat").exists() and (not point or (log.exists() and point in log.read_text())):
                    return path.read_text().strip()
            return ""

        return until(job, 30)

    def jobs(self) -> list[str]:
        """The ids of all import jobs of this cache's images that there were: accounting's, and squeue's, which knows the newest."""
        listed = self.bed.slurm("sacct", "-X", "-P", "-n", "-a", "-S", "now-1days", "-o", "jobidraw,workdir").splitlines()
        listed += self.bed.slurm("squeue", "-h", "--states=all", "-o", "%i|%Z").splitlines()
        return sorted({line.partition("|")[0] for line in listed if f"{self.job_dir}/" in line})


def until_said(process: subprocess.Popen[str], words: str) -> str:
    """The line of a command at work, on stderr, that holds these words."""
    assert process.stderr
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return line
    raise AssertionError(f"it ended without {words!r}: {''.join(said)}")


def wait_until_free(bed: Bed) -> None:
    """No job is in the queue."""
    until(lambda: not bed.slurm("squeue", "-h", "-o", "%i"), 30)
    time.sleep(0.1)


@contextmanager
def far_registry(bed: Bed, seconds: float) -> Iterator[str]:
    """The bed's registry from far away: HOST:PORT of a relay that holds each call for so many seconds, as many at a time as there are."""
    target = registry(bed)

    class Relay(http.server.BaseHTTPRequestHandler):
        def _relay(self) -> None:
            time.sleep(seconds)
            connection = http.client.HTTPConnection(target, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request(self.command, self.path, headers={**headers, "Host": target})
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            while data := answer.read(1 << 16):
                self.wfile.write(data)
            connection.close()

        do_GET = do_HEAD = _relay  # noqa: N815  the names that http.server calls

        def log_message(self, *_: object) -> None:
            """No line per call."""

    with http.server.ThreadingHTTPServer((settings(bed)[1], 0), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"{settings(bed)[1]}:{server.server_port}"
        finally:
            server.shutdown()
