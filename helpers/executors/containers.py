"""The container images that any executor with containers uses."""

from collections.abc import Iterator, Mapping
from typing import Any

from helpers.config import tasks
from helpers.executors.base import ImageUse


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
