"""images.json: every container image of a run, where its .sqsh file is on the cluster, and how it got there.

An image that is not in the cache yet is imported before the run is submitted, once for everyone who uses the cache. If that is impossible
(no cluster, no remote_job_dir, no nemo-run, no enroot), the reason is printed with what happens instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder
from helpers.common.errors import BadInput
from helpers.config import clusters
from helpers.credentials import gathering
from helpers.executors import registry
from helpers.images import cache, references, squashing
from helpers.images.squashing import INSTEAD, left

MADE_BY, STEP = "squash_image.py", "squash_image"
AT_ONCE = 4


def squash(config_path: str, out: str, force: bool, at_once: int = AT_ONCE) -> None:
    """Write images.json for a compiled config, after importing what the cluster's cache lacks. `force`: import everything again.

    Raises BadInput for an invalid reference, StepFailed for an import that failed, Unreachable.
    """
    config, seal, _ = files.read_yaml(config_path, "config")
    run = run_folder.run_of(out)
    if run and (run / "request.json").exists():
        force = force or files.read_json(run / "request.json", "request")["force_squash"]
    mode = gathering.recorded(config_path).get("mode", "online")
    # A submitted run keeps the images that it was submitted with; otherwise a missing image is imported again.
    is_submitted = run and (run / "submission.json").exists() and (run / "launcher.yaml").exists()
    made = restored(config, run / "launcher.yaml", mode) if run and is_submitted else plan(config, force, at_once, mode)
    document = {"made_by": MADE_BY, "made_from": {"config.yaml": seal}, **made}
    files.write_json(out, document, "images")


def users_of(config: Mapping[str, Any], wandb_mode: str) -> dict[str, list[str]]:
    """Every image of a run by its reference, with what uses it."""
    found: dict[str, list[str]] = {}
    for use in registry.get(config["execution"]["type"]).images(config, wandb_mode):
        found.setdefault(use.reference, []).append(use.user)
    return found


def obstacle(config: Mapping[str, Any]) -> str:
    """Why the images of a run are not squashed, with the fix; empty if they can be."""
    return registry.get(config["execution"]["type"]).squash_obstacle(config)


def restored(config: Mapping[str, Any], launcher_path: Path, wandb_mode: str) -> dict[str, Any]:
    """The content for a submitted run that has lost its images.json, from its launcher.yaml. Contacts nothing."""
    executor = registry.get(config["execution"]["type"])
    used = {use.key: use.reference for use in executor.images(files.read_yaml(launcher_path, "launcher")[0], wandb_mode)}
    users, rows, why = users_of(config, wandb_mode), {}, obstacle(config)
    for use in executor.images(config, wandb_mode):
        row = left(users[use.reference], references.parse(use.reference), why)
        if used.get(use.key, "").startswith("/") and used[use.key] != use.reference:
            row |= {"path": used[use.key], "state": "hit", "why": "images.json was lost: the path is from launcher.yaml"}
        rows[use.reference] = row
    return {"cluster": None, "folder": None, "images": list(rows.values())}


def plan(config: Mapping[str, Any], force: bool, at_once: int, wandb_mode: str = "online") -> dict[str, Any]:
    """cluster, folder and images of images.json, after everything was imported that can be."""
    users = users_of(config, wandb_mode)
    parsed = {reference: references.parse(reference) for reference in users}
    why, executor = obstacle(config), registry.get(config["execution"]["type"])
    images = [image for image in parsed.values() if image.kind != "file"]
    cluster = executor.cluster(config) if not why else None
    if not images or cluster is None:
        if images and executor.has_queue:
            console.notice(f"images are not squashed: {why}; {INSTEAD}")
        rows = [left(users[image.reference], image, why) for image in parsed.values()]
        return {"cluster": None, "folder": None, "images": rows}
    folder, squashed = squashing.squash(cluster, config, images, force, at_once)
    rows = [{**(squashed.get(one) or left([], image, "")), "users": users[one]} for one, image in parsed.items()]
    return {"cluster": str(cluster), "folder": folder, "images": rows}


def foresee(config: Mapping[str, Any], remote_too: bool, wandb_mode: str = "online") -> list[tuple[str, str, str]]:
    """What will happen to each image: the reference, what uses it, and a few words. `remote_too`: ask the cluster, without changing it.

    Otherwise it contacts nothing. Raises BadInput for an invalid reference, and with `remote_too` Unreachable.
    """
    users, why, words = users_of(config, wandb_mode), obstacle(config), {}
    parsed = [references.parse(reference) for reference in users]
    images = [image for image in parsed if image.kind != "file"]
    cluster = registry.get(config["execution"]["type"]).cluster(config) if not why else None
    if why:
        words = {image.reference: f"left: {why}" for image in images}
    elif remote_too and images and cluster:
        job_dir, partition = config["run"]["env"]["remote_job_dir"], str(config["execution"].get("partition") or "")
        _, lookups = cache.ask(cluster, job_dir, partition, images, make=False)
        for one in lookups:
            outcome = f"hit: {one.hit.path}" if one.hit else "will be imported"
            words[one.image.reference] = f"cannot be imported: {one.fatal}" if one.fatal and not one.hit else outcome
    elif images:
        folder = f"{config['run']['env']['remote_job_dir'].rstrip('/')}/containers"
        words = {image.reference: f"imported into {folder}, unless it is there already (REMOTE=1 asks)" for image in images}
    return [(image.reference, ", ".join(users[image.reference]), words.get(image.reference, "used as it is")) for image in parsed]


def paths_of(config_path: Path | str) -> dict[str, str]:
    """The .sqsh path of each image that has one, from the images.json beside a config.yaml; empty outside a run."""
    run = run_folder.run_of(config_path)
    if run is None or not (run / "images.json").exists():
        return {}
    return {row["reference"]: row["path"] for row in files.read_json(run / "images.json", "images")["images"] if row["path"]}


def by_hand(reference: str, profile_name: str | None, out: str, force: bool, at_once: int = AT_ONCE) -> None:
    """Get one image into the cache of a profile's cluster, and write images.json for it. Raises as `squash`."""
    image = references.parse(reference)
    if image.kind == "file":
        raise BadInput(f"{reference} is a path on the cluster: there is nothing to import")
    config = clusters.config_of_profile(profile_name, registry)
    if why := obstacle(config) or ("" if config["execution"].get("account") else "account is not set: a job needs one"):
        raise BadInput(f"{profile_name}: {why}")
    cluster = clusters.of_config(config)
    folder, squashed = squashing.squash(cluster, config, [image], force, at_once)
    rows = [{**row, "users": ["by hand"]} for row in squashed.values()]
    document = {"made_by": MADE_BY, "made_from": {}, "cluster": str(cluster), "folder": folder, "images": rows}
    files.write_json(out, document, "images")
    for row in rows:
        console.done(f"{row['reference']}: {row['state']}{', ' + row['path'] if row['path'] else ''}")
