"""Checks of env.toml: types and values of its fields, misspelt fields, and secrets, which do not belong in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from helpers.common.errors import BadInput
from helpers.common.files import load_schema, shown
from helpers.config import schema_keys
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
SECRET_NAME = re.compile(r"(?i)(?:(?:^|[_-])(?:key|token)|password|passwd|secret)$")
# A name that ends so, with a value like these, is no secret: a path, or another variable's name.
HARMLESS = re.compile(r"^(?:[/~.]|\$|host:|runtime:)|^$")
# The forms of keys in use, and the variable that each belongs into.
SECRET_FORMS = (
    ("WANDB_API_KEY", re.compile(r"\bwandb_v\d_\w{8,}")),
    ("HF_TOKEN", re.compile(r"\bhf_[A-Za-z0-9]{16,}")),
    ("NVIDIA_API_KEY", re.compile(r"\bnvapi-[\w-]{16,}")),
    ("OPENAI_API_KEY", re.compile(r"\bsk-[\w-]{16,}")),
    ("GITHUB_TOKEN", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("GITLAB_TOKEN", re.compile(r"\bglpat-[\w-]{16,}")),
    ("AWS_ACCESS_KEY_ID", re.compile(r"\bAKIA[A-Z0-9]{16}\b")),
    ("", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
)
WANDB_OLD_FORM = re.compile(r"\b[0-9a-f]{40}\b")
DIGEST_NAME = re.compile(r"(?i)rev|commit|sha|digest|hash|git")
ASSIGNED = re.compile(r"(?i)\b(\w*(?:_key|_token|password|secret))=[\"']?(?![\"'$/~]|\s|$)\S{8,}")


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
        table = env.tables[current]
        current = table.get("extends") if isinstance(table, dict) else None
    return chain


def _unknown_fields(env: EnvFile, name: str, table: dict[str, Any]) -> list[str]:
    known = schema_keys.profile_fields()
    notices = []
    for key in table:
        if key in known:
            continue
        near = get_close_matches(key, known, n=1, cutoff=ALIKE)
        meant = SYNONYMS.get(key) or (near[0] if near else "")
        place = f"{env.where(name, key)} [{name}]"
        if meant:
            raise BadInput(f"{place}: unknown field {key} (did you mean {meant}?)")
        notices.append(f"{place}: evalmake does not know the field {key}; it is only kept in run.env")
    return notices


def _check_types(env: EnvFile, name: str, table: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    from helpers.common.schema_messages import explain

    schema = load_schema("env")
    part = schema["properties"][name] if name in RESERVED else schema["$defs"]["profile"]
    error = best_match(Draft202012Validator(part).iter_errors(table))
    if error is not None:
        path = [str(part) for part in error.absolute_path]
        place = env.where(name, path[0]) if path else env.where(name)
        if len(path) > 1 and isinstance(table[path[0]], dict):
            nested = env.where(f"{name}.{path[0]}", path[1])
            place = place if nested.endswith("]") else nested
        raise BadInput(f"{place} [{name}]: {explain(error)}")


def _leaves(tables: dict[str, Any], section: str = "") -> Iterator[tuple[str, str, Any]]:
    """Section, key and value of everything in the file; each entry of a list has the list's key."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{section}.{key}" if section else key)
        elif isinstance(value, list):
            for entry in value:
                if isinstance(entry, dict):
                    yield from _leaves(entry, f"{section}.{key}" if section else key)
                else:
                    yield section, key, entry
        else:
            yield section, key, value


def _refuse_secret(env: EnvFile, section: str, key: str, value: Any) -> None:
    """Raise BadInput, without the value, for anything that looks like a secret."""
    if not isinstance(value, str):
        return
    variable = _secret_variable(key, value)
    if variable is not None:
        place = f"{env.where(section, key)} [{section}]" if section else f"{shown(env.path or '')}"
        into = f"as {variable}=…" if variable else "as NAME=…"
        fix = f"move it to {shown(env.folder / '.env')} (mode 0600) {into}, or to the shell's environment"
        raise BadInput(f"{place}: {key} looks like a secret, which does not belong in env.toml; {fix}")


def _secret_variable(key: str, value: str) -> str | None:
    """The variable that a secret belongs into (`` where none is known), or None for what is no secret."""
    for variable, form in SECRET_FORMS:
        if form.search(value):
            return variable
    if WANDB_OLD_FORM.search(value) and not DIGEST_NAME.search(key):
        return "WANDB_API_KEY"
    if assigned := ASSIGNED.search(value):
        return assigned[1].upper()
    if SECRET_NAME.search(key) and not HARMLESS.search(value):
        return re.sub(r"\W", "_", key).upper()
    return None
