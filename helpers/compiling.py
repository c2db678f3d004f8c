"""One evaluation config out of a YAML file, its defaults, a profile of env.toml and overrides; and where each value came from.

Hydra composes and OmegaConf interpolates; the launcher is not imported (its groups are read from its folder).
"""

from __future__ import annotations

import getpass
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import configs, tasks
from helpers.catalogue import Task
from helpers.errors import BadInput, nearest, one_line
from helpers.files import ROOT, load_schema, sha256_file, shown
from helpers.profiles import EXECUTION_TYPES, EnvFile, Profile

MISSING = "???"
SECTIONS = ("run", "execution", "deployment", "target", "evaluation", "export", "env_vars", "auxiliary_deployments")
# Left for the step that resolves models: everything else in ${…} must have a value here.
ART = re.compile(r"\$\{art:[^}]*\}")
_ASKED, _PROFILE = "evalmake_asked", "evalmake_profile"


@dataclass
class Origin:
    """One place that set a value."""

    value: Any
    set_by: str


@dataclass
class Compiled:
    """The compiled config; for each leaf (dotted key) the places that set it, the last one wins; and what to tell the person."""

    config: dict[str, Any]
    keys: dict[str, list[Origin]]
    definitions: list[Task]
    sources: dict[str, str]
    notices: list[str] = field(default_factory=list)


def launcher_configs() -> Path:
    """The folder of the launcher's own config groups, found without importing the launcher (0.9 s)."""
    spec = importlib.util.find_spec("nemo_evaluator_launcher")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "configs"


def compile_config(
    path: Path,
    env: EnvFile,
    profile: Profile | None = None,
    overrides: list[str] | None = None,
    asked_tasks: list[str] | None = None,
    model: str | None = None,
    quick: int | None = None,
) -> Compiled:
    """Compile the config file `path`. Precedence: defaults < config < profile (its parents first) < overrides.

    Raises BadInput for anything that the person who wrote the config, the profile or the overrides has to mend.
    """
    data, lines = configs.load_yaml(path)
    settings = [("SET", text) for text in overrides or []]
    settings += [("MODEL", f"run.model={model}")] if model else []
    settings += [("QUICK", f"evaluation.nemo_evaluator_config.config.params.limit_samples={quick}")] if quick else []
    primary = _with_defaults(data, path, profile)
    keys: dict[str, list[Origin]] = {}
    composed, sources = _compose(primary, path, _profile_node(env, profile), settings)
    _trace_files(keys, sources, path, lines)
    _trace_profile(keys, env, profile)
    for name, text in settings:
        key, _, value = text.lstrip("+~").partition("=")
        _add(keys, key.strip(), value, f"{name} {text}")
    config = _fill(composed, keys, profile)
    unknown = _unknown_keys(config, keys)
    _require_all(config, keys, path)
    chosen = tasks.choose(list(config["evaluation"].get("tasks") or []), asked_tasks or [], shown(path))
    config["evaluation"]["tasks"] = chosen.entries
    from helpers.files import validate

    validate(config, "config", shown(path))
    tasks.check(config, chosen.definitions)
    leaves = dict(_leaves(config))
    final = {key: _history(keys, key, value, shown(path)) for key, value in leaves.items()}
    hashes = {_source_name(source): sha256_file(source) for source, _ in [*sources, (path, "")]}
    return Compiled(config, final, chosen.definitions, hashes, [*chosen.notices, *unknown])


# ---- composition ---------------------------------------------------------------------------------------------------------------------


def _with_defaults(data: dict[str, Any], path: Path, profile: Profile | None) -> dict[str, Any]:
    """The config with a `defaults:` list: its own, or the groups that its execution.type and deployment.type name."""
    data = dict(data)
    for name in SECTIONS:
        if data.get(name) is not None and not isinstance(data[name], dict):
            raise BadInput(f"{shown(path)}: {name}: `key: value` lines were expected, not {data[name]!r}")
    executor = profile.fields["executor"] if profile else None
    if "defaults" not in data:
        kind = (data.get("execution") or {}).get("type") or (EXECUTION_TYPES[executor] if executor else None)
        if not kind or kind == MISSING:
            raise BadInput(
                f"{shown(path)}: execution.type is missing; give `execution: {{type: slurm}}` (or process, local, lepton), "
                "or a PROFILE whose executor says it"
            )
        serving = (data.get("deployment") or {}).get("type") or "none"
        data["defaults"] = [*_group("execution", str(kind)), *_group("deployment", str(serving)), "_self_"]
    defaults = data["defaults"]
    if not isinstance(defaults, list):
        raise BadInput(f"{shown(path)}: defaults: a list such as `- execution: slurm/default` was expected")
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    data["defaults"] = [*defaults, _PROFILE]
    return data


def _group(group: str, kind: str) -> list[dict[str, str]]:
    for folder in (configs.CONFIGS, launcher_configs()):
        for name in (kind, f"{kind}/default"):
            if (folder / group / f"{name}.yaml").is_file():
                return [{group: name}]
    return []


def _compose(
    primary: dict[str, Any], path: Path, profile_node: dict[str, Any], settings: list[tuple[str, str]]
) -> tuple[Any, list[tuple[Path, str]]]:
    """Compose with Hydra; returns the config and the files that went into it, in order, each with the package it was put under."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _register_resolvers()
    folders = list(dict.fromkeys([path.parent, configs.CONFIGS, launcher_configs()]))
    # Folders with spaces or commas are quoted for Hydra's grammar.
    listed = ",".join("'file://" + str(folder).replace("'", "\\'") + "'" for folder in folders)
    search = f"hydra.searchpath=[{listed}]"
    store = ConfigStore.instance()
    try:
        store.store(name=_ASKED, node=OmegaConf.create(primary))
        store.store(name=_PROFILE, node=OmegaConf.create(profile_node), package="_global_")
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(configs.CONFIGS), version_base=None):
            base = compose(_ASKED, overrides=[search]) if settings else None
            typed = [_override(name, text, base) for name, text in settings]
            config = compose(_ASKED, overrides=[search, *typed])
            loader = GlobalHydra.instance().config_loader()
            listing = loader.compute_defaults_list(_ASKED, [search, *typed], RunMode.RUN).defaults
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(f"{shown(path)}: {_plain(error)}") from error
    found = []
    for item in listing:
        name = item.config_path
        if (item.package and item.package.split(".")[0] == "hydra") or name in (_ASKED, _PROFILE) or name is None:
            continue
        for folder in folders:
            if (folder / f"{name}.yaml").is_file():
                found.append((folder / f"{name}.yaml", item.package or ""))
                break
    OmegaConf.set_struct(config, False)
    return config, found


def _register_resolvers() -> None:
    from omegaconf import OmegaConf

    def select_not_null(*keys: Any, _root_: Any) -> Any:
        """The launcher's resolver (nemo_evaluator_launcher/configs/__init__.py): the first key that has a value, else the last text."""
        for key in keys[:-1]:
            value = OmegaConf.select(_root_, str(key))
            if value is not None:
                return value
        last = str(keys[-1])
        return OmegaConf.select(_root_, last) if "/" not in last and OmegaConf.select(_root_, last) is not None else last

    OmegaConf.register_new_resolver("select_not_null", select_not_null, replace=True)
    OmegaConf.register_new_resolver("art", lambda *parts: "${art:" + ",".join(map(str, parts)) + "}", replace=True)


def _plain(error: Exception) -> str:
    """Hydra's message without its link to a web page and its search path; for a group that is not there, with the nearest that is."""
    text = one_line(str(error))
    if found := re.search(r"Could not (?:find|load) '([^']+)'.*?Available options in '[^']+': (.*?) Config search path", text):
        group, _, name = found[1].rpartition("/")
        options = sorted({path.stem for folder in (configs.CONFIGS, launcher_configs()) for path in (folder / group).glob("*.yaml")})
        options += sorted(f"{path.parent.name}/{path.stem}" for path in (launcher_configs() / group).glob("*/*.yaml"))
        return f"defaults: there is no {group} called {name}{nearest(name, options)}; there are {', '.join(options)}"
    return re.sub(r"See https?://\S+.*| Config search path.*|In '(?:evalmake_\w+)': ", "", text).strip()


# ---- overrides -----------------------------------------------------------------------------------------------------------------------


def _override(name: str, text: str, base: Any) -> str:
    """One override in Hydra's grammar. A key that the config lacks but the schema knows is added as if `+` had been typed.

    A value that Hydra's grammar cannot read (`--flag=1`) is taken as text. Raises BadInput without `=`, or for an unknown key.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    if "=" not in text and not text.startswith("~"):
        raise BadInput(f"{name}: {text!r} has no `=`; key=value was expected, for example deployment.tensor_parallel_size=8")
    key = re.split(r"=", text.lstrip("+~"), maxsplit=1)[0].strip()
    if not key:
        raise BadInput(f"{name}: {text!r} has no key before `=`; key=value was expected")
    parser = OverridesParser.create()
    try:
        parsed = parser.parse_override(text)
    except HydraException:
        head, _, value = text.partition("=")
        text = f"{head}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            raise BadInput(f"{name}: {shlex.quote(key)} cannot be read as a key: {_plain(error)}") from error
    if text.startswith(("+", "~")) or ("." not in key and isinstance(parsed.value(), str) and key in ("execution", "deployment")):
        return text
    if OmegaConf.select(base, key, throw_on_missing=False) is not None or _exists(base, key):
        return text
    if _is_known(key):
        return f"++{text}"
    known = [leaf for leaf, _ in _leaves(OmegaConf.to_container(base, resolve=False))] + list(_schema_keys())
    raise BadInput(f"{name}: the config has no key {key}{nearest(key, known)}; +{key}=… adds it all the same")


def _exists(base: Any, key: str) -> bool:
    from omegaconf import OmegaConf

    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else base
    return (OmegaConf.is_dict(node) and last in node) or (OmegaConf.is_list(node) and last.isdecimal() and int(last) < len(node))


def _is_known(key: str) -> bool:
    """Whether the schema of configs has this dotted key, or lets anything stand below one of its parents."""
    schema: dict[str, Any] = load_schema("config")
    for part in key.split("."):
        properties = schema.get("properties")
        if properties is None:
            items = schema.get("items")
            if items is not None and part.isdecimal():
                schema = items
                continue
            return bool(schema.get("additionalProperties", "object" in schema.get("type", [])))
        if part not in properties:
            return False
        schema = properties[part]
    return True


def _schema_keys() -> Iterator[str]:
    def walk(schema: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, below in schema.get("properties", {}).items():
            yield f"{prefix}{name}"
            yield from walk(below, f"{prefix}{name}.")

    return walk(load_schema("config"), "")


# ---- profile -------------------------------------------------------------------------------------------------------------------------


def _profile_node(env: EnvFile, profile: Profile | None) -> dict[str, Any]:
    run: dict[str, Any] = {}
    if profile:
        run["env"] = {key: value for key, value in profile.fields.items() if key != "wandb"}
        image = profile.fields.get("container_image", profile.fields.get("container"))
        if image is not None:
            run["env"]["container"] = image
    wandb = {**env.tables.get("wandb", {}), **(profile.fields.get("wandb", {}) if profile else {})}
    if wandb:
        run["wandb"] = wandb
    return {"run": run} if run else {}


# config key: what gives it when the config does not, out of the profile's fields
def _from_profile(fields: dict[str, Any]) -> dict[str, Any]:
    given = {
        "execution.hostname": fields.get("host") or ("localhost" if fields.get("tunnel") == "local" else None),
        "execution.account": fields.get("account"),
        "execution.partition": fields.get("run_partition") or fields.get("partition"),
        "execution.username": fields.get("user") or getpass.getuser(),
        "execution.walltime": fields.get("time"),
        "execution.output_dir": f"{fields['remote_job_dir']}/evaluations" if fields.get("remote_job_dir") else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _fill(composed: Any, keys: dict[str, list[Origin]], profile: Profile | None) -> dict[str, Any]:
    """Give the profile's values to the keys that the config leaves open, resolve every interpolation, order the sections."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    kind = OmegaConf.select(composed, "execution.type", throw_on_missing=False)
    if profile and kind != EXECUTION_TYPES[profile.fields["executor"]]:
        raise BadInput(
            f"{profile.origins['executor']}: executor = {profile.fields['executor']!r} runs execution.type "
            f"{EXECUTION_TYPES[profile.fields['executor']]}, "
            f"and the config says {kind}; choose another PROFILE or CONFIG, or leave `execution` out of its defaults"
        )
    if profile and kind == "slurm":
        for key, value in _from_profile(profile.fields).items():
            raw = OmegaConf.to_container(composed.execution, resolve=False).get(key.partition(".")[2])  # type: ignore[union-attr]
            if raw in (None, MISSING) or raw == "${oc.env:USER}":
                OmegaConf.update(composed, key, value)
                _add(keys, key, value, f"profile {profile.name}")
    try:
        # Interpolated leaf by leaf first, so that the message can name the key.
        for key, value in _leaves(OmegaConf.to_container(composed, resolve=False)):
            if isinstance(value, str) and "${" in value:
                OmegaConf.select(composed, key)
        data: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        where = keys.get(key, [Origin(None, "")])[-1].set_by if "key" in locals() else ""
        hint = "; run.env comes from a profile: give PROFILE=…" if "run.env" in str(error) and not profile else ""
        raise BadInput(f"{where or 'config'}: {key}: {_plain(error).partition(' full_key:')[0]}{hint}") from error
    for name in ("execution", "deployment", "evaluation"):
        if not isinstance(data.get(name), dict):
            raise BadInput(f"the config has no `{name}:` section; see configs/local.yaml for one that has all three")
    if isinstance(data["evaluation"].get("tasks"), dict):
        raise BadInput("evaluation.tasks: a list `- name: TASK` was expected")
    return {name: data[name] for name in [*SECTIONS, *(set(data) - set(SECTIONS))] if name in data}


# ---- origins -------------------------------------------------------------------------------------------------------------------------


def _trace_files(keys: dict[str, list[Origin]], sources: list[tuple[Path, str]], path: Path, lines: dict[str, int]) -> None:
    for source, package in sources:
        if source != path:
            data, marks = configs.load_yaml(source)
            _trace(keys, source, {key: value for key, value in data.items() if key != "defaults"}, marks, package)
    data, _ = configs.load_yaml(path)
    _trace(keys, path, {key: value for key, value in data.items() if key != "defaults"}, lines, "")


def _trace(keys: dict[str, list[Origin]], source: Path, data: dict[str, Any], lines: dict[str, int], package: str) -> None:
    for key, value in _leaves(data):
        full = f"{package}.{key}" if package else key
        _add(keys, full, value, f"{_source_name(source)}:{lines.get(key, 1)}")


def _source_name(source: Path) -> str:
    launcher = launcher_configs()
    if source.is_relative_to(launcher):
        return f"nemo_evaluator_launcher/configs/{source.relative_to(launcher)}"
    return str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else str(source)


def _trace_profile(keys: dict[str, list[Origin]], env: EnvFile, profile: Profile | None) -> None:
    if profile:
        for key, value in profile.fields.items():
            _add(keys, f"run.env.{key}", value, profile.origins[key])
            if key in ("container_image", "container"):
                _add(keys, "run.env.container", value, profile.origins[key])
    for key, value in env.tables.get("wandb", {}).items():
        _add(keys, f"run.wandb.{key}", value, env.where("wandb", key))


def _add(keys: dict[str, list[Origin]], key: str, value: Any, set_by: str) -> None:
    keys.setdefault(key, []).append(Origin(value, set_by))


def _history(keys: dict[str, list[Origin]], key: str, value: Any, fallback: str) -> list[Origin]:
    """The places that set a leaf. A leaf inside something set as a whole (an override of a list, a task added) has its parent's places."""
    probe = key
    while probe:
        if probe in keys:
            return keys[probe]
        probe = probe.rpartition(".")[0]
    return [Origin(value, "TASKS" if key.startswith("evaluation.tasks.") else fallback)]


def _leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list (and every empty one), by its dotted key."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, f"{prefix}{key}.")
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            yield from _leaves(value, f"{prefix}{index}.")
    else:
        yield prefix[:-1], data


# ---- what is still wrong -------------------------------------------------------------------------------------------------------------


def _unknown_keys(config: dict[str, Any], keys: dict[str, list[Origin]]) -> list[str]:
    """A notice for each key that neither the schema nor another config value knows. Raises BadInput when it is near a known key."""
    notices = []
    for key, _ in _leaves(config):
        parts = key.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            if _is_known(name):
                continue
            known = [k.rpartition(".")[2] for k in _schema_keys() if k.rpartition(".")[0] == name.rpartition(".")[0]]
            near = nearest(parts[depth - 1], known)
            where = keys.get(key, [Origin(None, name)])[-1].set_by
            if near:
                raise BadInput(f"{where}: unknown key {name}{near}")
            text = f"{where}: {name} is no key that the launcher or evalmake reads; it is passed on as it is"
            if text not in notices:
                notices.append(text)
            break
    return notices


def _require_all(config: dict[str, Any], keys: dict[str, list[Origin]], path: Path) -> None:
    """Raise BadInput naming every value that is still `???`, and the ones that a hosted endpoint or a deployment cannot do without."""
    missing = [key for key, value in _leaves(config) if value == MISSING and not key.startswith("run.")]
    serving = config["deployment"].get("type")
    if serving == "none":
        endpoint = (config.get("target") or {}).get("api_endpoint") or {}
        missing += [f"target.api_endpoint.{key}" for key in ("url", "model_id") if not endpoint.get(key)]
    else:
        wanted = ["served_model_name", "command"] + (["image"] if config["execution"]["type"] != "process" else [])
        missing += [f"deployment.{key}" for key in wanted if not config["deployment"].get(key)]
    if missing:
        listed = list(dict.fromkeys(missing))
        settings = " ".join(f"{key}=…" for key in listed)
        where = keys.get(listed[0], [Origin(None, shown(path))])[-1].set_by
        raise BadInput(f'{where}: {", ".join(listed)} {"has" if len(listed) == 1 else "have"} no value; give SET="{settings}"')
