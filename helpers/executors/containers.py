"""What any executor with containers does: which images it uses, and how a harness in a container counts its requests."""

from collections.abc import Iterator, Mapping
from typing import Any

from helpers.config import tasks
from helpers.executors.base import Document, ImageUse

# The harness counts its requests in artifacts/progress. nemo-evaluator 0.2.8 also posts each count to a URL, by default to port 8000,
# where the model may be. Port 9 (discard) refuses at once. Only every tenth count: each refusal is a line in the client's log.
ADAPTER = {"use_progress_tracking": True, "progress_tracking_url": "http://127.0.0.1:9", "progress_tracking_interval": 10}


def uses(config: Mapping[str, Any]) -> Iterator[ImageUse]:
    """Every use of an image by the model server, the tasks and the auxiliary deployments of a config."""
    if config["deployment"]["type"] != "none" and config["deployment"].get("image"):
        yield ImageUse(str(config["deployment"]["image"]), "deployment", ("deployment", "image"))
    for index, entry in enumerate(config["evaluation"]["tasks"]):
        if image := entry.get("container") or tasks.define(dict(entry)).container:  # its own, or the catalogue's
            yield ImageUse(image, f"task {entry['name']}", ("evaluation", "tasks", index, "container"))
    for name, one in auxiliary(config).items():
        if one.get("image"):
            yield ImageUse(str(one["image"]), f"auxiliary deployment {name}", ("auxiliary_deployments", name, "image"))


def auxiliary(config: Mapping[str, Any]) -> dict[str, Any]:
    """The auxiliary deployments that are switched on, by name."""
    listed = config.get("auxiliary_deployments") or {}
    return {name: one for name, one in listed.items() if (one or {}).get("type", "none") != "none"}


def count_requests(data: Document) -> None:
    """Have the harnesses of a launcher config count their requests, unless the config says otherwise."""
    endpoint = data["evaluation"]
    for key in ("nemo_evaluator_config", "target", "api_endpoint", "adapter_config"):
        if endpoint.get(key) is None:
            endpoint[key] = {}
        endpoint = endpoint[key]
    if not {"interceptors", "use_progress_tracking"} & endpoint.keys():
        endpoint.update({key: value for key, value in ADAPTER.items() if key not in endpoint})
