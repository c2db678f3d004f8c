"""One evaluation config out of a YAML file, its defaults, a profile of env.toml and overrides; and where each value came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import composing, configs, profile_fields, schema_keys, tasks, translating, walltime
from helpers.catalogue import Task
from helpers.composing import MISSING, SECTIONS
from helpers.errors import BadInput, nearest
from helpers.files import sha256_file, shown, validate
from helpers.profiles import EXECUTION_TYPES, EnvFile, Profile
from helpers.tracing import Origin, Trace, leaves, source_name

# Left for the step that resolves models: everything else in ${…} must have a value here.
ART = re.compile(r"\$\{art:[^}]*\}")


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
    data, _ = configs.load_yaml(path)
    settings = wanted.settings()
    raw, sources = composing.compose(path, data, env, profile, settings)
    trace = Trace()
    for source, package in sources:
        trace.add_file(source, package)
    trace.add_file(path)
    trace.add_profile(env, profile)
    for name, text in settings:
        key, _, value = text.lstrip("+~").partition("=")
        trace.add(key.strip(), value, f"{name} {text}")
    notices, moved = translating.translate(raw, trace.places())
    for new, old in moved.items():
        trace.move(new, old)
    _require_sections(raw, path)
    own = source_name(path)
    notices += _apply_profile(raw, profile, trace, wanted.mode, own)
    _apply_defaults(raw, trace)
    config = _resolve(raw, trace, profile)
    notices += _unknown_keys(config, trace)
    _apply_user(config, trace)
    _require_all(config, trace, path)
    _check_walltimes(config, trace)
    chosen = tasks.choose(list(config["evaluation"].get("tasks") or []), wanted.tasks, shown(path))
    config["evaluation"]["tasks"] = chosen.entries
    validate(config, "config", shown(path))
    tasks.check(config, chosen.definitions)
    keys = {key: trace.history(key, value, own) for key, value in leaves(config)}
    hashes = {source_name(source): sha256_file(source) for source in [*(source for source, _ in sources), path]}
    return Compiled(config, keys, chosen.definitions, hashes, [*notices, *chosen.notices])


def _require_sections(raw: dict[str, Any], path: Path) -> None:
    for name in ("execution", "deployment", "evaluation"):
        if not isinstance(raw.get(name), dict):
            raise BadInput(f"{shown(path)}: there is no `{name}:` section; see configs/local.yaml for one that has all three")
    listed = raw["evaluation"].get("tasks")
    if listed is not None and (not isinstance(listed, list) or not all(isinstance(task, dict) for task in listed)):
        raise BadInput(f"{shown(path)}: evaluation.tasks: a list of `- name: TASK` was expected")


def _apply_profile(raw: dict[str, Any], profile: Profile | None, trace: Trace, mode: str, own: str) -> list[str]:
    """Put the profile's values where neither the config itself nor an override has one; a notice for each field that could not."""
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
            continue
        place = trace.keys[dotted][-1].set_by if dotted in trace.keys else ""
        node: Any = raw
        for part in effect.key[:-1]:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        current = node.get(effect.key[-1])
        if effect.only_if_open and current not in (None, MISSING):
            continue
        by_config = place.startswith((f"{own}:", "SET ", "MODEL ")) and current not in (None, MISSING)
        if not by_config:
            node[effect.key[-1]] = effect.value
            where = profile.origins.get(effect.field, f"profile {profile.name}")
            trace.add(dotted, effect.value, where if effect.field in profile.fields else f"profile {profile.name} has no {effect.field}")
        elif current != effect.value and effect.field in profile.fields and f"run.env.{effect.field}" not in str(current):
            notices.append(f"{profile.origins[effect.field]}: {effect.field} has no effect: {place} sets {dotted}")
    return notices


def _apply_defaults(raw: dict[str, Any], trace: Trace) -> None:
    """Stated defaults for what neither config nor profile says: the checkpoint of run.model, and the served model name."""
    if raw["execution"].get("username") == "${oc.env:USER}":
        raw["execution"]["username"] = None  # the launcher's default would win over the user of ~/.ssh/config, see _apply_user
    deployment = raw["deployment"]
    model = (raw.get("run") or {}).get("model")
    if model and deployment.get("checkpoint_path") == MISSING and not deployment.get("hf_model_handle"):
        deployment["checkpoint_path"] = "${art:model,path}"
        trace.add("deployment.checkpoint_path", deployment["checkpoint_path"], "default: the artifact of run.model")
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


def _resolve(raw: dict[str, Any], trace: Trace, profile: Profile | None) -> dict[str, Any]:
    """Resolve every interpolation but ${art:…}, and order the sections. Raises BadInput naming the key and where it was set."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def select_not_null(*keys: Any, _root_: Any) -> Any:
        """The launcher's resolver (nemo_evaluator_launcher/configs/__init__.py): the first key that has a value, else the last text."""
        for key in keys[:-1]:
            value = OmegaConf.select(_root_, str(key))
            if value is not None:
                return value
        return str(keys[-1])

    OmegaConf.register_new_resolver("select_not_null", select_not_null, replace=True)
    OmegaConf.register_new_resolver("art", lambda *parts: "${art:" + ",".join(map(str, parts)) + "}", replace=True)
    config = OmegaConf.create(raw)
    key = ""
    try:
        # One by one first, so that the message can name the key.
        for key, value in leaves(raw):
            if isinstance(value, str) and "${" in value:
                OmegaConf.select(config, key)
        data: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (OmegaConfBaseException, RecursionError) as error:
        hint = ""
        if "run.env." in str(error):
            hint = "; run.env comes from a profile: give PROFILE=…" if profile is None else f"; profile {profile.name} has no such field"
        raise BadInput(f"{trace.place(key)}: {key}: {composing.plain(error)}{hint}") from error
    run = data.get("run") or {}
    if not any((run.get("wandb") or {}).values()):
        run.pop("wandb", None)
    return {name: data[name] for name in [*SECTIONS, *(set(data) - set(SECTIONS))] if data.get(name) not in (None, {})}


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
    texts = (origin.value for history in trace.keys.values() for origin in history if isinstance(origin.value, str))
    return {name for text in texts for name in re.findall(r"\$\{([\w.]+)\}", text)}


def _require_all(config: dict[str, Any], trace: Trace, path: Path) -> None:
    """Raise BadInput naming every value that is still `???`, and those that a hosted endpoint, a deployment or Slurm cannot do without."""
    missing = [key for key, value in leaves(config) if value == MISSING and not key.startswith("run.")]
    kind, serving = config["execution"].get("type"), config["deployment"].get("type")
    if serving == "none":
        endpoint = (config.get("target") or {}).get("api_endpoint") or {}
        missing += [f"target.api_endpoint.{key}" for key in ("url", "model_id") if not endpoint.get(key)]
    else:
        wanted = ["served_model_name", "command"] + (["image"] if kind != "process" else [])
        missing += [f"deployment.{key}" for key in wanted if not config["deployment"].get(key)]
    if kind == "slurm":
        missing += [f"execution.{key}" for key in ("hostname", "account", "output_dir") if not config["execution"].get(key)]
    if missing:
        listed = list(dict.fromkeys(missing))
        settings = " ".join(f"{key}=…" for key in listed)
        verb = "has" if len(listed) == 1 else "have"
        hint = ", or a PROFILE" if any(key.startswith("execution.") for key in listed) else ""
        raise BadInput(f'{trace.place(listed[0], shown(path))}: {", ".join(listed)} {verb} no value; give SET="{settings}"{hint}')


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
