"""Overrides (`key=value`, as typed in SET, MODEL and QUICK) in Hydra's grammar; a key of the schema needs no `+`."""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput, nearest, one_line
from helpers.config import schema_keys

# These cannot be overridden: Hydra's own settings, and the files that the config is composed of.
REFUSED = ("hydra", "defaults")


@dataclass(frozen=True)
class Override:
    """An override: the variable that it was typed in, its dotted key, its value, and its text for Hydra."""

    name: str
    key: str
    value: Any
    text: str
    is_deletion: bool = False
    is_group: bool = False


def read(name: str, text: str, composed: Callable[[], Any], folders: Iterable[Path]) -> Override:
    """Read one override. `composed` gives the config without overrides (0.1 s); `folders` contain the groups that a key may name.

    A value that Hydra's grammar cannot read, or would sweep over (`a,b`), is text; so is a number where the schema expects text.
    Raises BadInput without `=`, for a key that neither the config nor the schema has, and for an index beyond the end of a list.
    """
    head, equals, raw = text.partition("=")
    sign = re.match(r"\s*(~|\+{0,2})", head)[1]  # type: ignore[index]
    key = re.sub(r"\[(\d+)\]", r".\1", head.strip()[len(sign) :].strip())
    if not key or (not equals and sign != "~"):
        lacks = "no key before `=`" if equals or sign == "~" else "no `=`"
        raise BadInput(f"{name}: {one_line(text)!r} has {lacks}; expected key=value, for example deployment.port=8000")
    if key.partition(".")[0].partition("/")[0] in REFUSED:
        raise BadInput(f"{name}: {key} cannot be overridden; edit `defaults:` in the config")
    is_group = bool(equals) and any((folder / key).is_dir() for folder in folders if re.fullmatch(r"[\w/-]+", key))
    value, quoted = _value(name, sign, key, equals + raw, is_group)
    written = f"{sign or ('' if is_group else '++')}{key}{quoted}"
    override = Override(name, key, value, written, is_deletion=sign == "~", is_group=is_group)
    is_plain = not sign and all(schema_keys.is_known(full) for full in _keys(key, value)) and not re.search(r"\.\d", key)
    if is_group or sign == "++" or is_plain:
        return override
    base = composed()
    exists = _exists(base, key)
    if sign == "~" and not exists:
        raise BadInput(f"{name}: ~{key}: the config has no such key{_near(base, key) or '; leave this override out'}")
    if sign == "+" and exists:
        raise BadInput(f"{name}: +{key}: the config already has this key; {key}=… overrides it, ++{key}=… adds or overrides")
    if not sign:
        unknown = next((full for full in _keys(key, value) if not _exists(base, full) and not schema_keys.is_known(full)), None)
        if unknown:
            raise BadInput(f"{name}: the config has no key {unknown}{_near(base, unknown)}; +{key}=… adds it anyway")
        _refuse_index(name, base, key)
    return override


def _value(name: str, sign: str, key: str, rest: str, is_group: bool) -> tuple[Any, str]:
    """The value of an override, and `=value` as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    try:
        # First the key alone: an unreadable value is text, but an unreadable key is an error.
        parser.parse_override(f"{sign}{key}=x")
    except HydraException:
        raise BadInput(f"{name}: {shlex.quote(key)} is not a valid key; expected a dotted key such as deployment.port") from None
    if not rest:
        return None, ""
    raw = rest[1:]
    try:
        parsed = parser.parse_override(f"{sign}{key}={raw}")
        value = None if parsed.is_sweep_override() else parsed.value()
        if not parsed.is_sweep_override() and (is_group or not (isinstance(value, int | float) and _wants_text(key))):
            return value if isinstance(value, dict | list | int | float) or value is None else str(value), rest
    except HydraException:
        pass
    text = raw.strip()
    return text, f"={quoted(text)}"


def quoted(text: str) -> str:
    """A text in quotes for Hydra's grammar, where a backslash is literal unless a quote follows it."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", text)) + "'"


def _wants_text(key: str) -> bool:
    """Whether the schema allows text for the key, and no number or boolean."""
    types = (schema_keys.subschema(key) or {}).get("type", [])
    types = [types] if isinstance(types, str) else types
    return "string" in types and not {"integer", "number", "boolean"} & set(types)


def _keys(key: str, value: Any) -> list[str]:
    """All keys that an override sets: several if the value is a mapping."""
    nested = value.items() if isinstance(value, dict) else ()
    return [full for name, inner in nested for full in _keys(f"{key}.{name}", inner)] or [key]


def _exists(base: Any, key: str) -> bool:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parent, _, last = key.rpartition(".")
    try:
        node = OmegaConf.select(base, parent, throw_on_resolution_failure=False) if parent else base
    except OmegaConfBaseException:
        return False
    return (OmegaConf.is_dict(node) and last in node) or (OmegaConf.is_list(node) and last.isdecimal() and int(last) < len(node))


def _refuse_index(name: str, base: Any, key: str) -> None:
    """Raise BadInput for an index beyond the end of a list."""
    from omegaconf import OmegaConf

    node, path = base, ""
    for part in key.split("."):
        if OmegaConf.is_list(node):
            if not part.isdecimal() or int(part) >= len(node):
                fix = "to add a task, name it in TASKS" if path == "evaluation.tasks" else f"{path}=[…] sets the whole list"
                raise BadInput(f"{name}: {key}: {path} has no entry {part}: it has {len(node)}, counted from 0; {fix}")
            node = node[int(part)]
        elif not OmegaConf.is_dict(node) or part not in node or OmegaConf.is_missing(node, part) or OmegaConf.is_interpolation(node, part):
            return
        else:
            node = node[part]
        path = f"{path}.{part}" if path else part


def _near(base: Any, key: str) -> str:
    """A hint at the existing key nearest to `key`: first among its siblings, then among all keys."""
    from omegaconf import OmegaConf

    own = [leaf for leaf in _all_keys(OmegaConf.to_container(base, resolve=False)) if leaf.partition(".")[0] != "hydra"]
    known = [*own, *schema_keys.all_keys()]
    parent, _, last = key.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
    siblings += schema_keys.names_below(parent) if parent else []
    if near := nearest(last, dict.fromkeys(siblings), f"{parent}." if parent else ""):
        return near
    same = [name for name in known if name.rpartition(".")[2] == last]
    return f" (did you mean {same[0]}?)" if same else nearest(key, [name for name in known if "." in name]) if not parent else ""


def _all_keys(data: Any, prefix: str = "") -> list[str]:
    if not isinstance(data, dict):
        return []
    return [name for key, value in data.items() for name in (f"{prefix}{key}", *_all_keys(value, f"{prefix}{key}."))]
