"""Asking a W&B server: whether a key is good and may write to a project, and what the server holds of some runs.

One HTTP request a question, with a short timeout and no retry. wandb's own Api goes through its service, which tries again for minutes
when nobody answers, and calls a server in trouble a wrong key (measured with wandb 0.31.0). The queries are those of wandb's public API
(apis/public/runs.py, apis/_generated/operations.py), each field of which self-hosted servers have had for years.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from helpers.common.errors import BadInput, Unreachable, one_line

WANDB = "wandb"
CLOUD = "https://api.wandb.ai"
TIMEOUT = 10.0  # seconds; an answer takes a tenth of one
PAGE = 50  # runs a question
ID_MOST = 128  # characters of a run's id, which may hold neither blanks nor /\#?%:

CHECK = """query Check($entity: String!, $project: String!) {
  viewer { username entity teams { edges { node { name } } } }
  project(name: $project, entityName: $entity) { readOnly }
}"""
RUNS = """query HeldRuns($entity: String!, $project: String!, $filters: JSONString!, $first: Int!) {
  viewer { username }
  project(name: $project, entityName: $entity) {
    runs(filters: $filters, first: $first) { edges { node { name state summaryMetrics config } } }
  }
}"""


@dataclass(frozen=True)
class Held:
    """A run as the server holds it: its state (`finished`, `running`, `crashed`, …), its summary, and its config by key."""

    state: str
    summary: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """A W&B server, the key for it, and where the key comes from. The key is in no repr and in no message."""

    url: str
    key: str = field(repr=False)
    source: str

    def __str__(self) -> str:
        """The address without the user and password that a URL may carry."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    def check(self, entity: str, project: str) -> str:
        """Who the key is. Raises BadInput when it is refused, or may not write to the project; Unreachable when that could not be asked."""
        data = self._ask(CHECK, {"entity": entity, "project": project})
        viewer = self._viewer(data)
        who = str(viewer.get("username") or viewer.get("entity"))
        if data.get("project") is None:
            teams = [edge["node"]["name"] for edge in (viewer.get("teams") or {}).get("edges", [])]
            mine = [name for name in dict.fromkeys([viewer.get("entity"), viewer.get("username"), *teams]) if name]
            if entity not in mine:
                raise BadInput(
                    f"W&B at {self}: {who}, whose key this is, may not see {entity}/{project}: there is no entity {entity}, or {who} is "
                    f"not in it ({who} can write to {', '.join(mine)}); mend entity in the [wandb] section of env.toml"
                )
        elif data["project"].get("readOnly"):
            raise BadInput(
                f"W&B at {self}: {who}, whose key this is, may read {entity}/{project} but not write to it: ask its owners, "
                "or name another project in the [wandb] section of env.toml"
            )
        return who

    def held(self, entity: str, project: str, ids: list[str]) -> dict[str, Held]:
        """The runs with these ids that the project holds, by id; of those that it does not hold there is none.

        Raises BadInput when the key is refused, Unreachable when it could not be asked.
        """
        found: dict[str, Held] = {}
        for start in range(0, len(ids), PAGE):
            filters = json.dumps({"name": {"$in": ids[start : start + PAGE]}})
            data = self._ask(RUNS, {"entity": entity, "project": project, "filters": filters, "first": PAGE})
            self._viewer(data)
            for edge in ((data.get("project") or {}).get("runs") or {}).get("edges", []):
                node = edge["node"]
                config = {key: one.get("value") for key, one in json.loads(node.get("config") or "{}").items() if isinstance(one, dict)}
                found[str(node["name"])] = Held(str(node["state"]), json.loads(node.get("summaryMetrics") or "{}"), config)
        return found

    def run_url(self, entity: str, project: str, run: str) -> str:
        """Where a person looks at a run. The rule is wandb's (util.py: api_to_app_url): the cloud's API has a name of its own."""
        app = str(self).replace("://api.wandb.", "://wandb.")
        return f"{app}/{quote(entity)}/{quote(project)}/runs/{quote(run)}"

    def _viewer(self, data: dict[str, Any]) -> dict[str, Any]:
        viewer = data.get("viewer")
        if not isinstance(viewer, dict):
            raise self._refused()
        return viewer

    def _refused(self) -> BadInput:
        command = "`wandb login --relogin`" if str(self) == CLOUD else f"`wandb login --relogin --host={self}`"
        return BadInput(
            f"W&B at {self} refuses the key from {self.source}: it has expired, was revoked, or is another server's; "
            f"run {command}, or set WANDB_API_KEY anew"
        )

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL answer."""
        request = urllib.request.Request(  # noqa: S310  a scheme other than http and https was refused when the address was read
            f"{self.url.rstrip('/')}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={
                "Content-Type": "application/json",
                "User-Agent": "evalmake",
                "Authorization": "Basic " + base64.b64encode(f"api:{self.key}".encode()).decode(),
            },
        )
        try:
            with urllib.request.build_opener(_NoRedirect()).open(request, timeout=TIMEOUT) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise self._for_status(error.code, _words(error)) from error
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise Unreachable(f"W&B at {self} does not answer ({one_line(getattr(error, 'reason', error))})") from error
        except ValueError as error:
            raise Unreachable(f"W&B at {self}: what answers there is no W&B server, or a proxy's page stands before it") from error
        if answer.get("errors") or not isinstance(answer.get("data"), dict):
            raise self._for_status(HTTPStatus.OK, _message(answer))
        return dict(answer["data"])

    def _for_status(self, status: int, words: str) -> BadInput | Unreachable:
        if status == HTTPStatus.UNAUTHORIZED:
            return self._refused()
        if status == HTTPStatus.FORBIDDEN:
            return BadInput(f"W&B at {self} does not let this key in ({words or 'permission denied'}): ask the owners of the project")
        if status == HTTPStatus.NOT_FOUND:
            return BadInput(f"W&B at {self}: there is no W&B server at this address ({words or 'not found'}); check WANDB_BASE_URL")
        return Unreachable(f"W&B at {self} could not be asked (status {int(status)}{f': {words}' if words else ''})")


def run_id(invocation: str, name: str = "") -> str:
    """The id of the W&B run of a task (`name`: its folder, TASK.N), or of all tasks of an invocation: the same each time."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{invocation}-{name}" if name else invocation)[:ID_MOST]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would take the key along to whatever address it is sent to."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing: the answer is an HTTPError with its status."""


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return _message(json.loads(error.read()))
    except (ValueError, OSError, http.client.HTTPException):
        return ""


def _message(answer: Any) -> str:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else {}
    return one_line(first.get("message", "") if isinstance(first, dict) else first)[:200]
