"""Artifacts in a folder of manifests: ROOT/NAME/vN/{manifest.json,metadata.json}, and ROOT/NAME/latest, which holds `vN`.

ROOT is a path on the machine where the jobs run; on a cluster it is read over ssh in one round trip. A URI (`s3://…`, `file://…`) is read
from this machine with fsspec.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster import scripts
from helpers.cluster.connection import Cluster
from helpers.common import files
from helpers.common.errors import BadInput, Unreachable, one_line
from helpers.config import model_references
from helpers.config.model_references import Artifact, ListedArtifact, Reference

VERSION = re.compile(r"v(\d+)")
DOCUMENTS = ("manifest.json", "metadata.json")


@dataclass
class Shelf:
    """The content of a root: the versions and the `latest` of each name, and the documents of the names that were asked for."""

    versions: dict[str, list[str]] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    documents: dict[tuple[str, str, str], str] = field(default_factory=dict)


class Manifests:
    """The artifacts in such a folder, on a cluster or where fsspec reaches."""

    def __init__(self, root: str, cluster: Cluster | None) -> None:
        """`cluster`: the machine of a root without a scheme; None for this one."""
        self.root = root.rstrip("/")
        self.cluster = None if "://" in root else cluster
        self.where = f"{self.root} on {self.cluster}" if self.cluster else self.root

    def find(self, key: str, reference: Reference, with_path: bool) -> Artifact:  # noqa: ARG002  a manifest has the path anyway
        """The artifact. Raises BadInput for a missing artifact and an invalid manifest, Unreachable when the root could not be read."""
        name = reference.name
        shelf = self._look(name)
        if not shelf.versions.get(name):
            raise model_references.no_name(key, reference, self.where, [one for one, versions in shelf.versions.items() if versions])
        version = self._version(key, reference, shelf)
        manifest = self._document(shelf, name, version, "manifest.json")
        if manifest is None:
            raise BadInput(f"{key}={reference.text}: {self._at(name, version)} has no manifest.json: writing it was interrupted")
        own = self._document(shelf, name, version, "metadata.json") or {}
        metadata = {**_mapping(manifest.get("metadata")), **_mapping(own.get("metadata")), **own}
        path, why = model_references.path_in({**manifest, **metadata})
        digest = files.sha256_bytes(shelf.documents[name, version, "manifest.json"].rstrip("\n").encode())
        return Artifact(name, version, digest, str(manifest.get("type") or ""), metadata, path, why)

    def listing(self, match: str) -> list[ListedArtifact]:
        """All artifacts whose names contain this text."""
        shelf = self._look(None)
        return [
            ListedArtifact(name, versions, {model_references.LATEST: self._latest(name, shelf)})
            for name, versions in sorted(shelf.versions.items())
            if versions and match.lower() in name.lower()
        ]

    def _version(self, key: str, reference: Reference, shelf: Shelf) -> str:
        there = shelf.versions[reference.name]
        version = self._latest(reference.name, shelf) if reference.version == model_references.LATEST else reference.version
        if version in there:
            return version
        if reference.version == model_references.LATEST:
            at = self._at(reference.name, "latest")
            raise BadInput(f"{at} says {version!r}, but there is no such version; the versions are {', '.join(there)}")
        raise model_references.no_version(key, reference, f"{self.where}: {reference.name}", there, [model_references.LATEST])

    def _latest(self, name: str, shelf: Shelf) -> str:
        """The version in the file `latest`; without that file, the highest."""
        return shelf.latest.get(name, shelf.versions[name][-1])

    def _document(self, shelf: Shelf, name: str, version: str, document: str) -> dict[str, Any] | None:
        text, place = shelf.documents.get((name, version, document)), self._at(name, f"{version}/{document}")
        if text is None:
            return None
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{place}: not JSON: {error}; fix that file") from error
        if not isinstance(data, dict):
            raise BadInput(f"{place}: expected a JSON object; fix that file")
        return data

    def _at(self, name: str, below: str) -> str:
        return f"{self.root}/{name}/{below}" + (f" on {self.cluster}" if self.cluster else "")

    def _look(self, name: str | None) -> Shelf:
        """The names and versions in the root; with a name also its documents. Raises BadInput for a missing root, Unreachable."""
        shelf = self._look_there(self.cluster, name) if self.cluster else self._look_here(name)
        for versions in shelf.versions.values():
            versions.sort(key=lambda one: int(one[1:]))
        return shelf

    def _look_there(self, cluster: Cluster, name: str | None) -> Shelf:
        frames = scripts.run(cluster, scripts.script("models/manifests.sh", ROOT=self.root, NAME=name or ""))
        names = {frame.key: frame.text for frame in frames if frame.kind == "name"}
        shelf, version = Shelf({one: [] for one in names.values()}), ""
        for frame in frames:
            if frame.kind == "no-root":
                raise self._no_root(frame.text)
            if frame.kind == "closed":
                raise BadInput(f"artifacts: you may not read {frame.text} on {cluster}; fix its permissions")
            if frame.kind == "latest":
                shelf.latest[names[frame.key]] = frame.text.strip()
            elif frame.kind == "version":
                version = frame.text
                shelf.versions[names[frame.key]].append(version)
            elif frame.kind in ("manifest", "metadata"):
                shelf.documents[names[frame.key], version, f"{frame.kind}.json"] = frame.text
        return shelf

    def _look_here(self, name: str | None) -> Shelf:
        import fsspec

        shelf = Shelf()
        try:
            system, root = fsspec.core.url_to_fs(self.root)
            for folder in _folders(system, root):
                one = folder.rpartition("/")[2]
                shelf.versions[one] = []
                if name in (None, one) and (text := _text(system, f"{folder}/latest")) is not None:
                    shelf.latest[one] = text.strip()
                for inner in (inner for inner in _folders(system, folder) if VERSION.fullmatch(inner.rpartition("/")[2])):
                    version = inner.rpartition("/")[2]
                    shelf.versions[one].append(version)
                    for document in DOCUMENTS if name == one else ():
                        if (text := _text(system, f"{inner}/{document}")) is not None:
                            shelf.documents[one, version, document] = text
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_root("no such folder") from error
        except ImportError as error:
            fix = "install it with .venv/bin/pip"
            raise BadInput(f"artifacts: root {self.root} needs another package: {one_line(error)}; {fix}") from error
        except ValueError as error:
            raise BadInput(f"artifacts: root {self.root}: {one_line(error)}; fix root in [artifacts] of env.toml") from error
        except Exception as error:  # each filesystem of fsspec has its own exceptions for a failing network
            raise Unreachable(f"artifacts: {self.root} could not be read ({type(error).__name__}: {one_line(error)}); try again") from error
        return shelf

    def _no_root(self, why: str) -> BadInput:
        return BadInput(f"artifacts: {self.where}: {why}; check root in [artifacts] of env.toml")


def _folders(system: Any, path: str) -> list[str]:
    return [one["name"].rstrip("/") for one in system.ls(path, detail=True) if one["type"] == "directory" or system.isdir(one["name"])]


def _text(system: Any, path: str) -> str | None:
    try:
        content: bytes = system.cat_file(path)
    except FileNotFoundError:
        return None
    return content.decode("utf-8", "replace")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
