"""The images in a cluster's cache, and the current digest of each reference, all looked up in one round trip."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster import scripts
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common.errors import StepFailed, Unreachable, one_line
from helpers.images import references, registry
from helpers.images.references import Image
from helpers.images.registry import Reply

OK, NOT_FOUND, TOO_MANY = 200, 404, 429
REFUSED = (401, 403)


@dataclass(frozen=True)
class Stored:
    """One squashed image of the cache: its path there, and its sidecar."""

    path: str
    sidecar: dict[str, Any]


@dataclass
class Lookup:
    """One image that a run uses, and what was found out about it. `digest`: of the platform; `index`: of the tag itself."""

    image: Image
    digest: str | None = None
    index: str | None = None
    stamp: str = ""  # of an archive: its size and time
    trouble: str = ""  # why its digest is unknown
    fatal: str = ""  # why it cannot be imported either
    hit: Stored | None = None

    def key(self, platform: str) -> str:
        """What identifies the image in the cache: its digest for the platform; else its reference, the platform, and an archive's stamp."""
        return self.digest or f"{self.image.canonical} {platform} {self.stamp}".rstrip()


@dataclass
class Store:
    """The cache folder on the cluster: where new images go, which images it holds, the platform of the nodes, and who we are there."""

    folder: str
    platform: str = ""
    machine: str = ""
    who: str = ""
    stored: list[Stored] = field(default_factory=list)
    notice: str = ""


# The fields that a sidecar must have to count, with their types.
SIDECAR = {"canonical": str, "key": str, "platform": str, "bytes": int, "import": str, "at": str}


def ask(
    cluster: Cluster, job_dir: str, partition: str, wanted: Sequence[Image], make: bool, whole: bool = False
) -> tuple[Store, list[Lookup]]:
    """The cache of a cluster, and each image looked up in it, in one round trip; in a second one if a sidecar has an index, but for
    another platform (`whole`: fetch every index). `make`: create the cache folder if it is missing.

    Raises Unreachable, and StepFailed if no cache folder can be written.
    """
    asked = [image for image in wanted if image.kind == "registry"]
    archives = [image for image in wanted if image.kind in references.ARCHIVES]
    text = scripts.script(
        "images/inspect.sh",
        JOBDIR=job_dir.rstrip("/"),
        PARTITION=partition,
        HOSTS=[image.registry for image in asked],
        REPOS=[image.name for image in asked],
        TAGS=[image.digest or image.tag for image in asked],
        ARCHIVES=[image.name for image in archives],
        MAKE=int(make),
        WHOLE=int(whole),
    )
    frames = scripts.run(cluster, text, timeout=120)
    if not any(frame.kind == "folder" for frame in frames):
        raise Unreachable(f"{cluster}: no temporary file can be made there (is /tmp full?); fix that, then run the same command again")
    store = _store_of(cluster, frames)
    answers = {asked[int(frame.key)]: _answer(frame, frames) for frame in frames if frame.kind == "answer"}
    _ask_here(answers, asked)
    stamps = {archives[int(frame.key)]: frame.text for frame in frames if frame.kind == "archive"}
    found = [Lookup(image) for image in wanted]
    for one in found:
        image = one.image
        if image in archives:
            one.stamp = stamps.get(image, "")
            one.fatal = "" if one.stamp else f"{image.name} is not on {cluster}, or cannot be read there: check the path"
        elif image.kind in references.DAEMONS:
            one.trouble = f"{image.kind}:// names an image of a daemon on the node, so its digest cannot be looked up"
        elif image.kind == "registry":
            _judge(one, answers[image], store)
    if not whole and any(one.index and not (one.digest or one.trouble or one.fatal) for one in found):
        return ask(cluster, job_dir, partition, wanted, make, whole=True)
    for one in found:
        one.hit = None if one.fatal and not one.trouble else _lookup(store, one)
    return store, found


def _store_of(cluster: Cluster, frames: list[Frame]) -> Store:
    of = {frame.kind: frame.text for frame in frames}
    store = Store(of["folder"], references.platform_of(of["arch"]), of["arch"], of["who"])
    if "no-folder" in of:
        path, _, words = of["no-folder"].partition("\n")
        raise StepFailed(
            f"{cluster}: {path} cannot be written ({one_line(words)}): free space, fix its permissions, or choose another remote_job_dir"
        )
    if "not-ours" in of:
        path, _, words = of["not-ours"].partition("\n")
        store.notice = f"{path} on {cluster} cannot be written ({one_line(words)}): new images go to {store.folder}"
    store.stored = sidecars(frames)
    return store


def sidecars(frames: list[Frame]) -> list[Stored]:
    """The images that count: their sidecar can be read, and names as many bytes as the file has."""
    found = []
    for frame in (one for one in frames if one.kind == "sidecar"):
        head, _, text = frame.text.partition("\n")
        size, _, path = head.partition(" ")
        with contextlib.suppress(ValueError, KeyError, TypeError):  # torn, or another kind of file
            sidecar = json.loads(text)
            if all(isinstance(sidecar[name], kind) for name, kind in SIDECAR.items()) and sidecar["bytes"] == int(size):
                found.append(Stored(path.removesuffix(".json") + ".sqsh", sidecar))
    return found


def _answer(frame: Frame, frames: list[Frame]) -> Reply:
    status, digest, kind, realm, host_line, realm_line, words = (*frame.data.decode("utf-8", "replace").split("\n"), *[""] * 7)[:7]
    index = next((one.text for one in frames if one.kind == "index" and one.key == frame.key), None)
    number = int(status) if status.isdecimal() else 0
    return Reply(number, digest, kind, realm, host_line == "yes", realm_line == "yes", words, index)


def _ask_here(answers: dict[Image, Reply], asked: list[Image]) -> None:
    """Ask from this machine what the cluster could not reach."""
    unheard = [image for image in asked if image not in answers or not answers[image].status]
    for image, answer in zip(unheard, registry.ask(unheard), strict=True):
        if answer.status == OK or image not in answers:
            answers[image] = answer


def _judge(one: Lookup, answer: Reply, store: Store) -> None:
    """Fill in the digests, or what is wrong; only the index if that itself is needed to know more."""
    image = one.image
    if answer.status != OK:
        one.trouble = _trouble(image, answer)
        definite = answer.status == NOT_FOUND or answer.status in REFUSED
        one.fatal = one.trouble if definite and not answer.here else ""
        return
    one.index = answer.digest
    if answer.index is not None:
        try:
            one.digest, has = references.pick(answer.index, store.platform)
        except (ValueError, KeyError, TypeError):
            one.trouble = f"{image.registry} answers for {image.canonical} with an invalid image index"
            return
        if one.digest is None:
            others = ", ".join(has) or "nothing"
            one.fatal = f"{image.canonical} has {others}, but the nodes are {store.platform}: choose another image or tag"
    elif answer.type in ("known", *registry.INDEXES):  # some sidecar has it
        fits = [
            kept.sidecar for kept in store.stored
            if kept.sidecar["platform"] == store.platform and answer.digest in (kept.sidecar.get("index"), kept.sidecar.get("digest"))
        ]  # fmt: skip
        one.digest = next((str(kept["digest"]) for kept in fits if kept.get("digest")), None)
    else:
        one.digest = answer.digest


def _trouble(image: Image, answer: Reply) -> str:
    """Why a registry gives no digest, and the fix."""
    name, host = image.canonical, image.registry.partition(":")[0]
    if answer.status in REFUSED:
        pairs = ((host, answer.host_line), (answer.realm, answer.realm_line))
        missing = dict.fromkeys(one for one, there in pairs if one and not there)
        lines = " and ".join(f"`machine {one} login … password …`" for one in missing)
        if answer.here:
            fix = f"the cluster cannot reach it, and it refuses this machine: `docker login {image.registry}` here"
        elif missing:
            fix = f"add the line{'s' if len(missing) > 1 else ''} {lines} to ~/.config/enroot/.credentials there"
        else:
            fix = "it refuses the credentials in ~/.config/enroot/.credentials there: renew them"
        return f"{image.registry} refuses {name} ({answer.status}); {fix}, or check the name: some registries refuse what does not exist"
    if answer.status == NOT_FOUND:
        return f"{image.registry} has no {name} (404): check the name and the tag"
    if answer.status == TOO_MANY:
        line = "a line in ~/.config/enroot/.credentials there"
        return f"{image.registry} refuses more requests for now (429, its rate limit): wait, or log in with {line}"
    if answer.status:
        return f"{image.registry} answers {answer.status} for {name}"
    return f"neither the cluster nor this machine could reach {image.registry} ({one_line(answer.words) or 'it printed nothing'})"


def _lookup(store: Store, one: Lookup) -> Stored | None:
    """The image that a reference means: by its digest; if that is unknown, the newest import of the same reference."""
    fits = [kept for kept in store.stored if kept.sidecar["platform"] == store.platform]
    if one.digest:
        same = [kept for kept in fits if kept.sidecar.get("digest") == one.digest]
    elif one.stamp:
        same = [kept for kept in fits if kept.sidecar["key"] == references.short_key(one.key(store.platform))]
    else:
        same = [kept for kept in fits if kept.sidecar["canonical"] == one.image.canonical]
    return max(same, key=lambda kept: str(kept.sidecar["at"]), default=None)


def listing(cluster: Cluster, job_dir: str) -> list[Frame]:
    """What clean.sh shows of the cache folders: sidecars, files, what failed imports left, and locks. Raises Unreachable."""
    return scripts.run(cluster, scripts.script("images/clean.sh", JOBDIR=job_dir, REMOVE=[]), timeout=120)


def remove(cluster: Cluster, job_dir: str, paths: Sequence[str]) -> list[str]:
    """Remove these files from the cache folders; returns a line for each that could not be removed. Raises Unreachable."""
    frames = scripts.run(cluster, scripts.script("images/clean.sh", JOBDIR=job_dir, REMOVE=paths), timeout=600)
    return [frame.text for frame in frames if frame.kind == "kept"]
