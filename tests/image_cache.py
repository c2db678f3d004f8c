"""Helpers for tests of images: asking a cache folder, bringing images into it, and images and credentials that lie there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.images import cache, squashing
from helpers.images import references as images
from helpers.images.cache import Lookup, Store

HERE = Cluster("here", tunnel="local")
HOST = "registry.example"
MODEL = f"{HOST}/team/model:1"
USER, PASSWORD = "reader", "s3cret"


def config_for(job_dir: Path) -> dict[str, Any]:
    """What a compiled config says of its cluster's cache."""
    return {"execution": {"account": "acc", "partition": "batch"}, "run": {"env": {"remote_job_dir": str(job_dir)}}}


def bring(job_dir: Path, *references: str, force: bool = False, at_once: int = 4) -> list[dict[str, Any]]:
    """The rows of images.json."""
    wanted = [images.parse(reference) for reference in references or (MODEL,)]
    _, found = squashing.squash(HERE, config_for(job_dir), wanted, force, at_once)
    return [found[image.reference] for image in wanted]


def left_over(job_dir: Path) -> list[str]:
    """What lies in the cache, but for the layers that enroot keeps."""
    return sorted(path.name for path in (job_dir / "containers").iterdir() if not path.name.startswith(".layers-"))


def ask_all(job_dir: Path, *references: str, make: bool = True) -> tuple[Store, list[Lookup]]:
    return cache.ask(HERE, str(job_dir), "batch", [images.parse(reference) for reference in references], make)


def ask(job_dir: Path, reference: str = MODEL) -> Lookup:
    return ask_all(job_dir, reference)[1][0]


def credentials(tmp_path: Path, *hosts: str, password: str = PASSWORD) -> Path:
    """~/.config/enroot/.credentials on the cluster, with a line per host."""
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
    fields.setdefault("key", images.short_key(Lookup(image, fields["digest"]).key(fields["platform"])))
    path = folder / f"{image.readable}-{fields['key']}.sqsh"
    path.write_text("hsqs!")
    path.with_suffix(".json").write_text(json.dumps(fields, indent=2))
    return path
