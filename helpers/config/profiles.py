"""Execution profiles: env.toml, found by walking up the folders, with its `extends` chains and reserved sections.

What each field does is listed in helpers/config/profile_fields.py.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput, nearest
from helpers.common.files import ROOT, read_text, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RESERVED = ("wandb", "artifacts", "cache", "cli")


@dataclass
class EnvFile:
    """env.toml as it was read: its path (None if there is no such file), its tables and its lines."""

    path: Path | None = None
    tables: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder of env.toml, which may hold a .env too; without an env.toml, the project's folder."""
        return self.path.parent if self.path else ROOT

    def names(self) -> list[str]:
        """The names of all profiles, in the file's order."""
        return [name for name, table in self.tables.items() if name not in RESERVED and isinstance(table, dict)]

    def where(self, section: str, key: str = "") -> str:
        """`env.toml:LINE` of a section, or of a key in it; `env.toml [SECTION]` if no line can be found.

        The section `C.wandb` may be a table in one line of C too.
        """
        assert self.path is not None
        inside = False
        for number, line in enumerate(self.lines, 1):
            if header := re.match(r"\s*\[\s*[\"']?([^\]\"']+)[\"']?\s*\]", line):
                inside = header[1].strip() == section
                if inside and not key:
                    return f"{shown(self.path)}:{number}"
            elif inside and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
                return f"{shown(self.path)}:{number}"
        outer, dot, table = section.rpartition(".")
        return self.where(outer, table) if dot else f"{shown(self.path)} [{section}]"


@dataclass(frozen=True)
class Profile:
    """A profile with its parents merged in: each field's value, and the place that set it."""

    name: str
    fields: dict[str, Any]
    origins: dict[str, str]


def find(start: Path, environ: Mapping[str, str] = os.environ) -> EnvFile:
    """The env.toml to use: EVALMAKE_ENV_FILE or NEMOTRON_ENV_FILE, else the first one in `start` and its parents, else the project's.

    Raises BadInput if a file that a variable names does not exist, and as `load` does.
    """
    for name in ("EVALMAKE_ENV_FILE", "NEMOTRON_ENV_FILE"):
        if environ.get(name):
            path = Path(environ[name]).expanduser()
            if not path.is_file():
                raise BadInput(f"{name}={environ[name]}: there is no such file; name an existing env.toml, or unset {name}")
            return load(path)
    for folder in (start, *start.parents, ROOT):
        if (folder / "env.toml").is_file():
            return load(folder / "env.toml")
    return EnvFile()


def load(path: Path) -> EnvFile:
    """Read one env.toml. Raises BadInput if it does not exist, and with file and line for text that is not UTF-8 or not TOML."""
    if not path.is_file():
        raise BadInput(f"{shown(path)}: there is no such file; name an existing env.toml")
    text = read_text(path).removeprefix("\ufeff")  # some editors on Windows begin files with it
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        number = line[1] if line else str(text.count("\n") + 1)
        reason = re.sub(r" \(at .*\)$", "", str(error))
        raise BadInput(f"{shown(path)}:{number}: not TOML: {reason}") from error
    return EnvFile(path, tables, text.splitlines())


def get(env: EnvFile, name: str) -> Profile:
    """The profile `name`; fields that it does not set come from its `extends` chain, and so do entries of its tables.

    Raises BadInput without an env.toml, for a profile that does not exist (with the list), a reserved section, and a cycle of `extends`.
    """
    if env.path is None:
        raise BadInput(f"PROFILE={name}: there is no env.toml; `cp env.toml.example env.toml` and fill in your cluster")
    if name in RESERVED:
        raise BadInput(f"PROFILE={name}: [{name}] is a section of its own, not a profile; profiles: {_listed(env)}")
    chain: list[str] = []
    current: str | None = name
    while current is not None:
        if current in chain:
            raise BadInput(f"{env.where(current, 'extends')}: extends forms a cycle: {' -> '.join([*chain, current])}")
        table = env.tables.get(current)
        if not isinstance(table, dict) or current in RESERVED:
            named = f"PROFILE={name}" if not chain else f"{env.where(chain[-1], 'extends')}: extends = {current!r}"
            hint = nearest(current, env.names())
            raise BadInput(f"{named}: there is no such profile in {shown(env.path)}{hint}; profiles: {_listed(env)}")
        chain.append(current)
        current = table.get("extends")
        if current is not None and not isinstance(current, str):
            raise BadInput(f"{env.where(chain[-1], 'extends')}: extends: {current!r}: expected the name of one profile")
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for member in reversed(chain):
        for key, value in env.tables[member].items():
            if key == "extends":
                continue
            origins[key] = f"{env.where(member, key)} [{member}]"
            inherited = fields.get(key)
            fields[key] = {**inherited, **value} if isinstance(inherited, dict) and isinstance(value, dict) else value
            for entry in value if isinstance(value, dict) else ():
                origins[f"{key}.{entry}"] = f"{env.where(f'{member}.{key}', entry)} [{member}]"
    return Profile(name, fields, origins)


def _listed(env: EnvFile) -> str:
    return ", ".join(env.names()) or "none"
