"""The executors by name. A new one is a folder beside the others and a line here."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from helpers.common.errors import BadInput, nearest

if TYPE_CHECKING:
    from helpers.config.executor_description import Description
    from helpers.executors.base import Executor

# Each folder has description.py with DESCRIPTION, which imports nothing heavy, and executor.py with its class EXECUTOR.
FOLDERS = {
    "process": "helpers.executors.process",
    "docker": "helpers.executors.docker",
    "slurm": "helpers.executors.slurm",
}
# The launcher knows these, and profiles written for other programs may name them; they are not supported.
REFUSED = {"lepton": "evaluations cannot be submitted to Lepton; use one of these"}


@cache
def descriptions() -> tuple[Description, ...]:
    """The descriptions of all executors, in their order."""
    return tuple(importlib.import_module(f"{folder}.description").DESCRIPTION for folder in FOLDERS.values())


def describe(word: str) -> Description:
    """The executor that an `execution.type` names, in our word or the launcher's. Raises BadInput with the known names."""
    return _chosen(word, {one.launcher_type: one for one in descriptions()})


def describe_for_profile(word: str) -> Description:
    """The executor that a profile's `executor` names. Raises BadInput with the known names."""
    return _chosen(word, {other: one for one in descriptions() for other in one.profile_words})


def get(word: str) -> Executor:
    """The executor of an `execution.type`, or of a submission's `executor`. Raises BadInput as `describe` does."""
    executor: Executor = importlib.import_module(f"{FOLDERS[describe(word).name]}.executor").EXECUTOR
    return executor


def _chosen(word: str, others: dict[str, Description]) -> Description:
    named = {one.name: one for one in descriptions()}
    known = {**named, **others}
    if word in REFUSED:
        raise BadInput(f"executor {word}: {REFUSED[word]}: {', '.join(named)}")
    if word not in known:
        raise BadInput(f"executor {word!r} does not exist{nearest(word, known)}; there are {', '.join(known)}")
    return known[word]
