"""Composition with Hydra: defaults, profile and overrides become one uninterpolated config. The launcher is not imported for it."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

from helpers import configs, schema_keys
from helpers.errors import BadInput, nearest, one_line
from helpers.files import shown
from helpers.profiles import EXECUTION_TYPES, EnvFile, Profile

MISSING = "???"
# The names of our nodes in Hydra's config store.
_BASE, _ASKED, _PROFILE = "evalmake_base", "evalmake_asked", "evalmake_profile"
SECTIONS = ("run", "execution", "deployment", "target", "evaluation", "export", "env_vars", "auxiliary_deployments")


def launcher_configs() -> Path:
    """The folder of the launcher's own config groups, found without importing the launcher (0.9 s)."""
    spec = importlib.util.find_spec("nemo_evaluator_launcher")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "configs"


def compose(
    path: Path, data: dict[str, Any], env: EnvFile, profile: Profile | None, settings: list[tuple[str, str]]
) -> tuple[dict[str, Any], list[tuple[Path, str]]]:
    """Compose the config file `path`, whose content is `data`; interpolations are left as they stand.

    `settings` are overrides, each with the variable that it was typed in. Returns the config and the files of its defaults, in order, each
    with the package (dotted key) it was put under. Raises BadInput.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folders = list(dict.fromkeys([path.parent, configs.CONFIGS, launcher_configs()]))
    # Quoted, for folders whose names hold what Hydra's grammar would read.
    listed = ",".join("'file://" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders)
    search = f"hydra.searchpath=[{listed}]"
    store = ConfigStore.instance()
    try:
        store.store(name=_BASE, node=OmegaConf.create({"run": {"wandb": {"project": None, "entity": None}}}), package="_global_")
        store.store(name=_ASKED, node=OmegaConf.create(_with_defaults(data, path, profile)))
        store.store(name=_PROFILE, node=OmegaConf.create(_profile_node(env, profile)), package="_global_")
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(configs.CONFIGS), version_base=None):
            base = hydra_compose(_ASKED, overrides=[search]) if settings else None
            typed = [_override(name, text, base) for name, text in settings]
            config = hydra_compose(_ASKED, overrides=[search, *typed]) if typed or base is None else base
            loader = GlobalHydra.instance().config_loader()
            listing = loader.compute_defaults_list(_ASKED, [search, *typed], RunMode.RUN).defaults
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(f"{shown(path)}: {plain(error)}") from error
    except RecursionError as error:
        raise BadInput(f"{shown(path)}: its defaults go in a circle") from error
    found = []
    for item in listing:
        name, package = item.config_path, item.package or ""
        if name is None or name in (_BASE, _ASKED, _PROFILE) or package.split(".")[0] == "hydra":
            continue
        source = next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)
        if source:
            found.append((source, package))
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return composed, found


def _with_defaults(data: dict[str, Any], path: Path, profile: Profile | None) -> dict[str, Any]:
    """The config with a `defaults:` list: its own, or the groups that its execution.type and deployment.type name."""
    data = dict(data)
    for name in SECTIONS:
        if data.get(name) is not None and not isinstance(data[name], dict):
            raise BadInput(f"{shown(path)}: {name}: `key: value` lines were expected, not {one_line(repr(data[name]))[:80]}")
    defaults = data.get("defaults")
    if defaults is None:
        executor = profile.fields["executor"] if profile else None
        kind = (data.get("execution") or {}).get("type") or (EXECUTION_TYPES[executor] if executor else None)
        if not kind or kind == MISSING:
            raise BadInput(
                f"{shown(path)}: execution.type is missing; give `execution: {{type: slurm}}` (or process, local, lepton), "
                "or a PROFILE whose executor says it"
            )
        serving = (data.get("deployment") or {}).get("type") or "none"
        defaults = [*_group("execution", str(kind)), *_group("deployment", str(serving)), "_self_"]
    if not isinstance(defaults, list):
        raise BadInput(f"{shown(path)}: defaults: a list such as `- execution: slurm/default` was expected")
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    data["defaults"] = [_BASE, *defaults, _PROFILE]
    return data


def _group(group: str, kind: str) -> list[dict[str, str]]:
    for folder in (configs.CONFIGS, launcher_configs()):
        for name in (kind, f"{kind}/default"):
            if (folder / group / f"{name}.yaml").is_file():
                return [{group: name}]
    return []


def _profile_node(env: EnvFile, profile: Profile | None) -> dict[str, Any]:
    """What env.toml puts into the config: run.env out of the profile's fields, run.wandb out of [wandb] and the profile's own."""
    run: dict[str, Any] = {}
    fields = profile.fields if profile else {}
    if profile:
        run["env"] = {key: value for key, value in fields.items() if key != "wandb"}
        image = fields.get("container_image", fields.get("container"))
        if image is not None:
            run["env"]["container"] = image
    wandb = {**env.tables.get("wandb", {}), **fields.get("wandb", {})}
    if wandb:
        run["wandb"] = wandb
    return {"run": run} if run else {}


def _override(name: str, text: str, base: Any) -> str:
    """One override in Hydra's grammar. A key that the config lacks but the schema knows is added as if `+` had been typed.

    A value that Hydra's grammar cannot read (`--flag=1`) is taken as text. Raises BadInput without `=`, or for an unknown key.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    if "=" not in text and not text.startswith("~"):
        raise BadInput(f"{name}: {text!r} has no `=`; key=value was expected, for example deployment.tensor_parallel_size=8")
    key = text.lstrip("+~").partition("=")[0].strip()
    if not key:
        raise BadInput(f"{name}: {text!r} has no key before `=`; key=value was expected")
    parser = OverridesParser.create()
    try:
        parser.parse_override(text)
    except HydraException:
        head, _, value = text.partition("=")
        text = f"{head}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        try:
            parser.parse_override(text)
        except HydraException as error:
            raise BadInput(f"{name}: {shlex.quote(key)} cannot be read as a key: {plain(error)}") from error
    if text.startswith("+") or key in ("execution", "deployment"):
        return text
    if _exists(base, key):
        return text
    known = schema_keys.all_keys()
    if text.startswith("~") or not schema_keys.is_known(key):
        there = [leaf for leaf in _all_keys(OmegaConf.to_container(base, resolve=False)) if not leaf.startswith("hydra.")]
        mend = "" if text.startswith("~") else f"; +{key}=… adds it all the same"
        raise BadInput(f"{name}: the config has no key {key}{nearest(key, [*there, *known])}{mend}")
    return f"++{text}"


def _exists(base: Any, key: str) -> bool:
    from omegaconf import OmegaConf

    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(base, parent, throw_on_resolution_failure=False) if parent else base
    return (OmegaConf.is_dict(node) and last in node) or (OmegaConf.is_list(node) and last.isdecimal() and int(last) < len(node))


def _all_keys(data: Any, prefix: str = "") -> list[str]:
    if not isinstance(data, dict):
        return []
    return [name for key, value in data.items() for name in (f"{prefix}{key}", *_all_keys(value, f"{prefix}{key}."))]


def plain(error: Exception) -> str:
    """Hydra's message without its link to a web page and its search path; for a group that is not there, with the nearest that is."""
    text = one_line(str(error))
    if found := re.search(r"Could not (?:find|load) '([^']+)'.*?Available options in '[^']+': (.*?) Config search path", text):
        group, _, name = found[1].rpartition("/")
        options = sorted({path.stem for folder in (configs.CONFIGS, launcher_configs()) for path in (folder / group).glob("*.yaml")})
        options += sorted(f"{path.parent.name}/{path.stem}" for path in (launcher_configs() / group).glob("*/*.yaml"))
        return f"defaults: there is no {group} called {name}{nearest(name, options)}; there are {', '.join(options)}"
    return re.sub(r"See https?://\S+.*| Config search path.*| full_key:.*|In '(?:evalmake_\w+)': ", "", text).strip()
