"""Checks of env.toml: types and values of its fields, misspelt fields, and secrets, which do not belong in it."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from helpers.common import secrets
from helpers.common.errors import BadInput
from helpers.common.files import load_schema, shown
from helpers.common.schema_check import surely_fits
from helpers.common.schema_messages import explain
from helpers.config import profile_fields, schema_keys
from helpers.config.profiles import RESERVED, EnvFile

# Words that other systems use for our fields.
SYNONYMS = {
    "walltime": "time",
    "time_limit": "time",
    "gpus": "gpus_per_node",
    "num_nodes": "nodes",
    "num_gpus": "gpus_per_node",
    "cpus": "cpus_per_task",
    "memory": "mem",
    "hostname": "host",
    "username": "user",
    "image": "container_image",
    "queue": "partition",
    "inherits": "extends",
    "ssh_key": "identity",
    "identity_file": "identity",
}
# Two words that are this similar are one misspelt word; `run_time` and `build_time` are not.
ALIKE = 0.75


def check(env: EnvFile, profile: str = "") -> list[str]:
    """Check env.toml; returns a notice for each field that evalmake does not know.

    Secrets are looked for everywhere. Types, values and misspelt fields are checked in the reserved sections and in `profile` with its
    parents only (without a profile: in all), since the file may be shared with other programs. Raises BadInput with file and line.
    """
    if env.path is None:
        return []
    for section, key, value in _leaves(env.tables):
        _refuse_secret(env, section, key, value)
    notices: list[str] = []
    for name in [*(name for name in RESERVED if name in env.tables), *_chain(env, profile)]:
        table = env.tables[name]
        if not isinstance(table, dict):
            raise BadInput(f"{shown(env.path)}: {name}: expected a section [{name}] with fields below it")
        if name not in RESERVED:
            notices += _unknown_fields(env, name, table)
        _check_types(env, name, table)
    return notices


def _chain(env: EnvFile, profile: str) -> list[str]:
    """The profile and its parents, or all profiles. A broken `extends` is left to profiles.get, which has the better message."""
    if not profile:
        return [name for name in env.tables if name not in RESERVED]
    chain: list[str] = []
    current: Any = profile
    while isinstance(current, str) and current in env.tables and current not in (*chain, *RESERVED):
        chain.append(current)
        current = env.tables[current].get("extends") if isinstance(env.tables[current], dict) else None
    return chain


def _unknown_fields(env: EnvFile, name: str, table: dict[str, Any]) -> list[str]:
    known = schema_keys.profile_fields()
    notices = []
    for key in (key for key in table if key not in known):
        place = f"{env.where(name, key)} [{name}]"
        if key == "clusters":
            raise BadInput(f"{place}: clusters: sbatch's -M is not supported; give a login node of that cluster as host")
        if key in profile_fields.OF_TRAINING:
            notices.append(f"{place}: {key} has no effect: {profile_fields.OF_TRAINING[key]}")
            continue
        meant = [SYNONYMS[key]] if key in SYNONYMS else get_close_matches(key, known, n=1, cutoff=ALIKE)
        if meant:
            raise BadInput(f"{place}: unknown field {key} (did you mean {meant[0]}?)")
        notices.append(f"{place}: evalmake does not know the field {key}; it is only kept in run.env")
    return notices


def _check_types(env: EnvFile, name: str, table: dict[str, Any]) -> None:
    schema = load_schema("env")
    part = schema["properties"][name] if name in RESERVED else schema["$defs"]["profile"]
    if surely_fits(table, part):
        return
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(part).iter_errors(table))
    if error is not None:
        path = [str(part) for part in error.absolute_path]
        place = env.where(name, path[0]) if path else env.where(name)
        if len(path) > 1 and isinstance(table[path[0]], dict):
            place = env.where(f"{name}.{path[0]}", path[1])
        raise BadInput(f"{place} [{name}]: {explain(error)}")


def _leaves(tables: dict[str, Any], section: str = "") -> Iterator[tuple[str, str, Any]]:
    """Section, key and value of everything in the file; each entry of a list has the list's key."""
    for key, value in tables.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from _leaves(one, f"{section}.{key}" if section else key)
            else:
                yield section, key, one


def _refuse_secret(env: EnvFile, section: str, key: str, value: Any) -> None:
    """Raise BadInput, without the value, for anything that looks like a secret."""
    variable = secrets.variable_for(key, value) if isinstance(value, str) else None
    if variable is not None:
        place = f"{env.where(section, key)} [{section}]" if section else f"{shown(env.path or '')}"
        into = f"as {variable}=…" if variable else "as NAME=…"
        fix = f"move it to {shown(env.folder / '.env')} (mode 0600) {into}, or to the shell's environment"
        if section.endswith(".env_vars"):
            fix += f', and write {key} = "host:{variable or "NAME"}" here'
        raise BadInput(f"{place}: {key} looks like a secret, which does not belong in env.toml; {fix}")
