"""Getting images into a cluster's cache, and a row of images.json for each: taken from the cache, imported, or left as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.common import console
from helpers.common.errors import StepFailed
from helpers.images import cache, failures, importing
from helpers.images.cache import Lookup, Store
from helpers.images.import_job import NoImports, Resources
from helpers.images.references import Image

INSTEAD = "each job pulls them from their registry (Pyxis does, if its nodes can reach it)"


@dataclass
class Squashed:
    """The cache folder, and a row of images.json for each reference, without its users."""

    folder: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class _Shared:
    """One import, and the lookups that it serves: two references may mean one image."""

    one: importing.Import
    lookups: list[Lookup]


def squash(
    cluster: Cluster, job_dir: str, partition: str, images: list[Image], resources: Resources, force: bool, at_once: int
) -> Squashed:
    """Get all these images into the cluster's cache; `force`: import even those that it has.

    Raises StepFailed and Unreachable; images that were imported before the failure stay.
    """
    store, lookups = cache.ask(cluster, job_dir, partition, images, make=True)
    cache.announce(store)
    squashed = Squashed(store.folder)
    imports: dict[str, _Shared] = {}
    for one in lookups:
        if one.hit and not force:
            if one.trouble:
                console.notice(f"{one.image.canonical}: its digest is unknown ({one.trouble}); using the import of {one.hit.sidecar['at']}")
            squashed.rows[one.image.reference] = row_of(store, one.image, one.hit.path, "hit", one.trouble, one.hit.sidecar)
            continue
        if one.fatal:
            raise StepFailed(f"image {one.image.reference}: {one.fatal}")
        if one.trouble:
            console.notice(f"{one.image.canonical}: {one.trouble}; it is cached by its reference, and FORCE_SQUASH=1 imports it again")
        begun = importing.begin(one, store, force)
        imports.setdefault(begun.key, _Shared(begun, [])).lookups.append(one)
    if hits := len(squashed.rows):
        console.info(f"images: {hits} of {len(lookups)} are already in {store.folder}")
    if imports:
        _import(cluster, store, resources, list(imports.values()), at_once, squashed)
    return squashed


def _import(cluster: Cluster, store: Store, resources: Resources, imports: list[_Shared], at_once: int, squashed: Squashed) -> None:
    begun = [shared.one for shared in imports]
    try:
        importing.Importing(cluster, store, resources, begun, at_once).run()
    except NoImports as error:
        console.notice(f"images are not squashed: {error}; {INSTEAD}")
        for shared in imports:
            for lookup in shared.lookups:
                squashed.rows[lookup.image.reference] = left([], lookup.image, str(error))
        return
    for shared in imports:
        one = shared.one
        for lookup in shared.lookups:
            image = lookup.image
            if one.failed and one.failed.is_without_enroot:
                why = failures.why(one.failed, image, store.folder, store.platform)
                console.notice(f"{image.canonical} is not squashed: {why}; {INSTEAD}")
                squashed.rows[image.reference] = left([], image, why)
            elif one.state:
                sidecar = {"digest": one.digest, "job": one.job}
                row = row_of(store, image, one.path, one.state, lookup.trouble, sidecar)
                squashed.rows[image.reference] = {**row, "seconds": one.seconds}
    importing.refuse_failed([one for one in begun if not (one.failed and one.failed.is_without_enroot)], store)


def row_of(store: Store, image: Image, path: str, state: str, why: str, sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The row of an image that is in the cache."""
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
