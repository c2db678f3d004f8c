"""One evaluation config out of a YAML file, its defaults, a profile of env.toml and overrides; and where each value came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common import secrets, walltime
from helpers.common.errors import BadInput, nearest
from helpers.common.files import sha256_file, shown, validate
from helpers.config import composing, env_check, interpolating, model_references, profile_fields, schema_keys, tasks, translating
from helpers.config.catalogue import Task
from helpers.config.composing import MISSING, SECTIONS
from helpers.config.profiles import EXECUTION_TYPES, EnvFile, Profile
from helpers.config.tracing import Origin, Trace, leaves, source_name

# The launcher's default for execution.username, which would win over the user of ~/.ssh/config.
USER_HERE = "${oc.env:USER}"
# The launcher's deployments that serve the folder mounted at /checkpoint, unless hf_model_handle names a model.
NEED_CHECKPOINT = ("vllm", "vllm_ray", "sglang", "trtllm")


@dataclass(frozen=True)
class Wanted:
    """What is asked beside the config: overrides (key=value), tasks, and the variables that are short for overrides."""

    overrides: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    model: str | None = None
    quick: int | None = None
    mode: str = "eval"

    def settings(self) -> list[tuple[str, str]]:
        """All overrides, each with the variable that it was typed in; a later one wins."""
        found = [("MODEL", f"run.model={self.model}")] if self.model else []
        found += [("QUICK", f"evaluation.nemo_evaluator_config.config.params.limit_samples={self.quick}")] if self.quick else []
        return found + [("SET", text) for text in self.overrides]


@dataclass(frozen=True)
class Compiled:
    """The compiled config; for each leaf (dotted key) the places that set it, the last one wins; and what to tell the person."""

    config: dict[str, Any]
    keys: dict[str, list[Origin]]
    definitions: list[Task]
    sources: dict[str, str]
    notices: list[str]


def compile_config(path: Path, env: EnvFile, profile: Profile | None, wanted: Wanted) -> Compiled:
    """Compile the config file `path`. Precedence: group defaults < profile's fields < config < overrides; run.env: config < profile.

    Raises BadInput for anything that the person who wrote the config, the profile or the overrides has to mend.
    """
    # Without a profile its reserved sections still count ([wandb]); somebody else's profile does not.
    notices = env_check.check(env, profile.name if profile else "wandb")
    composed = composing.compose(path, env, profile, wanted.settings(), wanted.mode)
    raw, trace = composed.config, Trace()
    for source, package in composed.sources:
        trace.add_file(source, package, own=not package)
    trace.add_profile(env, profile, wanted.mode)
    for override in composed.overrides:
        trace.add_override(override)
    _require_sections(raw, trace, path)
    old_forms, moved = translating.translate(raw, trace.place)
    notices += old_forms
    notices += translating.prefix(raw, trace.place, moved)
    for new, old in moved.items():
        trace.move(new, old)
    notices += _apply_profile(raw, profile, trace, wanted.mode)
    _apply_defaults(raw, trace)
    config = _ordered(interpolating.resolve(raw, trace.place, profile.name if profile else None))
    notices += translating.prefix(config, trace.place, {})
    _refuse_secrets(config, trace)
    notices += _unknown_keys(config, trace)
    _apply_user(config, trace)
    _require_all(config, trace, path)
    _check_artifacts(config, trace)
    _refuse_two_models(config, trace)
    notices += _unused_model(config, trace)
    _check_walltimes(config, trace)
    entries = config["evaluation"]["tasks"] or []
    chosen = tasks.choose(entries, wanted.tasks, shown(path), lambda index: trace.place(f"evaluation.tasks.{index}.name"))
    trace.choose_tasks(chosen.indices, [entry["name"] for entry in chosen.entries])
    config["evaluation"]["tasks"] = chosen.entries
    _validate(config, trace, path)
    tasks.check(config, chosen.definitions, trace.place)
    keys = {key: trace.history(key, value, source_name(path)) for key, value in leaves(config)}
    hashes = {source_name(source): sha256_file(source) for source, _ in composed.sources}
    return Compiled(config, keys, chosen.definitions, hashes, [*notices, *chosen.notices])


def _require_sections(raw: dict[str, Any], trace: Trace, path: Path) -> None:
    for name in ("execution", "deployment", "evaluation"):
        if not isinstance(raw.get(name), dict):
            raise BadInput(f"{shown(path)}: there is no `{name}:` section; see configs/local.yaml for one that has all three")
    listed = raw["evaluation"].setdefault("tasks", [])
    if listed is None or listed == MISSING:
        raw["evaluation"]["tasks"] = listed = []
    place = f"{trace.place('evaluation.tasks', shown(path))}: evaluation.tasks"
    if not isinstance(listed, list):
        raise BadInput(f"{place}: a list of `- name: TASK` was expected")
    for index, entry in enumerate(listed):
        place = f"{trace.place(f'evaluation.tasks.{index}', shown(path))}: evaluation.tasks.{index}"
        if not isinstance(entry, dict):
            raise BadInput(f"{place}: `- name: {entry}` was expected, not {entry!r}")
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            found = f"not {entry['name']!r}" if "name" in entry else f"and there is only {', '.join(map(str, entry)) or 'nothing'}"
            raise BadInput(f"{place}: `- name: TASK` was expected, {found}; `make tasks` lists the tasks")


def _apply_profile(raw: dict[str, Any], profile: Profile | None, trace: Trace, mode: str) -> list[str]:
    """Put the profile's values where neither the config itself nor an override has one; a notice for each field that could not."""
    if raw["execution"].get("username") == USER_HERE:
        raw["execution"]["username"] = None
    if profile is None:
        return []
    kind = raw["execution"].get("type")
    expected = EXECUTION_TYPES[profile.fields["executor"]]
    if kind in (None, MISSING):
        raw["execution"]["type"] = kind = expected
        trace.add("execution.type", expected, profile.origins["executor"])
    if kind != expected:
        raise BadInput(
            f"{profile.origins['executor']}: executor = {profile.fields['executor']!r} runs execution.type {expected}, and the config says "
            f"{kind} ({trace.place('execution.type')}); choose another PROFILE or CONFIG"
        )
    notices = profile_fields.without_effect(profile, kind)
    for effect in profile_fields.effects(profile, kind, mode):
        dotted = ".".join(effect.key)
        if effect.key[0] == "deployment" and raw["deployment"].get("type") == "none":
            notices.append(f"{profile.origins[effect.field]}: {effect.field} has no effect: deployment.type none deploys nothing")
            continue
        node: Any = raw
        for part in effect.key[:-1]:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        current = node.get(effect.key[-1])
        stated = current not in (None, MISSING)
        if stated and (trace.is_own(dotted) or effect.only_if_open):
            if current != effect.value and not _uses(current, effect.field, profile):
                notices.append(f"{profile.origins[effect.field]}: {effect.field} has no effect: {trace.place(dotted)} sets {dotted}")
            continue
        node[effect.key[-1]] = effect.value
        trace.add(dotted, effect.value, profile.origins[effect.field])
    return notices


def _uses(value: Any, field: str, profile: Profile) -> bool:
    """Whether a value of the config takes the profile's field itself, as ${run.env.FIELD}."""
    aliases = {"container_image": ("container",), "run_partition": ("partition",), "batch_partition": ("partition",)}
    return any(f"run.env.{name}}}" in str(value) for name in (field, *aliases.get(field, ()))) and field in profile.fields


def _apply_defaults(raw: dict[str, Any], trace: Trace) -> None:
    """Stated defaults for what neither config nor profile says: Docker's output folder, run.model's checkpoint, the served model name."""
    execution = raw["execution"]
    if execution.get("type") == "local" and execution.get("output_dir") == MISSING:
        execution["output_dir"] = None
        trace.add("execution.output_dir", None, "default: the run's own folder")
    deployment = raw["deployment"]
    model = (raw.get("run") or {}).get("model")
    is_open = "checkpoint_path" in deployment and deployment["checkpoint_path"] in (None, MISSING)
    if model and model != MISSING and is_open and not deployment.get("hf_model_handle"):
        deployment["checkpoint_path"] = "${art:model,path}"
        trace.add("deployment.checkpoint_path", deployment["checkpoint_path"], "default: the artifact of run.model")
    if deployment.get("hf_model_handle") and deployment.get("checkpoint_path") == MISSING:
        deployment["checkpoint_path"] = None
        trace.add("deployment.checkpoint_path", None, "default: deployment.hf_model_handle names the model")
    if deployment.get("type") in (None, "none") or deployment.get("served_model_name") not in (None, MISSING):
        return
    checkpoint = deployment.get("hf_model_handle") or deployment.get("checkpoint_path")
    if model:
        name, why = str(model), "run.model"
    elif checkpoint and checkpoint != MISSING and "${" not in str(checkpoint):
        name, why = Path(str(checkpoint)).name, "the checkpoint's name"
    else:
        name, why = "model", "nothing else"
    deployment["served_model_name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    trace.add("deployment.served_model_name", deployment["served_model_name"], f"default: from {why}")


def _apply_user(config: dict[str, Any], trace: Trace) -> None:
    """Without a user, what ssh itself would use on that host; the host is known only after interpolation."""
    execution = config["execution"]
    if execution.get("type") == "slurm" and not execution.get("username"):
        execution["username"] = profile_fields.ssh_user(execution.get("hostname"))
        trace.add("execution.username", execution["username"], f"default: what ssh would use on {execution.get('hostname')}")


def _ordered(data: dict[str, Any]) -> dict[str, Any]:
    """The sections in their order, without those that are empty."""
    run = data.get("run") or {}
    if not any((run.get("wandb") or {}).values()):
        run.pop("wandb", None)
    return {name: data[name] for name in [*SECTIONS, *(name for name in data if name not in SECTIONS)] if data.get(name) not in (None, {})}


def _refuse_secrets(config: dict[str, Any], trace: Trace) -> None:
    """Raise BadInput for a text that has the form of a key in use: it would stand in the run's files."""
    for key, value in leaves(config):
        if isinstance(value, str) and secrets.is_secret(value):
            mend = "put it into the environment or .env, and name the variable (host:NAME in env_vars, target.api_endpoint.api_key_name)"
            raise BadInput(f"{trace.place(key)}: {key}: a secret is written out here; {mend}")


def _unknown_keys(config: dict[str, Any], trace: Trace) -> list[str]:
    """A notice for each key that the schema does not know. Raises BadInput, with the place, when it is near one that it knows."""
    notices: list[str] = []
    seen: set[str] = set()
    used = _interpolated(trace)
    for key, _ in leaves(config):
        parts = key.split(".")
        name = next((n for n in (".".join(parts[:depth]) for depth in range(1, len(parts) + 1)) if not schema_keys.is_known(n)), None)
        if name is None or name in seen or any(word == name or word.startswith(f"{name}.") for word in used):
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        siblings = [known.rpartition(".")[2] for known in schema_keys.all_keys() if known.rpartition(".")[0] == parent]
        if near := nearest(name.rpartition(".")[2], siblings):
            raise BadInput(f"{trace.place(key)}: unknown key {name}{near}")
        notices.append(f"{trace.place(key)}: {name} is no key that the launcher or evalmake reads; it is passed on as it is")
    return notices


def _interpolated(trace: Trace) -> set[str]:
    """The keys that some value of the config interpolates: a config may keep values of its own that way."""
    return {name for text in trace.texts() for name in re.findall(r"\$\{([\w.]+)\}", text)}


def _require_all(config: dict[str, Any], trace: Trace, path: Path) -> None:
    """Raise BadInput naming every value that is still `???`, and those that a hosted endpoint, a deployment or Slurm cannot do without."""
    kind, serving = config["execution"].get("type"), config["deployment"].get("type")
    unused = ("run.",) if serving == "none" else ("run.", "target.api_endpoint.")
    missing = [key for key, value in leaves(config) if value == MISSING and not key.startswith(unused)]
    if serving == "none":
        endpoint = (config.get("target") or {}).get("api_endpoint") or {}
        missing += [f"target.api_endpoint.{key}" for key in ("url", "model_id") if not endpoint.get(key)]
    else:
        wanted = ["served_model_name", "command"] + (["image"] if kind != "process" else [])
        if serving in NEED_CHECKPOINT and not config["deployment"].get("hf_model_handle"):
            wanted.append("checkpoint_path")
        missing += [f"deployment.{key}" for key in wanted if not config["deployment"].get(key)]
    if kind == "slurm":
        missing += [f"execution.{key}" for key in ("hostname", "account", "output_dir") if not config["execution"].get(key)]
    run = config.get("run") or {}
    missing += [f"run.{key}" for key in sorted({use.key for use in model_references.uses(config)}) if run.get(key) in (None, "", MISSING)]
    if missing:
        listed = list(dict.fromkeys(missing))
        settings = " ".join(f"{key}=…" for key in listed)
        verb = "has" if len(listed) == 1 else "have"
        hint = ", or a PROFILE" if any(key.startswith("execution.") for key in listed) else ""
        raise BadInput(f'{trace.place(listed[0], shown(path))}: {", ".join(listed)} {verb} no value; give SET="{settings}"{hint}')


def _check_artifacts(config: dict[str, Any], trace: Trace) -> None:
    """Write out what short names mean, where a model is named by artifact.

    Raises BadInput, with the place, for what cannot be looked up.
    """
    try:
        model_references.check(config)
    except BadInput as error:
        key = re.split(r"[:=]", str(error))[0]
        raise BadInput(f"{trace.place(key if '.' in key else 'run.artifacts', 'env.toml')}: {error}") from error
    if not model_references.uses(config):
        return
    settings = config["run"].setdefault("artifacts", {})
    own = settings.get("names") or {}
    settings["names"] = model_references.names(config)
    for short, name in settings["names"].items():
        if own.get(short) != name:
            trace.add(f"run.artifacts.names.{short}", name, "default: the recipe's name")


def _unused_model(config: dict[str, Any], trace: Trace) -> list[str]:
    """A notice for a run.model that nothing takes: the config names its checkpoint otherwise."""
    if not (config.get("run") or {}).get("model") or any(use.key == "model" for use in model_references.uses(config)):
        return []
    deployment = config["deployment"]
    name = next((name for name in ("checkpoint_path", "hf_model_handle") if deployment.get(name)), "type")
    by = f"{trace.place(f'deployment.{name}')} sets deployment.{name}"
    return [f"{trace.place('run.model')}: run.model has no effect: {by}; ${{art:model,path}} there would take it"]


def _refuse_two_models(config: dict[str, Any], trace: Trace) -> None:
    """Refuse a hosted endpoint beside a deployment, as the launcher does; what the launcher's default config leaves open is dropped."""
    endpoint = (config.get("target") or {}).get("api_endpoint")
    if config["deployment"]["type"] == "none" or not isinstance(endpoint, dict):
        return
    for name in ("url", "model_id"):
        if endpoint.get(name) in (None, MISSING):
            endpoint.pop(name, None)
        else:
            raise BadInput(
                f"{trace.place(f'target.api_endpoint.{name}')}: target.api_endpoint.{name} names a hosted model, and deployment.type "
                f"{config['deployment']['type']} ({trace.place('deployment.type')}) serves one; take it out, or choose deployment.type none"
            )


def _validate(config: dict[str, Any], trace: Trace, path: Path) -> None:
    """Check the config against its schema. Raises BadInput with the place of the key."""
    try:
        validate(config, "config", "")
    except BadInput as error:
        text = str(error).removeprefix(": ")
        raise BadInput(f"{trace.place(text.partition(': ')[0], shown(path))}: {text}") from error


def _check_walltimes(config: dict[str, Any], trace: Trace) -> None:
    """Write walltimes in the one form that the launcher reads. Raises BadInput for what Slurm would not take."""
    if config["execution"]["type"] != "slurm":
        return
    for name in ("walltime", "max_walltime"):
        value = config["execution"].get(name)
        if value is None:
            continue
        place = f"{trace.place(f'execution.{name}')}: execution.{name}"
        if not isinstance(value, str):
            raise BadInput(
                f'{place}: text was expected, not the number {value!r}: put it in quotes, "HH:MM:SS" (YAML reads 12:30:45 as 45045)'
            )
        total = walltime.seconds(value, place)
        if not walltime.LAUNCHER_FORM.fullmatch(value):
            config["execution"][name] = walltime.canonical(total)
