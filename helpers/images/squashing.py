"""Getting images into a cluster's cache, and a row of images.json for each: taken from the cache, imported, or left as it is."""

from collections.abc import Mapping
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.common import console
from helpers.common.errors import StepFailed
from helpers.images import cache, failures, importing
from helpers.images.cache import Lookup, Store, Stored
from helpers.images.import_job import NoImports, resources_of
from helpers.images.importing import Import
from helpers.images.references import Image

INSTEAD = "each job pulls them from their registry (Pyxis does, if its nodes can reach it)"


def squash(
    cluster: Cluster, config: Mapping[str, Any], images: list[Image], force: bool, at_once: int
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Get all these images into the cache of a compiled config's cluster; `force`: import even those that it has.

    Returns the cache folder, and a row of images.json for each reference, without its users.

    Raises BadInput as `resources_of`, StepFailed and Unreachable; images that were imported before the failure stay.
    """
    resources, partition = resources_of(config), str(config["execution"].get("partition") or "")
    store, lookups = cache.ask(cluster, str(config["run"]["env"]["remote_job_dir"]), partition, images, make=True)
    if store.notice:
        console.notice(store.notice)
    rows: dict[str, dict[str, Any]] = {}
    imports: dict[str, Import] = {}
    waiting: list[tuple[Lookup, Import]] = []  # two references may mean one image, and so wait for one import
    for one in lookups:
        if one.hit and not force:
            if one.trouble:
                console.notice(f"{one.image.canonical}: its digest is unknown ({one.trouble}); using the import of {one.hit.sidecar['at']}")
            rows[one.image.reference] = _row(store, one, one.hit, "hit")
            continue
        if one.fatal:
            raise StepFailed(f"image {one.image.reference}: {one.fatal}")
        if one.trouble:
            console.notice(f"{one.image.canonical}: {one.trouble}; it is cached by its reference, and FORCE_SQUASH=1 imports it again")
        begun = importing.begin(one, store, force)
        waiting.append((one, imports.setdefault(begun.key, begun)))
    if rows:
        console.info(f"images: {len(rows)} of {len(lookups)} are already in {store.folder}")
    if imports:
        task = importing.Importing(cluster, store, resources, list(imports.values()), at_once)
        rows |= _import(task, waiting)
    return store.folder, rows


def _import(task: importing.Importing, waiting: list[tuple[Lookup, Import]]) -> dict[str, dict[str, Any]]:
    """Import, and the rows of all that waited for it."""
    try:
        task.run()
    except NoImports as error:
        console.notice(f"images are not squashed: {error}; {INSTEAD}")
        return {lookup.image.reference: left([], lookup.image, str(error)) for lookup, _ in waiting}
    rows, store = {}, task.store
    for lookup, one in waiting:
        image = lookup.image
        if one.failed and one.failed.is_without_enroot:
            why = failures.why(one.failed, image, store.folder, store.platform)
            console.notice(f"{image.canonical} is not squashed: {why}; {INSTEAD}")
            rows[image.reference] = left([], image, why)
        elif one.made:
            rows[image.reference] = _row(store, lookup, one.made, one.state, one.seconds)
    importing.refuse_failed([one for one in task.imports if not (one.failed and one.failed.is_without_enroot)], store)
    return rows


def _row(store: Store, lookup: Lookup, kept: Stored, state: str, seconds: float = 0) -> dict[str, Any]:
    """The row of an image that is in the cache."""
    return left([], lookup.image, lookup.trouble) | {
        "digest": kept.sidecar.get("digest"),
        "platform": store.platform,
        "path": kept.path,
        "state": state,
        "seconds": seconds,
        "job": kept.sidecar.get("job") or None,
    }


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
