"""Artifacts in W&B, found with its SDK: the version that a reference names, and the path of its files that the training recorded.

Only the record is downloaded; a model's files are on the cluster. `wandb.Api` first verifies the key with the server, so a refused key and
a server that does not answer are distinct from a missing artifact.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from helpers.common.errors import BadInput, Unreachable, one_line
from helpers.config import model_references
from helpers.config.model_references import Artifact, ListedArtifact, Reference

if TYPE_CHECKING:
    import wandb

# A working server answers in under a second; within this time wandb may retry as it likes.
ANSWER_SECONDS, CONNECT_SECONDS = 20, 10
# The HTTP statuses of a server that refuses the key.
REFUSED = (401, 403)
# The types of artifacts that are not models: those that W&B makes for its own use, and evaluations.
NO_MODELS = ("wandb-", "run_table", "job", "code", "evaluation")


class WandbStore:
    """W&B's artifacts of one server, looked up with WANDB_BASE_URL, WANDB_API_KEY, WANDB_ENTITY and WANDB_PROJECT."""

    def __init__(self) -> None:
        """Log in. Raises Unreachable when the server does not answer, BadInput when it refuses the key."""
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        # A quick check of our own: wandb-core retries until its time-out, and then says no more than that.
        self.where = (os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)).rstrip("/")
        _knock(self.where)
        self.entity, self.project = os.environ.get("WANDB_ENTITY"), os.environ.get("WANDB_PROJECT")
        with asking(self.where):
            self._api = wandb.Api(timeout=ANSWER_SECONDS)

    def find(self, key: str, reference: Reference, with_path: bool) -> Artifact:
        """The artifact. Raises BadInput for a missing artifact, Unreachable when the server does not answer."""
        project = self._path(reference)
        try:
            with asking(self.where):
                found = self._api.artifact(f"{project}/{reference.name}:{reference.version}")
        except NotThere as error:
            raise self._missing(key, reference, project, str(error)) from None
        name = f"{found.entity}/{found.project}/{found.source_name.partition(':')[0]}"
        path, why = model_references.path_in(found.metadata)
        if path is None and with_path:
            with asking(self.where):
                path, why = _referred(found, why)
        return Artifact(name, found.source_version, found.digest, found.type, found.metadata, path, why)

    def listing(self, match: str) -> list[ListedArtifact]:
        """The artifacts of the project that may be models and whose names contain this text; makes one request, and one for each."""
        project = f"{self.entity}/{self.project}"
        try:
            return [self._listed(project, kind, name) for kind, name in self._names(project) if match.lower() in name.lower()]
        except NotThere as error:
            raise BadInput(f"W&B {self.where} has no project {project}, or you may not see it; check [wandb] in env.toml") from error

    def _path(self, reference: Reference) -> str:
        entity, project = reference.entity or self.entity, reference.project or self.project
        return f"{entity}/{project}" if entity else str(project)

    def _names(self, project: str) -> list[tuple[str, str]]:
        with asking(self.where):
            try:
                kinds = [kind for kind in self._api.artifact_types(project) if not kind.name.startswith(NO_MODELS)]
            except ValueError as error:  # the SDK cannot read an answer without a project
                raise NotThere(f"project {project}") from error
            return sorted((kind.name, one.name) for kind in kinds for one in kind.collections())

    def _listed(self, project: str, kind: str, name: str) -> ListedArtifact:
        with asking(self.where):
            versions = list(self._api.artifacts(kind, f"{project}/{name}"))
        aliases = {alias: one.version for one in versions for alias in one.aliases}
        return ListedArtifact(f"{project}/{name}", sorted((one.version for one in versions), key=lambda one: int(one[1:])), aliases)

    def _missing(self, key: str, reference: Reference, project: str, reason: str) -> BadInput:
        """The error for a reference to a missing artifact, with the names or versions that exist; `reason` is the SDK's message."""
        if reason.startswith("project "):
            fix = "check [wandb] in env.toml, or write the full name ENTITY/PROJECT/NAME:VERSION"
            return BadInput(f"{key}={reference.text}: W&B {self.where} has no project {project}, or you may not see it; {fix}")
        there = {name: kind for kind, name in self._names(project)}
        if reference.name not in there:
            return model_references.no_name(key, reference, f"W&B project {project}", there)
        listed = self._listed(project, there[reference.name], reference.name)
        return model_references.no_version(key, reference, listed.name, listed.versions, listed.aliases)


class NotThere(Exception):
    """The server answered: it does not have this artifact or project."""


@contextmanager
def asking(server: str) -> Iterator[None]:
    """Turn the SDK's errors into ours: NotThere for an answer that says so, BadInput for a refused key, Unreachable for no answer."""
    from wandb.errors import CommError, UsageError

    try:
        yield
    except CommError as error:
        if isinstance(error.exc, ValueError):  # how the SDK reports an answer without the artifact
            raise NotThere(str(error)) from error
        reason = one_line(error)
        if getattr(getattr(error.__cause__, "response", None), "http_status", None) in REFUSED:
            fix = f"run `wandb login --relogin --host={server}`, or set another WANDB_API_KEY"
            raise BadInput(f"W&B {server} refuses the key ({reason}): {fix}") from error
        raise Unreachable(f"no usable answer from W&B {server} ({reason}); run the same command again") from error
    except UsageError as error:
        raise BadInput(f"W&B {server}: {one_line(error)}") from error
    except OSError as error:
        raise Unreachable(f"could not reach W&B {server} ({one_line(error)}); run the same command again") from error


def _knock(server: str) -> None:
    """Raise Unreachable unless something listens at the server's address. Behind a proxy this cannot be known, and nothing is raised."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        return
    parts = urlsplit(server)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise Unreachable(f"W&B {server} does not answer ({why}); check the network, or WANDB_BASE_URL, then try again") from error


def _referred(found: "wandb.Artifact", why: str) -> tuple[str | None, str]:
    """The folder or file that an artifact's `file://` references point to; None, with the reason, when they are not in one place.

    W&B records a reference to a folder as one entry for each file, with its path below the folder. A single entry is the place itself.
    """
    entries: dict[str, Any] = found.manifest.entries
    references = {name: str(entry.ref) for name, entry in entries.items() if entry.ref}
    if not references:
        return None, f"{why}, and it has no file:// reference" + (": its files are in W&B itself" if entries else "")
    if len(references) == 1:
        ((_, only),) = references.items()
        path = model_references.path_of(only)
        return path, "" if path else f"{why}, and its reference {only} is not a path of a filesystem"
    roots = {url.removesuffix(f"/{name}") if url.endswith(f"/{name}") else url for name, url in references.items()}
    path = model_references.path_of(roots.pop()) if len(roots) == 1 else None
    return path, "" if path else f"{why}, and its references are not in one folder of a filesystem"
