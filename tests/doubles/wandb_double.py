"""A double of a W&B server, for what a real one cannot be made to do in tests. It has the part of the API that the pinned wandb SDK uses.

GraphQL, the file stream, uploads and downloads, over HTTP on 127.0.0.1. Runs, artifacts and files are held in memory; every request is
recorded with the key that it carried. The SDK is the real one: `with WandbDouble() as server:`, then WANDB_BASE_URL=server.url and
WANDB_API_KEY=server.key. By hand: `python tests/doubles/wandb_double.py --port 8090`.

It answers a query by its top-level fields, with more than was asked for, and refuses a field it does not know the way a server of another
version does (400, `Cannot query field`). Its refusals have the status codes and the words of api.wandb.ai.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import json
import re
import threading
import time
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from typing_extensions import Self

KEY = "0123456789abcdef0123456789abcdef01234567"
ENTITY, PROJECT = "my-team", "nemotron"
_TIME = "2026-11-22T01:35:12"


@dataclass
class Call:
    """One request: its method and path, the key that it carried, and for GraphQL the operation's name, top-level fields and variables."""

    method: str
    path: str
    key: str | None
    operation: str = ""
    fields: tuple[str, ...] = ()
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A run as the server holds it. `inserted` counts how often it was started; `history` has one dict for each logged step."""

    entity: str
    project: str
    name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"
    upserts: int = 0
    used: list[str] = field(default_factory=list)


@dataclass
class Artifact:
    """A version of an artifact; `index` is N of vN once it is committed."""

    id: str
    entity: str
    project: str
    collection: str
    type: str
    digest: str
    run: str | None
    metadata: str | None = None
    description: str | None = None
    aliases: list[str] = field(default_factory=list)
    index: int | None = None
    committed: bool = False
    manifest: bytes = b"{}"


class Refused(Exception):
    """A refusal: HTTP status, the server's message, its code."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class WandbDouble:
    """The server. All settings can be changed while it runs.

    `keys`: who a key is; `expired`: keys that get 401; `read_only`: ENTITY/PROJECT where nobody may write (403); `refused`: ENTITY/PROJECT
    that nobody may see or write; `entities`: those that exist and whose teams the keys are in. `off()` and `on()` take it off the network
    and back, on the same port.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.key = KEY
        self.keys: dict[str, str] = {KEY: "me"}
        self.entities: set[str] = {ENTITY, "me"}
        self.expired: set[str] = set()
        self.read_only: set[str] = set()
        self.refused: set[str] = set()
        self.fail_with = 0  # an HTTP status for every answer, as a server in trouble gives
        self.delay = 0.0  # seconds before every answer
        self.calls: list[Call] = []
        self.unknown: list[str] = []  # top-level fields and paths that it was asked for and does not know
        self.runs: dict[tuple[str, str, str], Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.stored: dict[str, bytes] = {}
        self._client_ids: dict[str, str] = {}
        self._manifests: dict[str, str] = {}
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self.host, self.port = host, port
        self.on()
        self.url = f"http://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.off()

    def on(self) -> None:
        """Listen (again)."""
        if self._server:
            return
        self._server = _Server((self.host, self.port), _handler(self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def off(self) -> None:
        """Stop listening: connections are refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # ---- What tests look at ----

    def run(self, name: str, project: str = PROJECT, entity: str = ENTITY) -> Run:
        """A run by its id."""
        return self.runs[(entity, project, name)]

    def operations(self) -> list[str]:
        """The names of the GraphQL operations, in order."""
        return [call.operation for call in self.calls if call.operation]

    def keys_seen(self) -> set[str | None]:
        """The keys that requests carried."""
        return {call.key for call in self.calls}

    def put_artifact(self, name: str, aliases: tuple[str, ...] = (), *, kind: str = "model", **of_manifest: Any) -> Artifact:
        """Make a version of an artifact as training would have, `NAME` or `PROJECT/NAME` or `ENTITY/PROJECT/NAME`; returns it.

        `metadata`: a dict; `references`: {path: URL}, what the artifact points to instead of holding it.
        """
        *holders, collection = name.split("/")
        entity, project = [*[ENTITY, PROJECT][: 2 - len(holders)], *holders]
        contents = {
            path: {"digest": base64.b64encode(b"0" * 16).decode(), "ref": url, "size": 0, "extra": {}}
            for path, url in (of_manifest.get("references") or {}).items()
        }
        manifest = {"version": 1, "storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {}, "contents": contents}
        with self._lock:
            artifact = Artifact(f"artifact-{len(self.artifacts)}", entity, project, collection, kind, f"{len(self.artifacts):032x}", None)
            artifact.metadata = json.dumps(of_manifest.get("metadata") or {})
            artifact.manifest = json.dumps(manifest).encode()
            artifact.aliases = list(aliases)
            self.artifacts[artifact.id] = artifact
            self._commit(artifact)
        return artifact

    # ---- GraphQL ----

    def answer(self, call: Call, query: str) -> dict[str, Any]:
        """The `data` of a GraphQL answer. Raises Refused."""
        data = {}
        for alias, name in top_level(query):
            resolve = getattr(self, f"_get_{_snake(name)}", None)
            if resolve is None:
                self.unknown.append(f"{call.operation}: {name}")
                raise Refused(400, f'Cannot query field "{name}" on type "Query".')
            with self._lock:
                data[alias] = resolve(call.variables.get("input") or call.variables, call)
        return data

    def _get_viewer(self, _: dict[str, Any], call: Call) -> dict[str, Any] | None:
        name = self.keys.get(call.key or "")
        if name is None:
            return None
        return {
            "id": f"user-{name}",
            "entity": name,
            "username": name,
            "name": name,
            "email": f"{name}@example.com",
            "flags": "{}",
            "admin": False,
            "deletedAt": None,
            "apiKeys": {"edges": []},
            "teams": {"edges": [{"node": {"name": one}} for one in sorted(self.entities)]},
        }

    def _get_server_info(self, _: dict[str, Any], call: Call) -> dict[str, Any]:
        return {
            "features": [],
            "cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.0.1"},
            "latestLocalVersionInfo": None,
        }

    def _get_entity(self, variables: dict[str, Any], call: Call) -> dict[str, Any] | None:
        name = variables.get("entityName") or variables.get("entity") or variables.get("name") or ""
        return {"id": f"entity-{name}", "name": name, "organization": None, "user": None} if name in self.entities else None

    def _get_project(self, variables: dict[str, Any], call: Call) -> dict[str, Any] | None:
        entity = variables.get("entityName") or variables.get("entity") or ""
        project = variables.get("projectName") or variables.get("project") or (variables.get("name") if "run" not in variables else "")
        return self._project(str(entity), str(project or ""), variables)

    def _get_model(self, variables: dict[str, Any], call: Call) -> dict[str, Any] | None:
        entity, project = variables["entity"], variables["project"]
        if self._project(entity, project, {}) is None:
            return None
        run = self.runs.get((entity, project, variables["name"]))
        return {"id": "p", "name": project, "entity": {"id": "e", "name": entity}, "bucket": run and self._run(run)}

    def _get_models(self, variables: dict[str, Any], call: Call) -> dict[str, Any]:
        found = {project for entity, project in self._projects() if entity == variables.get("entity")}
        return _connection([{"name": one, "id": one, "entityName": variables["entity"], "createdAt": _TIME} for one in sorted(found)])

    def _get_artifact(self, variables: dict[str, Any], call: Call) -> dict[str, Any] | None:
        found = self.artifacts.get(str(variables.get("id") or variables.get("artifact_id") or variables.get("artifactID")))
        return found and self._artifact(found, variables)

    def _get_client_id_mapping(self, variables: dict[str, Any], call: Call) -> dict[str, Any] | None:
        found = self._client_ids.get(variables["clientID"])
        return {"serverID": found} if found else None

    def _get_upsert_bucket(self, variables: dict[str, Any], call: Call) -> dict[str, Any]:
        by_id = next((run for run in self.runs.values() if variables.get("id") == self._id(run)), None)
        entity = by_id.entity if by_id else variables.get("entity") or self.keys[call.key or ""]
        project = by_id.project if by_id else variables.get("project") or "uncategorized"
        name = by_id.name if by_id else variables["name"]
        self._may_write(entity, project, "upsertBucket")
        inserted = (entity, project, name) not in self.runs
        run = self.runs.setdefault((entity, project, name), Run(entity, project, name))
        run.upserts += 1
        run.state = variables.get("state") or "running"
        run.attributes |= {key: value for key, value in variables.items() if value is not None}
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        if variables.get("summaryMetrics"):
            run.summary = json.loads(variables["summaryMetrics"])
        return {"bucket": self._run(run), "inserted": inserted}

    def _get_create_run_files(self, variables: dict[str, Any], call: Call) -> dict[str, Any]:
        entity, project, name = variables["entity"], variables["project"], variables["run"]
        self._may_write(entity, project, "createRunFiles")
        files = [
            {"name": one, "uploadUrl": f"{self.url}/storage/run/{quote(f'{entity}/{project}/{name}/{one}')}"} for one in variables["files"]
        ]
        return {"runID": name, "uploadHeaders": [], "files": files}

    def _get_mark_run_files_uploaded(self, variables: dict[str, Any], call: Call) -> dict[str, Any]:
        return {"success": True}

    def _get_create_artifact(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        entity, project = given["entityName"], given["projectName"]
        self._may_write(entity, project, "createArtifact")
        collection = given.get("artifactCollectionName") or given["artifactCollectionNames"][0]
        same = [a for a in self._versions(entity, project, collection) if a.digest == given["digest"]]
        aliases = [one["alias"] for one in given.get("aliases") or []]
        if same:
            found = same[0]
            self._take_aliases(found, aliases)
        else:
            found = Artifact(
                f"artifact-{len(self.artifacts)}", entity, project, collection, given["artifactTypeName"], given["digest"], None
            )
            found.run, found.metadata, found.description = given.get("runName"), given.get("metadata"), given.get("description")
            found.aliases = aliases
            self.artifacts[found.id] = found
        if given.get("clientID"):
            self._client_ids[given["clientID"]] = found.id
        return {"artifact": self._artifact(found, {})}

    def _get_create_artifact_manifest(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        return self._manifest_of(given["artifactID"])

    def _get_update_artifact_manifest(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        return self._manifest_of(given["artifactManifestID"].removeprefix("manifest-"))

    def _manifest_of(self, artifact: str) -> dict[str, Any]:
        upload = {"id": artifact, "uploadUrl": f"{self.url}/storage/manifest/{artifact}", "uploadHeaders": []}
        return {"artifactManifest": {"id": f"manifest-{artifact}", "file": upload}}

    def _get_create_artifact_files(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": f"files/{one['md5']}",
                "uploadUrl": f"{self.url}/storage/file/{_hex(one['md5'])}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
            }
            for one in given["artifactFiles"]
        ]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def _get_commit_artifact(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        artifact = self.artifacts[given["artifactID"]]
        self._commit(artifact)
        return {"artifact": {"id": artifact.id, "digest": artifact.digest}}

    def _get_use_artifact(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        self._may_write(given["entityName"], given["projectName"], "useArtifact")
        run = self.runs.get((given["entityName"], given["projectName"], given["runName"]))
        if run is not None:
            run.used.append(given["artifactID"])
        return {"artifact": self._artifact(self.artifacts[given["artifactID"]], {})}

    def _get_update_artifact(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        artifact = self.artifacts[given["artifactID"]]
        if given.get("metadata") is not None:
            artifact.metadata = given["metadata"]
        return {"artifact": self._artifact(artifact, {})}

    def _get_add_aliases(self, given: dict[str, Any], call: Call) -> dict[str, Any]:
        self._take_aliases(self.artifacts[given["artifactID"]], [one["alias"] for one in given["aliases"]])
        return {"success": True}

    # ---- What the fields are made of ----

    def _may_write(self, entity: str, project: str, mutation: str) -> None:
        path = f"{entity}/{project}"
        if entity not in self.entities:
            raise Refused(404, f"entity {entity} not found during {mutation}")
        if path in self.refused or path in self.read_only:
            raise Refused(403, "permission denied", "PERMISSION_ERROR")

    def _projects(self) -> set[tuple[str, str]]:
        found = {(run.entity, run.project) for run in self.runs.values()} | {(a.entity, a.project) for a in self.artifacts.values()}
        known = {tuple(path.split("/", 1)) for path in self.read_only | self.refused}
        return found | {(entity, project) for entity, project in known}

    def _project(self, entity: str, project: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        path = f"{entity}/{project}"
        if path in self.refused or (entity, project) not in self._projects():
            return None
        run = self.runs.get((entity, project, str(variables.get("run") or variables.get("runName") or variables.get("name"))))
        runs = [one for one in self.runs.values() if (one.entity, one.project) == (entity, project)]
        filters = json.loads(variables.get("filters") or "{}")
        runs = [one for one in runs if _fits(self._run(one), filters)]
        wanted = variables.get("type") or variables.get("artifactTypeName")
        there = [a for a in self.artifacts.values() if (a.entity, a.project) == (entity, project)]
        collections = sorted({a.collection for a in there if a.committed and wanted in (None, a.type)})
        name = str(variables.get("name") or "")
        collection = variables.get("collection") or variables.get("artifactCollectionName") or name
        node = {
            "__typename": "Project",
            "id": f"project-{path}",
            "internalId": f"project-{path}",
            "name": project,
            "entityName": entity,
            "entity": {"id": f"entity-{entity}", "name": entity},
            "readOnly": path in self.read_only,
            "createdAt": _TIME,
            "isBenchmark": False,
            "user": None,
            "run": run and self._run(run),
            "runCount": len(runs),
            "runs": _connection([self._run(one) for one in runs]),
            "artifactCollectionMembership": self._membership(entity, project, *_name_and_alias(name)),
            "artifactCollection": self._collection(entity, project, str(collection), variables) if collection in collections else None,
            "artifactCollections": _connection([self._collection(entity, project, one, variables) for one in collections]),
        }
        node["artifactTypes"] = _connection([_type(one) for one in sorted({a.type for a in there})])
        node["artifactType"] = {**_type(wanted), **{k: node[k] for k in ("artifactCollection", "artifactCollections")}} if wanted else None
        node["artifact"] = (node["artifactCollectionMembership"] or {}).get("artifact")
        return node

    def _id(self, run: Run) -> str:
        return base64.b64encode(f"Run:v1:{run.name}:{run.project}:{run.entity}".encode()).decode()

    def _run(self, run: Run) -> dict[str, Any]:
        project = {"id": "p", "internalId": "p", "name": run.project, "entity": {"id": "e", "name": run.entity}}
        given = run.attributes
        used = [self._artifact(self.artifacts[one], {}) for one in run.used]
        logged = [self._artifact(one, {}) for one in self.artifacts.values() if (one.run, one.project) == (run.name, run.project)]
        return {
            "__typename": "Run",
            "id": self._id(run),
            "projectId": "7",
            "name": run.name,
            "displayName": given.get("displayName") or run.name,
            "description": given.get("notes"),
            "notes": given.get("notes"),
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyKeys": {"lastStep": len(run.history) - 1, "keys": {key: {} for line in run.history for key in line}},
            "historyLineCount": len(run.history),
            "logLineCount": len(run.output),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(line) for line in run.history[-1:]]),
            "eventsTail": "[]",
            "wandbConfig": '{"t": 1}',
            "tags": given.get("tags") or [],
            "group": given.get("groupName"),
            "jobType": given.get("jobType"),
            "commit": None,
            "sweepName": None,
            "state": run.state,
            "readOnly": f"{run.entity}/{run.project}" in self.read_only,
            "createdAt": _TIME,
            "heartbeatAt": _TIME,
            "user": {"name": "me", "username": "me"},
            "project": project,
            "stopped": False,
            "history": [json.dumps(line) for line in run.history],
            "sampledHistory": [run.history],
            "files": _connection([{"name": name, "sizeBytes": len(content)} for name, content in run.files.items()]),
            "artifacts": _connection(used or logged),
            "inputArtifacts": _connection(used),
            "outputArtifacts": _connection(logged),
        }

    def _versions(self, entity: str, project: str, collection: str) -> list[Artifact]:
        return [a for a in self.artifacts.values() if (a.entity, a.project, a.collection) == (entity, project, collection) and a.committed]

    def _find(self, entity: str, project: str, collection: str, alias: str) -> Artifact | None:
        return next((a for a in self._versions(entity, project, collection) if alias in a.aliases or alias == f"v{a.index}"), None)

    def _commit(self, artifact: Artifact) -> None:
        if not artifact.committed:
            artifact.index = len(self._versions(artifact.entity, artifact.project, artifact.collection))
            artifact.committed = True
            self._take_aliases(artifact, [*artifact.aliases, "latest"])

    def _take_aliases(self, artifact: Artifact, aliases: list[str]) -> None:
        """Give an alias to a version, and take it from the version of the collection that had it."""
        for other in self._versions(artifact.entity, artifact.project, artifact.collection):
            other.aliases = [one for one in other.aliases if one not in aliases]
        artifact.aliases = list(dict.fromkeys([*artifact.aliases, *aliases]))

    def _info(self, artifact: Artifact) -> dict[str, Any]:
        entity = {"id": "e", "name": artifact.entity}
        path = f"{artifact.entity}/{artifact.project}"
        project = {"id": f"project-{path}", "internalId": f"project-{path}", "name": artifact.project, "entity": entity}
        return {
            "__typename": "ArtifactSequence",
            "id": f"sequence-{path}/{artifact.collection}",
            "name": artifact.collection,
            "project": project,
        }

    def _artifact(self, artifact: Artifact, variables: dict[str, Any]) -> dict[str, Any]:
        latest = self._find(artifact.entity, artifact.project, artifact.collection, "latest")
        sequence = self._info(artifact) | {"latestArtifact": latest and {"id": latest.id}}
        aliases = [
            {"__typename": "ArtifactAlias", "id": one, "alias": one, "artifactCollection": self._info(artifact)} for one in artifact.aliases
        ]
        run = next(
            (r for r in self.runs.values() if (r.name, r.project, r.entity) == (artifact.run, artifact.project, artifact.entity)), None
        )
        contents = json.loads(artifact.manifest).get("contents", {})
        files = self._files(artifact)
        manifest = {"id": f"manifest-{artifact.id}", "file": {"id": "f", "directUrl": f"{self.url}/storage/manifest/{artifact.id}"}}
        return {
            "__typename": "Artifact",
            "id": artifact.id,
            "artifactSequence": sequence,
            "versionIndex": artifact.index,
            "artifactType": {"name": artifact.type},
            "description": artifact.description,
            "metadata": artifact.metadata,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED" if artifact.committed else "PENDING",
            "size": sum(one.get("size", 0) for one in contents.values()),
            "digest": artifact.digest,
            "digestAlgorithm": None,
            "commitHash": artifact.digest,
            "fileCount": len(contents),
            "createdAt": _TIME,
            "updatedAt": _TIME,
            "aliases": aliases,
            "currentManifest": manifest,
            "createdBy": run and self._run_info(run),
            "usedBy": _connection([self._run_info(one) for one in self.runs.values() if artifact.id in one.used]),
            "files": files,
            "filesByManifestEntries": files,
            "artifactMemberships": {"edges": []},
        }

    def _run_info(self, run: Run) -> dict[str, Any]:
        project = {"id": "p", "internalId": "p", "name": run.project, "entity": {"id": "e", "name": run.entity}}
        return {"__typename": "Run", "id": self._id(run), "name": run.name, "project": project}

    def _files(self, artifact: Artifact) -> dict[str, Any]:
        contents = json.loads(artifact.manifest).get("contents", {})
        return _connection(
            [
                {
                    "__typename": "File",
                    "id": name,
                    "name": name,
                    "url": None,
                    "sizeBytes": one.get("size", 0),
                    "storagePath": None,
                    "mimetype": None,
                    "updatedAt": _TIME,
                    "digest": one["digest"],
                    "md5": one["digest"],
                    "directUrl": f"{self.url}/storage/file/{_hex(one['digest'])}",
                }
                for name, one in contents.items()
                if "ref" not in one
            ]
        )

    def _membership(self, entity: str, project: str, collection: str, alias: str) -> dict[str, Any] | None:
        artifact = self._find(entity, project, collection, alias)
        if artifact is None:
            return None
        whole = self._artifact(artifact, {})
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": f"membership-{artifact.id}",
            "versionIndex": artifact.index,
            "createdAt": _TIME,
            "aliases": whole["aliases"],
            "artifactCollection": self._info(artifact),
            "artifact": whole,
            "files": whole["files"],
        }

    def _collection(self, entity: str, project: str, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        versions = self._versions(entity, project, name)
        newest_first = [self._artifact(one, {}) for one in reversed(versions)]
        return self._info(versions[0]) | {
            "description": None,
            "createdAt": _TIME,
            "updatedAt": _TIME,
            "type": {"name": versions[0].type},
            "tags": {"edges": []},
            "aliases": _connection([alias for one in newest_first for alias in one["aliases"]]),
            "artifacts": _connection(newest_first, versions=True),
            "artifactMembership": self._membership(entity, project, name, str(variables.get("alias") or "latest")),
            "digestAlgorithm": None,
        }

    # ---- Files ----

    def stream(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A chunk of a run's file stream: history, summary, console output, and the end."""
        entity, project, name = (unquote(part) for part in path.split("/")[2:5])
        self._may_write(entity, project, "filestream")
        with self._lock:
            run = self.runs[(entity, project, name)]
            for file, chunk in (body.get("files") or {}).items():
                lines = chunk["content"]
                if file == "wandb-history.jsonl":
                    run.history[chunk["offset"] :] = [json.loads(line) for line in lines]
                elif file == "wandb-summary.json":
                    run.summary = json.loads(lines[-1])
                elif file == "output.log":
                    run.output[chunk["offset"] :] = lines
            if body.get("complete"):
                run.state = "failed" if body.get("exitcode") else "finished"
        return {"exitcode": None, "limits": {}}

    def put(self, path: str, body: bytes) -> None:
        """An upload."""
        _, _, kind, rest = path.split("/", 3)
        with self._lock:
            if kind == "run":
                entity, project, name, file = unquote(rest).split("/", 3)
                self.runs[(entity, project, name)].files[file] = body
            elif kind == "manifest":
                self.artifacts[rest].manifest = body
            else:
                self.stored[rest] = body

    def get(self, path: str) -> bytes:
        """A download. Raises Refused for a missing file."""
        kind, _, rest = path.removeprefix("/storage/").partition("/")
        if kind == "manifest" and rest in self.artifacts:
            return self.artifacts[rest].manifest
        if kind == "file" and rest in self.stored:
            return self.stored[rest]
        self.unknown.append(path)
        raise Refused(404, "file not found")


def top_level(query: str) -> list[tuple[str, str]]:
    """The top-level fields of a GraphQL operation, each with the name its answer goes by."""
    text = re.sub(r"#[^\n]*", "", query)
    start = re.search(r"^\s*(?:(?:query|mutation)\b[^{]*)?\{", text, re.MULTILINE)
    assert start, query
    found, depth, brackets, word = [], 1, 0, ""
    for character in text[start.end() :]:
        if depth == 1 and not brackets and character not in "{}(":
            word += character
            continue
        if depth == 1 and not brackets and (name := re.findall(r"(?:(\w+)\s*:\s*)?(\w+)\s*$", word)):
            found.append((name[0][0] or name[0][1], name[0][1]))
        word = ""
        brackets += {"(": 1, ")": -1}.get(character, 0)
        depth += {"{": 1, "}": -1}.get(character, 0) if not brackets else 0
        if depth == 0:
            break
    return found


def _connection(nodes: list[dict[str, Any]], versions: bool = False) -> dict[str, Any]:
    edges = [{"node": node, "cursor": "", **({"version": f"v{node['versionIndex']}"} if versions else {})} for node in nodes]
    return {"totalCount": len(nodes), "edges": edges, "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}}


def _type(name: str) -> dict[str, Any]:
    return {"__typename": "ArtifactType", "id": f"type-{name}", "name": name, "description": None, "createdAt": _TIME}


def _name_and_alias(name: str) -> tuple[str, str]:
    collection, _, alias = name.partition(":")
    return collection, alias or "latest"


def _fits(run: dict[str, Any], filters: dict[str, Any]) -> bool:
    """The equalities of a Mongo-like filter of runs; `$and`, `$or`, `$in`."""
    for key, wanted in filters.items():
        if key == "$and":
            ok = all(_fits(run, one) for one in wanted)
        elif key == "$or":
            ok = any(_fits(run, one) for one in wanted)
        else:
            has = run.get({"display_name": "displayName"}.get(key, key))
            ok = has in wanted["$in"] if isinstance(wanted, dict) and "$in" in wanted else has == wanted
        if not ok:
            return False
    return True


def _snake(name: str) -> str:
    """clientIDMapping: client_id_mapping."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _hex(digest: str) -> str:
    """A base64 MD5 in the form for URLs."""
    return binascii.hexlify(base64.b64decode(digest)).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _handler(double: WandbDouble) -> type[BaseHTTPRequestHandler]:  # noqa: C901  one class, a method a question
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = zlib.decompress(body, 31)
            path = urlsplit(self.path).path
            call = Call(self.command, path, self.key())
            double.calls.append(call)
            time.sleep(double.delay)
            try:
                self.reply(200, self.answer(call, path, body))
            except Refused as refused:
                error = {"message": str(refused), "path": list(call.fields[:1])}
                error |= {"extensions": {"code": refused.code}} if refused.code else {}
                self.reply(refused.status, json.dumps({"errors": [error], "data": dict.fromkeys(call.fields)}).encode())

        do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815  the names that http.server looks for

        def answer(self, call: Call, path: str, body: bytes) -> bytes:
            if double.fail_with:
                raise Refused(double.fail_with, "the double was set to fail")
            if path == "/graphql":
                sent = json.loads(body)
                call.operation = sent.get("operationName") or (re.findall(r"(?:query|mutation)\s+(\w+)", sent["query"]) or ["?"])[0]
                call.variables = sent.get("variables") or {}
                call.fields = tuple(name for name, _ in top_level(sent["query"]))
                self.refuse_key(call)
                return json.dumps({"data": double.answer(call, sent["query"])}).encode()
            if path.startswith("/storage/") and self.command == "PUT":  # like a bucket's signed URL: no key
                double.put(path, body)
                return b""
            if path.startswith("/storage/"):
                return double.get(path)
            self.refuse_key(call)
            if path.startswith("/files/") and path.endswith("/file_stream"):
                return json.dumps(double.stream(path, json.loads(body))).encode()
            return double.get(path)

        def refuse_key(self, call: Call) -> None:
            if call.key is None or call.key in double.expired or call.key not in double.keys:
                raise Refused(401, "user is not logged in", "PERMISSION_ERROR")

        def key(self) -> str | None:
            kind, _, value = self.headers.get("Authorization", "").partition(" ")
            if kind.lower() == "bearer":
                return value
            return base64.b64decode(value).decode().partition(":")[2] if kind.lower() == "basic" else None

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # a client that was tired of waiting
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=8090)
    server = WandbDouble(parser.parse_args().port)
    print(f"export WANDB_BASE_URL={server.url} WANDB_API_KEY={server.key}", flush=True)
    threading.Event().wait()
