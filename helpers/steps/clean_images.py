"""Making room in a cluster's cache of squashed images: images that no run here uses, replaced ones, and what failed imports left."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import console, files, flags, run_folder, step
from helpers.common.console import counted
from helpers.common.errors import BadInput, EvalmakeError, StepFailed, one_line
from helpers.config import clusters
from helpers.executors import registry
from helpers.images import cache, importing

DAY = 86400


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be removed: its path on the cluster, its bytes, its age in seconds, and why it is not needed."""

    path: str
    bytes: int
    age: float
    why: str


def clean(profile_name: str | None, yes: bool) -> None:
    """List what can be removed from the cache of a profile's cluster, ask, and remove it; with `yes` without asking.

    Raises BadInput for a profile without a remote_job_dir and when there is no terminal to ask on, StepFailed when something cannot be
    removed or a run is just choosing its images, Unreachable.
    """
    config = clusters.config_of_profile(profile_name, registry)
    job_dir = str(config["run"]["env"].get("remote_job_dir") or "").rstrip("/")
    if not job_dir:
        raise BadInput(f"PROFILE={profile_name} has no remote_job_dir, so it has no image cache")
    cluster = clusters.of_config(config)
    found = _look(cluster, job_dir)
    if not found:
        console.done(f"nothing to remove from {job_dir}/containers on {cluster}")
        return
    rows: list[list[str | console.Cell]] = [[one.path, importing.size(one.bytes), f"{one.age / DAY:.1f}", one.why] for one in found]
    console.print_table(f"Not needed on {cluster}", ["file", "size", "days old", "why"], rows, right=("size", "days old"))
    total = importing.size(sum(one.bytes for one in found))
    console.notice("runs of other people and of other checkouts are not known here; if they share this folder, they may use these files")
    if not yes and not _agrees(f"Remove {counted(len(found), 'file')}, {total}? [y/N] "):
        console.say("nothing was removed")
        return
    # A run may have started to use one of them since.
    still = {one.path for one in _look(cluster, job_dir)}
    found = [one for one in found if one.path in still]
    paths = [one.path for one in found]
    paths += [path.removesuffix(".sqsh") + ".json" for path in paths if path.endswith(".sqsh")]
    # Sidecars first: without one an image does not count, so nobody takes a file that is about to be removed.
    paths.sort(key=lambda path: not path.endswith(".json"))
    if kept := cache.remove(cluster, job_dir, paths):
        raise StepFailed(f"{counted(len(kept), 'file')} could not be removed: {one_line(kept[0])}; ask the owner to remove them")
    console.done(f"removed {counted(len(found), 'file')}, {importing.size(sum(one.bytes for one in found))}")


def _look(cluster: Cluster, job_dir: str) -> list[Removable]:
    return sorted(removable(cache.listing(cluster, job_dir), *used_here()), key=lambda one: -one.bytes)


def _agrees(question: str) -> bool:
    """Whether the person at the terminal answers yes. Raises BadInput when there is no terminal."""
    if not sys.stdin.isatty():
        raise BadInput("nothing was removed: there is no terminal to ask on; YES=1 removes without asking")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in flags.YES


def used_here(runs: Path = run_folder.RUNS) -> tuple[set[str], set[str]]:
    """The .sqsh paths that runs here use, from their images.json: those of all runs, and those of runs that have not ended.

    Raises StepFailed when a run is choosing its images just now, and when an images.json cannot be read.
    """
    all_paths, alive = set(), set()
    for name in run_folder.all_ids(runs):
        path = runs / name / "images.json"
        at_work = step.is_at_work(runs / name)  # before the next line: a step that has ended has written its images.json
        if not path.exists():
            if at_work:  # it may be about to use any image of the cache
                raise StepFailed(f"RUN={name} may still be importing images; nothing was removed; try again when it has finished")
            continue
        try:
            rows = files.read_json(path, "images")["images"]
        except EvalmakeError as error:
            raise StepFailed(f"cannot tell which images a run uses: {error}; nothing was removed") from error
        paths = {row["path"] for row in rows if row["path"]}
        all_paths |= paths
        if not (runs / name / "results.json").exists():
            alive |= paths
    return all_paths, alive


def removable(frames: list[Frame], used: set[str], alive: set[str]) -> Iterator[Removable]:
    """What can be removed, from the answer of clean_images.sh: not what is being imported, and not images of unfinished runs."""
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
            # A running import touches its layers; the log of a failed one may still be wanted today.
            if now - int(changed) > DAY or (not locked and ".layers-" in path):
                why = "layers that enroot keeps for the next import" if ".layers-" in path else "left by a failed import"
                yield Removable(path, int(kilobytes) * 1024, now - int(changed), why)
        if frame.kind != "file":
            continue
        size, changed, path = frame.text.split(" ", 2)
        stem, replaced, _ = path.removesuffix(".sqsh").partition(".replaced-")
        if stem[-12:] in locked or f"{stem}.sqsh" in alive:
            continue
        age, bytes_ = now - int(changed), int(size)
        if replaced:
            yield Removable(path, bytes_, age, "replaced by a forced import")
        elif path not in stored:
            if re.search(r"-[0-9a-f]{12}$", stem):  # another name is somebody's own file
                yield Removable(path, bytes_, age, "no sidecar that fits it")
        elif stored[path].sidecar["at"] < newest[str(stored[path].sidecar["canonical"]), str(stored[path].sidecar["platform"])]:
            yield Removable(path, bytes_, age, f"{stored[path].sidecar['canonical']} is a newer image now")
        elif path not in used:
            yield Removable(path, bytes_, age, "no run here uses it")
