"""Making room in a cluster's cache of squashed images: what no run here uses, what a moved tag or a forced import left behind."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import console, files, run_folder
from helpers.common.errors import BadInput, EvalmakeError, StepFailed, one_line
from helpers.config import clusters
from helpers.executors import registry
from helpers.images import cache, importing
from helpers.steps import squash_images

DAY = 86400


@dataclass(frozen=True)
class Removable:
    """Something that could go: its path on the cluster, its bytes, its age in seconds, and why it could go."""

    path: str
    bytes: int
    age: float
    why: str


def clean(profile_name: str | None, yes: bool) -> None:
    """List what could go from the cache of a profile's cluster, ask, and remove it. `yes`: without asking.

    Raises BadInput for a profile without a remote_job_dir, or when there is nobody to ask; StepFailed for what cannot be removed.
    """
    config = clusters.config_of_profile(profile_name, registry)
    job_dir = str(config["run"]["env"].get("remote_job_dir") or "").rstrip("/")
    if not job_dir:
        raise BadInput(f"PROFILE={profile_name} has no remote_job_dir: there is no cache")
    cluster = clusters.of_config(config)
    found = _look(cluster, job_dir)
    if not found:
        console.done(f"nothing to remove in {job_dir}/containers on {cluster}: runs here use what is there")
        return
    rows: list[list[str | console.Cell]] = []
    for one in found:
        rows.append([one.path, importing.size(one.bytes), f"{one.age / DAY:.1f}", one.why])
    console.print_table(f"Could go from {cluster}", ["file", "size", "days old", "why"], rows, right=("size", "days old"))
    total = importing.size(sum(one.bytes for one in found))
    console.notice("runs of other people and of other checkouts are not seen from here: those who share the folder may use them")
    if not yes and not _agrees(f"Remove all {len(found)}, {total}? [y/N] "):
        console.say("nothing was removed")
        return
    # A run may have begun to use one since it was listed.
    still = {one.path for one in _look(cluster, job_dir)}
    found = [one for one in found if one.path in still]
    paths = [one.path for one in found]
    paths += [path.removesuffix(".sqsh") + ".json" for path in paths if path.endswith(".sqsh")]
    # The sidecar first: without it an image is none, so that nobody takes a file that is about to go.
    paths.sort(key=lambda path: not path.endswith(".json"))
    if kept := cache.remove(cluster, job_dir, paths):
        raise StepFailed(f"{len(kept)} could not be removed: {one_line(kept[0])}; have them removed by their owner")
    console.done(f"removed {len(found)}, {importing.size(sum(one.bytes for one in found))}")


def _look(cluster: Cluster, job_dir: str) -> list[Removable]:
    """What could go now, the largest first."""
    return sorted(removable(cache.listing(cluster, job_dir), *used_here()), key=lambda one: -one.bytes)


def _agrees(question: str) -> bool:
    """Whether the person at the terminal says yes. Raises BadInput when there is none."""
    if not sys.stdin.isatty():
        raise BadInput("nothing was removed: there is no terminal to ask on; YES=1 removes what is listed")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def used_here(runs: Path = run_folder.RUNS) -> tuple[set[str], set[str]]:
    """The .sqsh paths that runs here use, by their images.json: all of them, and those of runs that have not ended."""
    all_paths, alive = set(), set()
    for name in run_folder.all_ids(runs):
        path = runs / name / "images.json"
        if run_folder.is_at_work(runs / name, squash_images.STEP):
            raise StepFailed(f"RUN={name} is bringing its images just now, and which is not recorded yet; when it has, the same command")
        if not path.exists():
            continue
        try:
            rows = files.read_json(path, "images")["images"]
        except EvalmakeError as error:
            raise StepFailed(f"what a run uses cannot be told ({error}); nothing was removed") from error
        paths = {row["path"] for row in rows if row["path"]}
        all_paths |= paths
        if not (runs / name / "results.json").exists():
            alive |= paths
    return all_paths, alive


def removable(frames: list[Frame], used: set[str], alive: set[str]) -> Iterator[Removable]:
    """What could go, out of the answer of clean_images.sh. What is being imported stays, and what runs use that have not ended."""
    now = time.time()
    locked = {frame.text.removesuffix(".lock") for frame in frames if frame.kind == "lock"}
    stored = {kept.path: kept for kept in cache.sidecars(frames)}
    newest: dict[tuple[str, str], str] = {}
    for kept in stored.values():
        same = (str(kept.sidecar["canonical"]), str(kept.sidecar["platform"]))
        newest[same] = max(newest.get(same, ""), str(kept.sidecar["at"]))
    for frame in frames:
        if frame.kind == "left":
            kilobytes, changed, path = frame.text.split(" ", 2)
            # What is at work touches its layers; a failed import's log may still be wanted today.
            if now - int(changed) > DAY or (not locked and ".layers-" in path):
                why = "layers that enroot keeps for the next import" if ".layers-" in path else "what a failed import left"
                yield Removable(path, int(kilobytes) * 1024, now - int(changed), why)
        if frame.kind != "file":
            continue
        size, changed, path = frame.text.split(" ", 2)
        stem, replaced, _ = path.removesuffix(".sqsh").partition(".replaced-")
        if stem[-12:] in locked or f"{stem}.sqsh" in alive:
            continue
        age, bytes_ = now - int(changed), int(size)
        if replaced:
            yield Removable(path, bytes_, age, "a forced import replaced it")
        elif path not in stored:
            if re.search(r"-[0-9a-f]{12}$", stem):  # others are somebody's own
                yield Removable(path, bytes_, age, "it has no sidecar that fits")
        elif stored[path].sidecar["at"] < newest[str(stored[path].sidecar["canonical"]), str(stored[path].sidecar["platform"])]:
            yield Removable(path, bytes_, age, f"{stored[path].sidecar['canonical']} is another image now")
        elif path not in used:
            yield Removable(path, bytes_, age, "no run here uses it")
