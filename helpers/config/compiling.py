"""Compiling: a YAML file, its defaults, env.toml, a profile and overrides become one config, and the origin of each of its values."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput
from helpers.common.files import sha256_file, shown
from helpers.config import (
    checks,
    composing,
    defaults,
    env_check,
    fit,
    interpolating,
    model_references,
    profile_effects,
    tasks,
    tokenizers,
    translating,
)
from helpers.config.catalogue import Task
from helpers.config.composing import MISSING, SECTIONS
from helpers.config.executor_description import Executors
from helpers.config.profiles import EnvFile, Profile
from helpers.config.tracing import Origin, Trace, leaves, source_name


@dataclass(frozen=True)
class Arguments:
    """The arguments of a run beside its config and profile: overrides (key=value), tasks, and MODEL and QUICK, short for overrides."""

    overrides: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    model: str | None = None
    quick: int | None = None
    mode: str = "eval"  # or batch, or dry-run

    def settings(self) -> list[tuple[str, str]]:
        """All overrides, each with the variable that it was typed in; a later one wins."""
        found = [("MODEL", f"run.model={self.model}")] if self.model else []
        found += [("QUICK", f"evaluation.nemo_evaluator_config.config.params.limit_samples={self.quick}")] if self.quick else []
        return found + [("SET", text) for text in self.overrides]


@dataclass(frozen=True)
class Compiled:
    """A compiled config; the places that set each leaf (by its dotted key, the last one wins); and notices for people."""

    config: dict[str, Any]
    keys: dict[str, list[Origin]]
    definitions: list[Task]
    sources: dict[str, str]
    notices: list[str]


def compile_config(
    path: Path, env: EnvFile, profile: Profile | None, arguments: Arguments, executors: Executors, variables: Collection[str] = ()
) -> Compiled:
    """Compile the config file `path`. Precedence: group defaults < profile < config < overrides; in run.env, config < profile.

    `variables`: the names of the variables that are set here.
    Raises BadInput, with the place, for any mistake in the config, env.toml, the profile or the overrides.
    """
    executor = profile_effects.executor_of(env, profile, executors) if profile else None
    # Only the chosen profile has to be valid: others may share the file, for other programs. Without one, [wandb] still counts.
    notices = env_check.check(env, profile.name if profile else "wandb")
    given = profile_effects.resolve(env, profile, executor, arguments.mode)
    notices += given.notices
    composed = composing.compose(path, given, arguments.settings(), executors)
    raw, trace = composed.config, Trace()
    for source, package in composed.sources:
        trace.add_file(source, package)
    trace.add_profile(given)
    for override in composed.overrides:
        trace.add_override(override)
    _require_sections(raw, trace, path)
    old_forms, moved = translating.translate(raw, trace.place)
    notices += old_forms
    notices += translating.prefix(raw, trace.place, moved)
    for new, old in moved.items():
        trace.move(new, old)
    executor = translating.executor(raw, trace.place, executors.describe)
    notices += defaults.apply_profile(raw, given, executor, trace)
    defaults.apply(raw, executor or given.executor, trace)
    defaults.apply_no_gpus(raw, executor or given.executor, trace)
    config = _ordered(interpolating.resolve(raw, trace.place, profile.name if profile else None))
    notices += translating.prefix(config, trace.place, {})
    checks.refuse_secrets(config, trace)
    notices += checks.unknown_keys(config, trace)
    executor = translating.executor(config, trace.place, executors.describe)
    if executor is None:
        place = trace.place("execution.type", shown(path))
        raise BadInput(f'{place}: execution.type has no value; give SET="execution.type=…" or a PROFILE')
    defaults.apply_user(config, executor, trace)
    checks.require_all(config, executor, trace, path)
    model_references.check(config, lambda key: trace.place(key, "env.toml"))
    defaults.apply_artifact_names(config, trace)
    checks.refuse_two_models(config, trace)
    notices += checks.unused_model(config, trace)
    defaults.apply_walltime_form(config, executor, trace)
    defaults.apply_readiness(config, executor, trace)
    notices += checks.containers(config, executor, executors, trace)
    entries = config["evaluation"]["tasks"] or []
    chosen = tasks.choose(entries, arguments.tasks, shown(path), lambda index: trace.place(f"evaluation.tasks.{index}.name"))
    trace.choose_tasks(chosen.indices, [entry["name"] for entry in chosen.entries])
    config["evaluation"]["tasks"] = chosen.entries
    checks.validate(config, trace, path)
    instead = [] if executor.runs_containers else [one.name for one in executors.descriptions() if one.runs_containers]
    tasks.check(config, chosen.definitions, trace.place, instead)
    tokenizers.apply(config, chosen.definitions, trace)
    notices += defaults.apply_hub(config, executor, chosen.definitions, variables, trace)
    if executor.gpus_per_node:
        notices += fit.check_gpus(config, executor.gpus_per_node(config["execution"]), trace.place)
    keys = {key: trace.history(key, value, source_name(path)) for key, value in leaves(config)}
    hashes = {source_name(source): sha256_file(source) for source, _ in composed.sources}
    return Compiled(config, keys, chosen.definitions, hashes, [*notices, *chosen.notices])


def _require_sections(raw: dict[str, Any], trace: Trace, path: Path) -> None:
    for name in ("execution", "deployment", "evaluation"):
        if not isinstance(raw.get(name), dict):
            raise BadInput(f"{shown(path)}: there is no `{name}:` section; configs/local.yaml is an example with all sections")
    if raw["evaluation"].get("tasks") in (None, MISSING):
        raw["evaluation"]["tasks"] = []
    listed = raw["evaluation"]["tasks"]
    place = f"{trace.place('evaluation.tasks', shown(path))}: evaluation.tasks"
    if not isinstance(listed, list):
        raise BadInput(f"{place}: expected a list of `- name: TASK`")
    for index, entry in enumerate(listed):
        place = f"{trace.place(f'evaluation.tasks.{index}', shown(path))}: evaluation.tasks.{index}"
        if not isinstance(entry, dict):
            raise BadInput(f"{place}: {entry!r}: expected `- name: {entry}`")
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            found = repr(entry["name"]) if "name" in entry else f"only {', '.join(map(str, entry)) or 'nothing'}"
            raise BadInput(f"{place}: {found}: expected `- name: TASK`; `make tasks` lists the tasks")


def _ordered(data: dict[str, Any]) -> dict[str, Any]:
    """The sections in their order, without empty ones."""
    run = data.get("run") or {}
    if not any((run.get("wandb") or {}).values()):
        run.pop("wandb", None)
    return {name: data[name] for name in [*SECTIONS, *(name for name in data if name not in SECTIONS)] if data.get(name) not in (None, {})}
