"""Composition with Hydra: defaults, profile and overrides become one config, with interpolations. The launcher is not imported."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput, located, nearest, one_line
from helpers.common.files import shown
from helpers.config import config_files, overriding
from helpers.config.executor_description import Executors
from helpers.config.overriding import Override
from helpers.config.profile_effects import ProfileEffects

MISSING = "???"
# The names of our nodes in Hydra's config store.
_BASE, _CONFIG, _PROFILE = "evalmake_base", "evalmake_config", "evalmake_profile"
SECTIONS = ("run", "execution", "deployment", "target", "evaluation", "export", "env_vars", "auxiliary_deployments")
NEWER = ("services", "benchmarks", "cluster")  # the sections of a config of nemo-evaluator 0.3 and later


@dataclass(frozen=True)
class Composed:
    """The config before interpolation; the files it is made of, lowest precedence first, each with its dotted key; the overrides."""

    config: dict[str, Any]
    sources: list[tuple[Path, str]]
    overrides: list[Override]


def compose(path: Path, given: ProfileEffects, settings: list[tuple[str, str]], executors: Executors) -> Composed:
    """Compose the config file `path` with what env.toml and the profile give; interpolations stay as they are.

    `settings` are overrides, each with the variable that it was typed in. Raises BadInput for an invalid `defaults:`, a missing or unknown
    execution.type, and an invalid override.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    data, lines = config_files.load_yaml(path)
    if newer := [name for name in NEWER if name in data and "evaluation" not in data]:
        why = f"{' and '.join(newer)}: this is a config of a newer nemo-evaluator, which evalmake does not run"
        raise BadInput(f"{shown(path)}: {why}; write execution, deployment and evaluation, as in configs/template.yaml")
    folders = list(dict.fromkeys([path.parent, config_files.CONFIGS, config_files.launcher_configs()]))
    own_config = _with_defaults(data, lines, path, given, folders, executors)
    # Hydra takes its search path from here too. As an override it would be parsed twice, which takes 0.03 s.
    if isinstance(settings_of_hydra := own_config.get("hydra") or {}, dict):
        own_config["hydra"] = {**settings_of_hydra, "searchpath": [f"file://{folder}".replace("${", "\\${") for folder in folders]}
    store = ConfigStore.instance()
    try:
        store.store(name=_BASE, node=OmegaConf.create({"run": {"wandb": {"project": None, "entity": None}}}), package="_global_")
        store.store(name=_CONFIG, node=OmegaConf.create(own_config))
        store.store(name=_PROFILE, node=OmegaConf.create(given.node()), package="_global_")
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_files.CONFIGS), version_base=None):
            base = cache(lambda: hydra_compose(_CONFIG))
            typed = [overriding.read(name, text, base, folders) for name, text in settings]
            texts = [one.text for one in typed]
            config = hydra_compose(_CONFIG, overrides=texts) if typed else base()
            listing = GlobalHydra.instance().config_loader().compute_defaults_list(_CONFIG, texts, RunMode.RUN).defaults
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, path, data, lines, folders) from error
    except RecursionError as error:
        raise BadInput(f"{shown(path)}:{lines.get('defaults', 1)}: defaults: they form a cycle; remove one of them") from error
    found: list[tuple[Path, str]] = []
    for item in listing:
        name, package = item.config_path, item.package or ""
        if name == _CONFIG:
            found.append((path, ""))
        elif name is not None and name not in (_BASE, _PROFILE) and package.split(".")[0] != "hydra":
            found += [(folder / f"{name}.yaml", package) for folder in folders if (folder / f"{name}.yaml").is_file()][:1]
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return Composed(composed, found, typed)


def _with_defaults(
    data: dict[str, Any], lines: dict[str, int], path: Path, given: ProfileEffects, folders: list[Path], executors: Executors
) -> dict[str, Any]:
    """The config with a `defaults:` list: its own, or the groups of its execution.type and deployment.type."""
    data = dict(data)
    for name in SECTIONS:
        if data.get(name) is not None and not isinstance(data[name], dict):
            found = one_line(repr(data[name]))[:80]
            raise BadInput(f"{shown(path)}:{lines.get(name, 1)}: {name}: {found}: expected `key: value` lines")
        if data.get(name, "") is None:
            del data[name]  # an empty `run:` must not delete what the defaults put there
    defaults = data.get("defaults")
    if defaults is None:
        place = f"{shown(path)}:{lines.get('execution.type', lines.get('execution', 1))}: execution.type"
        kind = (data.get("execution") or {}).get("type")
        if kind not in (None, "", MISSING):
            with located(place):
                kind = str(kind) if "${" in str(kind) else executors.describe(str(kind)).name
        elif given.executor:
            kind = given.executor.name
        else:
            names = ", ".join(one.name for one in executors.descriptions())
            raise BadInput(f"{place} has no value; expected one of {names}, for example `execution: {{type: slurm}}`, or a PROFILE")
        serving = (data.get("deployment") or {}).get("type") or "none"
        defaults = _group("execution", kind, folders, place)
        defaults += _group("deployment", str(serving), folders, f"{shown(path)}:{lines.get('deployment.type', 1)}: deployment.type")
    if not isinstance(defaults, list):
        found = f"{one_line(repr(defaults))[:80]}: expected a list such as `- execution: slurm/default`"
        raise BadInput(f"{shown(path)}:{lines.get('defaults', 1)}: defaults: {found}")
    for index, entry in enumerate(defaults):
        if not _is_entry(entry):
            text = f"{one_line(repr(entry))[:80]}: expected `- execution: slurm/default` or the name of a config"
            raise BadInput(f"{shown(path)}:{lines.get(f'defaults.{index}', lines.get('defaults', 1))}: defaults: {text}")
    data["defaults"] = [_BASE, *defaults, *([] if "_self_" in defaults else ["_self_"]), _PROFILE]
    return data


def _is_entry(entry: Any) -> bool:
    if isinstance(entry, str):
        return bool(entry)
    if not isinstance(entry, dict) or len(entry) != 1:
        return False
    group, name = next(iter(entry.items()))
    several = name if isinstance(name, list) else [name]
    return isinstance(group, str) and all(one is None or isinstance(one, str) for one in several)


def _group(group: str, kind: str, folders: list[Path], place: str) -> list[dict[str, str]]:
    """The entry of `defaults:` for a type, if there is a file for it. Raises BadInput for a type that looks like a misspelt one."""
    for folder in folders:
        for name in (kind, f"{kind}/default"):
            if (folder / group / f"{name}.yaml").is_file():
                return [{group: name}]
    options = [option.removesuffix("/default") for option in _options(group, folders)]
    if near := nearest(kind, options):
        raise BadInput(f"{place}: {kind} does not exist{near}; there are {', '.join(options)}")
    return []


def _options(group: str, folders: Iterable[Path]) -> list[str]:
    """The names of the configs in a group; the configs outside of groups for an empty name."""
    if not group:
        return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    found = {path.relative_to(folder / group) for folder in folders for path in (folder / group).glob("**/*.yaml")}
    return sorted(str(path.with_suffix("")) for path in found)


def _explained(error: Exception, path: Path, data: dict[str, Any], lines: dict[str, int], folders: list[Path]) -> BadInput:
    """Hydra's error with the file, the line if it is known, and the fix."""
    text = plain(error)  # Hydra's errors carry no values
    if found := re.search(r"Could not (?:find|load) '([^']+)'", text):
        group, _, name = found[1].rpartition("/")
        options = _options(group, folders)
        while group and not options:  # execution/slurm/defalt: the group is execution
            group, _, last = group.rpartition("/")
            name, options = f"{last}/{name}", _options(group, folders)
        number = next((line for key, line in lines.items() if key.startswith("defaults.") and _names(data, key, found[1], name)), None)
        what = f"defaults: there is no {group or 'config'} called {name}"
        hint = nearest(name, options) or (f" (did you mean {name}/default?)" if f"{name}/default" in options else "")
        return BadInput(f"{shown(path)}{f':{number}' if number else ''}: {what}{hint}; there are {', '.join(options) or 'none'}")
    if key := config_files.first_unreadable(data):
        return BadInput(f"{shown(path)}:{lines.get(key, 1)}: {key}: {text}; write ${{key}}, or \\${{ for a literal ${{")
    if text.startswith("Could not override"):
        text = f"{text.partition('.')[0] if 'No match' in text else text}; add the group to the config's `defaults:`"
    return BadInput(f"{shown(path)}: {text}")


def _names(data: dict[str, Any], key: str, *wanted: str) -> bool:
    """Whether an entry of `defaults:` (defaults.2, defaults.2.execution) names one of these."""
    _, index, *group = key.split(".")
    entry = data["defaults"][int(index)]
    return (entry in wanted) if not group and isinstance(entry, str) else isinstance(entry, dict) and next(iter(entry.values())) in wanted


def plain(error: Exception) -> str:
    """Hydra's message without its link to a web page and its search path."""
    text = one_line(str(error))
    return re.sub(r"See https?://\S+.*| Config search path.*| full_key:.*|In '(?:evalmake_\w+)': ", "", text).strip()
