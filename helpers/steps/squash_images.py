"""images.json: every container image of a run, where its .sqsh file lies on the cluster, and how it came there.

Each image that is not in the cache yet is imported there before the run is submitted, once for all who use the cache. What stands against
that (the run is none on Slurm, no remote_job_dir, no nemo-run, no enroot) is said by name, and what happens instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder
from helpers.common.errors import BadInput, StepFailed
from helpers.config import clusters
from helpers.credentials import gathering
from helpers.images import references
from helpers.images.references import Image

MADE_BY, STEP = "squash_image.py", "squash_image"
AT_ONCE = 4


def squash(config_path: str, out: str, force: bool, at_once: int = AT_ONCE) -> None:
    """Write images.json for a compiled config; on Slurm, every image is in the cache then. `force`: all are imported anew.

    Raises BadInput for a reference that is none, StepFailed for an import that failed, Unreachable.
    """
    config, seal, _ = files.read_yaml(config_path, "config")
    run = run_folder.run_of(out)
    if run and (run / "request.json").exists():
        force = force or files.read_json(run / "request.json", "request")["force_squash"]
    mode = gathering.recorded(config_path).get("mode", "online")
    # What was submitted is no matter of choice any more; for a run that was not, an image that is gone is imported again.
    is_submitted = run and (run / "submission.json").exists() and (run / "launcher.yaml").exists()
    made = retold(config, run / "launcher.yaml", mode) if run and is_submitted else plan(config, force, at_once, mode)
    document = {"made_by": MADE_BY, "made_from": {"config.yaml": seal}, **made}
    files.write_json(out, document, "images")


def retold(config: Mapping[str, Any], launcher_path: Path, wandb_mode: str) -> dict[str, Any]:
    """The same for a run whose images.json is gone: launcher.yaml was made from it, and is what is submitted. Contacts nothing."""
    used = {use.key: use.reference for use in references.uses(files.read_yaml(launcher_path, "launcher")[0])}
    users, rows = references.users(config, wandb_mode), {}
    why = unmet(config)
    for use in references.uses(config, wandb_mode):
        row = left(users[use.reference], references.parse(use.reference), why)
        if used.get(use.key, use.reference) != use.reference:
            row |= {"path": used[use.key], "state": "hit", "why": "images.json was gone: its path is launcher.yaml's"}
        rows[use.reference] = row
    return {"cluster": None, "folder": None, "images": list(rows.values())}


def plan(config: Mapping[str, Any], force: bool, at_once: int, wandb_mode: str = "online") -> dict[str, Any]:
    """cluster, folder and images, as images.json has them, after all was imported that can be."""
    users = references.users(config, wandb_mode)
    parsed = {reference: references.parse(reference) for reference in users}
    why = unmet(config)
    wanted = [image for image in parsed.values() if image.kind != "file"]
    if not wanted or why:
        if wanted and config["execution"]["type"] == "slurm":
            console.notice(f"images are not squashed: {why}; {INSTEAD}")
        rows = [left(users[image.reference], image, why) for image in parsed.values()]
        return {"cluster": None, "folder": None, "images": rows}
    from helpers.images import importing

    cluster = clusters.of_config(config)
    env = (config.get("run") or {}).get("env") or {}
    partition = str(config["execution"].get("partition") or "")
    found = bring(cluster, str(env["remote_job_dir"]), partition, wanted, importing.resources_of(config), force, at_once)
    rows = []
    for reference, image in parsed.items():
        row = found.rows.get(reference) or left([], image, "")
        rows.append({**row, "users": users[reference]})
    return {"cluster": str(cluster), "folder": found.folder, "images": rows}


def foresee(config: Mapping[str, Any], remote_too: bool, wandb_mode: str = "online") -> list[tuple[str, str, str]]:
    """What would become of each image: the reference, what uses it, and a few words. `remote_too`: the cluster is asked, and not changed.

    Without it nothing is contacted. Raises BadInput for a reference that is none, and with `remote_too` Unreachable.
    """
    users = references.users(config, wandb_mode)
    parsed = [references.parse(reference) for reference in users]
    why, words = unmet(config), {}
    wanted = [image for image in parsed if image.kind != "file"]
    if why:
        words = {image.reference: f"left: {why}" for image in wanted}
    elif remote_too and wanted:
        from helpers.images import cache as image_store

        job_dir, partition = config["run"]["env"]["remote_job_dir"], str(config["execution"].get("partition") or "")
        _, asked = image_store.ask(clusters.of_config(config), job_dir, partition, wanted, make=False)
        for one in asked:
            there = f"hit: {one.hit.path}" if one.hit else "will be imported"
            words[one.image.reference] = f"cannot be imported: {one.fatal}" if one.fatal and not one.hit else there
    elif wanted:
        cache = f"{config['run']['env']['remote_job_dir'].rstrip('/')}/containers"
        words = {image.reference: f"imported into {cache}, unless it is there (REMOTE=1 asks)" for image in wanted}
    return [(image.reference, ", ".join(users[image.reference]), words.get(image.reference, "used as it is")) for image in parsed]


INSTEAD = "each job pulls them from their registry (Pyxis does, where its nodes reach it)"


def unmet(config: Mapping[str, Any]) -> str:
    """What an import asks for and this config lacks, with its mend; empty when there is all. Contacts nothing."""
    execution, env = config["execution"], (config.get("run") or {}).get("env") or {}
    if execution["type"] == "local":
        return "execution.type local runs containers with Docker, which pulls them itself"
    if execution["type"] != "slurm":
        return f'execution.type {execution["type"]} uses no .sqsh files; executor = "slurm" in the profile does'
    if not execution.get("hostname"):
        return "host is not set: name the cluster's login node in the profile"
    if env.get("tunnel") not in (None, "ssh", "local"):
        return f'tunnel is {env["tunnel"]!r}: "ssh", or "local" on a login node, was expected'
    if not env.get("remote_job_dir"):
        return "remote_job_dir is not set: give the profile a folder on the cluster, which holds them in its folder containers"
    if not str(env["remote_job_dir"]).startswith("/"):
        return f"remote_job_dir {env['remote_job_dir']} is not absolute: give its whole path on the cluster"
    return ""


def left(users: list[str], image: Image, why: str) -> dict[str, Any]:
    """The row of an image that is used as it is written."""
    path = image.name if image.kind == "file" else None
    return {
        "reference": image.reference,
        "users": users,
        "digest": image.digest,
        "platform": None,
        "path": path,
        "state": "left",
        "why": "a path on the cluster: used as it is" if path else why,
        "seconds": 0,
        "job": None,
    }


class Found:
    """What `bring` did: the cache folder, and a row of images.json for each reference, without its users."""

    def __init__(self, folder: str) -> None:
        """No rows yet."""
        self.folder = folder
        self.rows: dict[str, dict[str, Any]] = {}


def bring(cluster: Any, job_dir: str, partition: str, wanted: list[Image], resources: Any, force: bool, at_once: int) -> Found:
    """Have all these images in the cluster's cache. Raises StepFailed and Unreachable; what was imported by then stays."""
    from helpers.images import cache as image_store
    from helpers.images import importing

    store, asked = image_store.ask(cluster, job_dir, partition, wanted, make=True)
    image_store.announce(store)
    found = Found(store.folder)
    imports: dict[str, tuple[importing.Import, list[image_store.Wanted]]] = {}
    for one in asked:
        if one.hit and not force:
            if one.trouble:
                told = f"its digest could not be asked ({one.trouble}): the import of {one.hit.sidecar['at']} is used"
                console.notice(f"{one.image.canonical}: {told}")
            found.rows[one.image.reference] = row_of(store, one.image, one.hit.path, "hit", one.trouble, one.hit.sidecar)
            continue
        if one.fatal:
            raise StepFailed(f"image {one.image.reference}: {one.fatal}")
        if one.trouble:
            console.notice(f"{one.image.canonical}: {one.trouble}; the reference itself stands for it, and FORCE_SQUASH=1 imports it anew")
        beginning = importing.begin(one, store, force)
        imports.setdefault(beginning.key, (beginning, []))[1].append(one)
    if hits := len(found.rows):
        console.info(f"images: {hits} of {len(asked)} in {store.folder} already")
    if imports:
        _import(cluster, store, resources, imports, at_once, found)
    return found


def _import(cluster: Any, store: Any, resources: Any, imports: dict[str, Any], at_once: int, found: Found) -> None:
    """Import what is not there; two references of one image are one import."""
    from helpers.images import importing

    begun = [one for one, _ in imports.values()]
    try:
        importing.Importing(cluster, store, resources, begun, at_once).run()
    except importing.NoImports as error:
        console.notice(f"images are not squashed: {error}; {INSTEAD}")
        for _, wanted in imports.values():
            for one in wanted:
                found.rows[one.image.reference] = left([], one.image, str(error))
        return
    for beginning, wanted in imports.values():
        for one in wanted:
            if beginning.failed and beginning.failed.is_without_enroot:
                from helpers.images import failures

                why = failures.why(beginning.failed, one.image, store.folder, store.platform)
                console.notice(f"{one.image.canonical} is not squashed: {why}; {INSTEAD}")
                found.rows[one.image.reference] = left([], one.image, why)
                beginning.failed = None
            elif beginning.state:
                sidecar = {"digest": beginning.digest, "job": beginning.job}
                row = row_of(store, one.image, beginning.path, beginning.state, one.trouble, sidecar)
                found.rows[one.image.reference] = {**row, "seconds": beginning.seconds}
    importing.refuse_failed(begun, store)


def row_of(store: Any, image: Image, path: str, state: str, why: str, sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The row of an image that lies in the cache."""
    return {
        "reference": image.reference,
        "users": [],
        "digest": sidecar.get("digest"),
        "platform": store.platform,
        "path": path,
        "state": state,
        "why": why,
        "seconds": 0,
        "job": sidecar.get("job") or None,
    }


def paths_of(config_path: Path | str) -> dict[str, str]:
    """The .sqsh path of each image that has one, as the images.json beside a config.yaml has it; nothing outside of a run."""
    run = run_folder.run_of(config_path)
    if run is None or not (run / "images.json").exists():
        return {}
    return {row["reference"]: row["path"] for row in files.read_json(run / "images.json", "images")["images"] if row["path"]}


def by_hand(reference: str, profile_name: str | None, out: str, force: bool, at_once: int = AT_ONCE) -> None:
    """Have one image in the cache of a profile's cluster, and write images.json for it. Raises as `squash` does."""
    from helpers.executors import registry
    from helpers.images import importing

    image = references.parse(reference)
    if image.kind == "file":
        raise BadInput(f"{reference} is a path on the cluster already: nothing is to be imported")
    config = clusters.config_of_profile(profile_name, registry)
    execution = config["execution"]
    if why := unmet(config) or ("" if execution.get("account") else "account is not set: a job needs one"):
        raise BadInput(f"{profile_name}: {why}")
    cluster = clusters.of_config(config)
    partition = str(execution.get("partition") or "")
    found = bring(cluster, str(config["run"]["env"]["remote_job_dir"]), partition, [image], importing.resources_of(config), force, at_once)
    rows = [{**row, "users": ["by hand"]} for row in found.rows.values()]
    document = {"made_by": MADE_BY, "made_from": {}, "cluster": str(cluster), "folder": found.folder, "images": rows}
    files.write_json(out, document, "images")
    for row in rows:
        console.done(f"{row['reference']}: {row['state']}{', ' + row['path'] if row['path'] else ''}")
