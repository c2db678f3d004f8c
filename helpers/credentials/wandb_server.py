"""A W&B server: whether a key is valid and may write to a project, and which runs the server holds.

Each question is one HTTP request with a short timeout and no retry. wandb's own Api goes through a background service that retries for
minutes when nobody answers, and reports a server in trouble as a wrong key (measured with wandb 0.31.0). The queries are those of wandb's
public API (apis/public/runs.py, apis/_generated/operations.py), and self-hosted servers have had each of their fields for years.
"""

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from helpers.common import http_client
from helpers.common.errors import BadInput, Unreachable, one_line

WANDB = "wandb"
CLOUD = "https://api.wandb.ai"
TIMEOUT = 10.0  # seconds; a usual answer takes 0.1 s
PAGE = 50  # runs per request
MAX_ID_LENGTH = 128  # W&B's limit for the id of a run, which may not hold blanks or /\#?%:

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
    """A W&B server, the key for it, and where the key comes from. The key appears in no repr and in no message."""

    url: str
    key: str = field(repr=False)
    source: str

    def __str__(self) -> str:
        """The address, without the user and password that a URL may carry."""
        return address(self.url).rstrip("/")

    def check(self, entity: str, project: str) -> str:
        """The name of the key's owner.

        Raises BadInput when the server refuses the key or the key may not write to the project, Unreachable when it gives no answer.
        """
        data = self._ask(CHECK, {"entity": entity, "project": project})
        viewer = self._viewer(data)
        who = str(viewer.get("username") or viewer.get("entity"))
        if data.get("project") is None:
            teams = [edge["node"]["name"] for edge in (viewer.get("teams") or {}).get("edges", [])]
            mine = [name for name in dict.fromkeys([viewer.get("entity"), viewer.get("username"), *teams]) if name]
            if entity not in mine:
                why = f"there is no entity {entity}, or {who} is not a member of it ({who} can write to {', '.join(mine)})"
                fix = "fix entity in the [wandb] section of env.toml"
                raise BadInput(f"W&B at {self}: {who}, who owns this key, may not see {entity}/{project}: {why}; {fix}")
        elif data["project"].get("readOnly"):
            fix = "ask the project's owners, or name another project in the [wandb] section of env.toml"
            raise BadInput(f"W&B at {self}: {who}, who owns this key, may read {entity}/{project} but not write to it: {fix}")
        return who

    def held(self, entity: str, project: str, ids: list[str]) -> dict[str, Held]:
        """Those of the runs with these ids that the project holds, by id.

        Raises BadInput when the server refuses the key, Unreachable when it gives no answer.
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
        """The page of a run. As in wandb's api_to_app_url (util.py): the cloud serves its API and its pages under different names."""
        app = str(self).replace("://api.wandb.", "://wandb.")
        return f"{app}/{quote(entity)}/{quote(project)}/runs/{quote(run)}"

    def _viewer(self, data: dict[str, Any]) -> dict[str, Any]:
        viewer = data.get("viewer")
        if not isinstance(viewer, dict):
            raise self._refused()
        return viewer

    def _refused(self) -> BadInput:
        why = "it has expired, was revoked, or belongs to another server"
        fix = f"run `wandb login --relogin{'' if str(self) == CLOUD else f' --host={self}'}`, or set another WANDB_API_KEY"
        return BadInput(f"W&B at {self} refuses the key from {self.source}: {why}; {fix}")

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL answer. Redirects are not followed, so the key goes to this address alone."""
        try:
            question = {"query": query, "variables": variables}
            response = http_client.request("POST", f"{self.url.rstrip('/')}/graphql", TIMEOUT, json=question, auth=("api", self.key))
        except http_client.NoAnswer as error:
            raise Unreachable(f"W&B at {self} does not answer ({one_line(error)})") from error
        try:
            answer = response.json()
        except ValueError as error:
            if response.is_success:
                raise Unreachable(f"W&B at {self}: the answer is not from a W&B server; perhaps a proxy answers instead") from error
            answer = {}
        if not response.is_success or not isinstance(answer, dict) or answer.get("errors") or not isinstance(answer.get("data"), dict):
            raise self._for_status(response.status_code, _message(answer))
        return dict(answer["data"])

    def _for_status(self, status: int, words: str) -> BadInput | Unreachable:
        if status == HTTPStatus.UNAUTHORIZED:
            return self._refused()
        if status == HTTPStatus.FORBIDDEN:
            return BadInput(f"W&B at {self} rejects this key ({words or 'permission denied'}): ask the project's owners for access")
        if status == HTTPStatus.NOT_FOUND:
            return BadInput(f"W&B at {self}: there is no W&B server at this address ({words or 'not found'}); check WANDB_BASE_URL")
        return Unreachable(f"W&B at {self} answers with an error (status {status}{f': {words}' if words else ''})")


def address(url: str) -> str:
    """A URL without the user and password that it may carry."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def run_id(invocation: str, name: str = "") -> str:
    """The id of the W&B run of a task (`name`: its folder, TASK.N), or of all tasks of an invocation: the same every time."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{invocation}-{name}" if name else invocation)[:MAX_ID_LENGTH]


def _message(answer: Any) -> str:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else {}
    return one_line(first.get("message", "") if isinstance(first, dict) else first)[:200]
