"""A Docker daemon of the tests' own, with the toy image of the test cluster; stopped by its pid. It needs root and `make test-deps`.

It has a network of its own: on this machine's it would forbid forwarding, which the nodes of the test cluster need, and take a bridge's
name and ports. So what talks to its containers is started in that network.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkout import ROOT

IMAGE = "localhost:9/evalmake/toy:1"  # the launcher asks its registry for tasks: nobody listens there


@dataclass(frozen=True)
class Daemon:
    """A daemon by its folder and pid; `host` is for DOCKER_HOST."""

    folder: Path
    pid: int

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command starts with to run in the daemon's network, where the ports of its containers are."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"unix://{self.folder}/docker.sock"

    def docker(self, *arguments: str, check: bool = True) -> str:
        """What a docker command prints."""
        environ = {**os.environ, "DOCKER_HOST": self.host}
        done = subprocess.run(["docker", *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def containers(self, *, running: bool = False) -> list[str]:
        """The names of its containers, also of those that have ended unless `running`."""
        return self.docker("ps", *([] if running else ["--all"]), "--format={{.Names}}").split()


@contextlib.contextmanager
def daemon(folder: Path, *, gpus: bool = True) -> Iterator[Daemon]:
    """Start a daemon in an empty folder, whose path is short. With `gpus` it takes `--gpus all`, which it does for a hook of this name.

    All that it writes is in memory, and gone with it: to remove the files of an image takes up to 13 s on a busy disk.
    """
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    (folder / "bin").mkdir()
    hook = folder / "bin/nvidia-container-runtime-hook"
    if gpus:
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
    options = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--host=unix://{folder}/docker.sock", f"--pidfile={folder}/pid"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec dockerd "$@"', "sh", *options],
            env={**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ours = Daemon(folder, process.pid)
    try:
        deadline = time.monotonic() + 30
        while not ours.docker("version", "--format={{.Server.Version}}", check=False):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(0.05)
        yield ours
        if left := ours.docker("ps", "--all", "--quiet").split():
            ours.docker("rm", "--force", *left)
    finally:
        process.terminate()
        process.wait(30)
        subprocess.run(["umount", "--lazy", folder], check=True)


def load_image(ours: Daemon) -> None:
    """Load the toy image, which is built first unless it was."""
    built = subprocess.run(["bash", ROOT / "tests/cluster/image.sh"], capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr
    source, target = f"oci:{built.stdout.strip()}/toy.oci:image", f"docker-daemon:{IMAGE}"
    subprocess.run(["skopeo", "copy", "--quiet", f"--dest-daemon-host={ours.host}", source, target], check=True, timeout=120)
