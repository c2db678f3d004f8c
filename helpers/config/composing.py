"""Composition with Hydra: defaults, profile and overrides become one uninterpolated config. The launcher is not imported for it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput, nearest, one_line
from helpers.common.files import shown
from helpers.config import config_files, overriding, profile_fields
from helpers.config.overriding import Override
from helpers.config.profiles import EXECUTION_TYPES, EnvFile, Profile

MISSING = "???"
# The names of our nodes in Hydra's config store.
_BASE, _ASKED, _PROFILE = "evalmake_base", "evalmake_asked", "evalmake_profile"
SECTIONS = ("run", "execution", "deployment", "target", "evaluation", "export", "env_vars", "auxiliary_deployments")
NO_TYPE = "execution.type is missing; give `execution: {type: slurm}` (or process, local, lepton), or a PROFILE whose executor says it"


@dataclass(frozen=True)
class Composed:
    """The config before interpolation; the files that it is made of, lowest first, each with its package (dotted key); the overrides."""

    config: dict[str, Any]
    sources: list[tuple[Path, str]]
    overrides: list[Override]


@cache
def launcher_configs() -> Path:
    """The folder of the launcher's own config groups, found without importing the launcher (0.9 s)."""
    spec = importlib.util.find_spec("nemo_evaluator_launcher")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "configs"


def compose(path: Path, env: EnvFile, profile: Profile | None, settings: list[tuple[str, str]], mode: str) -> Composed:
    """Compose the config file `path`; interpolations are left as they stand.

    `settings` are overrides, each with the variable that it was typed in; `mode` (eval, batch, dry-run) chooses the profile's partition.
    Raises BadInput.
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
    folders = list(dict.fromkeys([path.parent, config_files.CONFIGS, launcher_configs()]))
    asked = _with_defaults(data, lines, path, profile, folders)
    # Hydra takes its search path from here too. As an override it would be parsed twice, which takes 0.03 s.
    if isinstance(own := asked.get("hydra") or {}, dict):
        asked["hydra"] = {**own, "searchpath": [f"file://{folder}".replace("${", "\\${") for folder in folders]}
    store = ConfigStore.instance()
    try:
        store.store(name=_BASE, node=OmegaConf.create({"run": {"wandb": {"project": None, "entity": None}}}), package="_global_")
        store.store(name=_ASKED, node=OmegaConf.create(asked))
        store.store(name=_PROFILE, node=OmegaConf.create(profile_node(env, profile, mode)), package="_global_")
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_files.CONFIGS), version_base=None):
            base = cache(lambda: hydra_compose(_ASKED))
            typed = [overriding.read(name, text, base, folders) for name, text in settings]
            texts = [one.text for one in typed]
            config = hydra_compose(_ASKED, overrides=texts) if typed else base()
            listing = GlobalHydra.instance().config_loader().compute_defaults_list(_ASKED, texts, RunMode.RUN).defaults
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, path, data, lines, folders) from error
    except RecursionError as error:
        raise BadInput(f"{shown(path)}:{lines.get('defaults', 1)}: its defaults go in a circle; take one of them out") from error
    found: list[tuple[Path, str]] = []
    for item in listing:
        name, package = item.config_path, item.package or ""
        if name == _ASKED:
            found.append((path, ""))
        elif name is not None and name not in (_BASE, _PROFILE) and package.split(".")[0] != "hydra":
            found += [(folder / f"{name}.yaml", package) for folder in folders if (folder / f"{name}.yaml").is_file()][:1]
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return Composed(composed, found, typed)


def profile_node(env: EnvFile, profile: Profile | None, mode: str) -> dict[str, Any]:
    """What env.toml puts into the config: run.env of the profile's fields, run.artifacts, run.wandb and the profile's own."""
    node: dict[str, Any] = {}
    for key, value, _ in profile_fields.run_values(env, profile, mode):
        section, _, name = key.partition(".")
        node.setdefault("run", {}).setdefault(section, {})[name] = value
    return node


def _with_defaults(data: dict[str, Any], lines: dict[str, int], path: Path, profile: Profile | None, folders: list[Path]) -> dict[str, Any]:
    """The config with a `defaults:` list: its own, or the groups that its execution.type and deployment.type name."""
    data = dict(data)
    for name in SECTIONS:
        if data.get(name) is not None and not isinstance(data[name], dict):
            found = one_line(repr(data[name]))[:80]
            raise BadInput(f"{shown(path)}:{lines.get(name, 1)}: {name}: `key: value` lines were expected, not {found}")
        if name in data and data[name] is None:
            del data[name]  # `run:` with nothing below it says nothing, and must not wipe out what its defaults say
    defaults = data.get("defaults")
    if defaults is None:
        executor = profile.fields["executor"] if profile else None
        kind = (data.get("execution") or {}).get("type") or (EXECUTION_TYPES[executor] if executor else None)
        if not kind or kind == MISSING:
            raise BadInput(f"{shown(path)}:{lines.get('execution.type', lines.get('execution', 1))}: {NO_TYPE}")
        serving = (data.get("deployment") or {}).get("type") or "none"
        defaults = []
        for group, name in (("execution", str(kind)), ("deployment", str(serving))):
            place = f"{shown(path)}:{lines.get(f'{group}.type', 1)}"
            defaults += _group(group, name, folders, place)
        defaults.append("_self_")
    place = f"{shown(path)}:{lines.get('defaults', 1)}"
    if not isinstance(defaults, list):
        raise BadInput(f"{place}: defaults: a list such as `- execution: slurm/default` was expected, not {one_line(repr(defaults))[:80]}")
    for index, entry in enumerate(defaults):
        if not _is_entry(entry):
            text = f"`- execution: slurm/default` or the name of a config was expected, not {one_line(repr(entry))[:80]}"
            raise BadInput(f"{shown(path)}:{lines.get(f'defaults.{index}', lines.get('defaults', 1))}: defaults: {text}")
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    data["defaults"] = [_BASE, *defaults, _PROFILE]
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
    """The default that a type stands for. Raises BadInput for a type that is nearly one of those that exist."""
    for folder in folders:
        for name in (kind, f"{kind}/default"):
            if (folder / group / f"{name}.yaml").is_file():
                return [{group: name}]
    options = [option.removesuffix("/default") for option in _options(group, folders)]
    if near := nearest(kind, options):
        raise BadInput(f"{place}: there is no {group}.type {kind}{near}; there are {', '.join(options)}")
    return []


def _options(group: str, folders: Iterable[Path]) -> list[str]:
    """The configs that a group offers, `` for those of no group; those in a subfolder with its name."""
    if not group:
        return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    found = {path.relative_to(folder / group) for folder in folders for path in (folder / group).glob("**/*.yaml")}
    return sorted(str(path.with_suffix("")) for path in found)


def _explained(error: Exception, path: Path, data: dict[str, Any], lines: dict[str, int], folders: list[Path]) -> BadInput:
    """Hydra's error with the file, the line where it can be told, and a mend."""
    text = plain(error)
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
        return BadInput(f"{shown(path)}:{lines.get(key, 1)}: {key}: {text}; write ${{key}}, or \\${{ for the text itself")
    if text.startswith("Could not override"):
        text = f"{text.partition('.')[0] if 'No match' in text else text}; name the group in the config's `defaults:`"
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
