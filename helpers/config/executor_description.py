"""What a config and a profile depend on in an executor. Each executor describes itself; steps pass the descriptions to the rules here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from helpers.config.profiles import Profile


@dataclass(frozen=True)
class Effect:
    """The value that a profile's field gives to a key of the config."""

    key: tuple[str, ...]
    value: Any
    field: str
    only_if_open: bool = False  # a group's default wins over it


def no_effects(_profile: Profile, _mode: str) -> Iterator[Effect]:
    """For executors that take nothing from a profile."""
    return iter(())


@dataclass(frozen=True)
class Description:
    """An executor, as far as it matters to a config and to a profile.

    `name` is `execution.type` of a compiled config and `executor` of submission.json. `profile_words` are other words for it that a profile
    may use, `launcher_type` is the `execution.type` that the launcher takes, which a config may use too.
    """

    name: str
    launcher_type: str
    profile_words: tuple[str, ...] = ()
    fields: frozenset[str] | None = None  # the profile's fields that have an effect; None: all of them
    effects: Callable[[Profile, str], Iterator[Effect]] = no_effects  # of a profile in a mode: eval, batch or dry-run
    required: tuple[str, ...] = ()  # dotted keys of the config that need a value
    defaults: dict[str, tuple[Any, str]] = field(default_factory=dict)  # values for keys left open (`???`), each with the reason
    runs_containers: bool = True  # otherwise a task's harness must be installed here, and images have no effect
    readiness: Callable[[str], int] | None = None  # seconds for a deployment type, where execution.endpoint_readiness_timeout is null
    has_walltime: bool = False  # execution.walltime and max_walltime are Slurm's
    gpus_per_node: Callable[[Mapping[str, Any]], int] | None = None  # that a job asks for, by the execution section; None: not known
    logs_in_over_ssh: bool = False  # it runs on a cluster; execution.username defaults to the user that ssh would log in as


class Executors(Protocol):
    """The executors that exist: the module helpers/executors/registry.py."""

    def descriptions(self) -> tuple[Description, ...]:
        """All of them, in their order."""

    def describe(self, word: str) -> Description:
        """The executor that an `execution.type` names, in our word or the launcher's. Raises BadInput with the known names."""

    def describe_for_profile(self, word: str) -> Description:
        """The executor that a profile's `executor` names. Raises BadInput with the known names."""
