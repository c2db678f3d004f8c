"""What env.toml and a profile of it do to a config. Worked out once, before composition; all later rules take the result."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from helpers.common.errors import BadInput, located
from helpers.config import profile_fields
from helpers.config.executor_description import Description, Effect, Executors
from helpers.config.profiles import EnvFile, Profile


@dataclass(frozen=True)
class RunValue:
    """A value for `run.KEY`: the place that set it, and the profile's field that holds it (`` for a value of another section)."""

    key: str
    value: Any
    place: str
    field: str = ""


@dataclass(frozen=True)
class ProfileEffects:
    """All that env.toml gives to a config; without a profile, only its sections [wandb] and [artifacts] do."""

    run_values: tuple[RunValue, ...]  # a later one overrides an earlier one
    notices: tuple[str, ...] = ()  # for people: fields that have no effect
    profile: Profile | None = None
    executor: Description | None = None  # the profile's
    effects: tuple[Effect, ...] = ()

    def place(self, field: str) -> str:
        """File, line and profile that set a field of the profile."""
        assert self.profile is not None
        return self.profile.origins[field]

    def is_used_in(self, value: Any, field: str) -> bool:
        """Whether a value of the config already refers to this field, as ${run.env.NAME}."""
        return any(f"run.{one.key}}}" in str(value) for one in self.run_values if one.field == field)

    def node(self) -> dict[str, Any]:
        """The part of a config that `run_values` make: `run` with env, artifacts and wandb; empty without values."""
        run: dict[str, Any] = {}
        for one in self.run_values:
            section, _, name = one.key.partition(".")
            run.setdefault(section, {})[name] = one.value
        return {"run": run} if run else {}


def executor_of(env: EnvFile, profile: Profile, executors: Executors) -> Description:
    """The executor of a profile. Raises BadInput, with file and line, if it is missing, unknown or not supported."""
    word = profile.fields.get("executor")
    if not isinstance(word, str):
        place = profile.origins.get("executor") or f"{env.where(profile.name)} [{profile.name}]"
        found = "is missing" if word is None else f"is {word!r}"
        raise BadInput(f"{place}: executor {found}; expected one of {', '.join(one.name for one in executors.descriptions())}")
    with located(profile.origins["executor"]):
        return executors.describe_for_profile(word)


def resolve(env: EnvFile, profile: Profile | None, executor: Description | None, mode: str) -> ProfileEffects:
    """What env.toml and the profile, with its executor, give to a config in this mode: eval, batch or dry-run.

    Raises BadInput, with file and line, for a list or a mount that cannot be read.
    """
    run_values = tuple(_run_values(env, profile, mode))
    if profile is None or executor is None:
        return ProfileEffects(run_values)
    notices = [
        f"{profile.origins[field]}: {field} has no effect: execution.type {executor.name} does not use it"
        for field in profile.fields
        if executor.fields is not None and field in profile_fields.FIELDS and field not in executor.fields | profile_fields.EVERYWHERE
    ]
    return ProfileEffects(run_values, tuple(notices), profile, executor, tuple(executor.effects(profile, mode)))


def _run_values(env: EnvFile, profile: Profile | None, mode: str) -> Iterator[RunValue]:
    for name, value in env.tables.get("artifacts", {}).items():
        place = env.where(f"artifacts.{name}") if isinstance(value, dict) else env.where("artifacts", name)
        yield RunValue(f"artifacts.{name}", value, place)
    for name, value in env.tables.get("wandb", {}).items():
        yield RunValue(f"wandb.{name}", value, env.where("wandb", name))
    if profile is None:
        return
    for name, value in profile.fields.get("wandb", {}).items():
        yield RunValue(f"wandb.{name}", value, profile.origins["wandb"], "wandb")
    for name, value in profile.fields.items():
        if name not in ("wandb", "env_vars"):  # these have sections of their own
            yield RunValue(f"env.{name}", value, profile.origins[name], name)
    for name, field in (("container", profile_fields.image_field(profile)), ("partition", profile_fields.partition_field(profile, mode))):
        if field in profile.fields:
            yield RunValue(f"env.{name}", profile.fields[field], profile.origins[field], field)
