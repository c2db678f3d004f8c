"""Where each value of a compiled config was set: files with lines, the profile, overrides, defaults. The last one wins."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common.files import ROOT
from helpers.config import config_files
from helpers.config.config_files import launcher_configs
from helpers.config.overriding import Override
from helpers.config.profile_effects import ProfileEffects

_LAUNCHER = "nemo_evaluator_launcher/configs"
_TASKS = "evaluation.tasks."


@dataclass
class Origin:
    """A place that set a value."""

    value: Any
    set_by: str


@dataclass(frozen=True)
class _Setting:
    value: Any
    set_by: str
    order: int
    own: bool


@dataclass
class Trace:
    """The settings of every dotted key, in their order."""

    _keys: dict[str, list[_Setting]] = field(default_factory=dict)
    _count: int = 0

    def add(self, key: str, value: Any, set_by: str, *, own: bool = False) -> None:
        """Record that `set_by` set `key`; `own` for the config itself and for overrides, which a profile does not overrule."""
        self._count += 1
        self._keys.setdefault(key, []).append(_Setting(value, set_by, self._count, own))

    def add_file(self, source: Path, package: str) -> None:
        """Record every leaf of a config file, below the dotted key `package`; it is empty for the config itself."""
        data, lines = config_files.load_yaml(source)
        data.pop("defaults", None)
        for key, value in leaves(data):
            self.add(f"{package}.{key}" if package else key, value, f"{source_name(source)}:{lines.get(key, 1)}", own=not package)

    def add_profile(self, given: ProfileEffects) -> None:
        """Record what env.toml puts below `run`."""
        for one in given.run_values:
            for key, leaf in leaves(one.value, f"run.{one.key}."):
                self.add(key, leaf, one.place)

    def add_override(self, override: Override) -> None:
        """Record what an override sets. Its place does not show the value, which may be a secret that somebody typed."""
        if override.is_deletion or override.is_group:
            return
        for key, value in leaves(override.value, f"{override.key}."):
            self.add(key, value, f"{override.name} {override.key}", own=True)

    def is_own(self, key: str) -> bool:
        """Whether the config itself or an override set this key last."""
        return key in self._keys and self._keys[key][-1].own

    def texts(self) -> Iterator[str]:
        """Every text that was set, before interpolation."""
        return (setting.value for settings in self._keys.values() for setting in settings if isinstance(setting.value, str))

    def place(self, key: str, fallback: str = "config") -> str:
        """The last place that set `key`, or else its nearest parent, or else a child."""
        if found := next((self._keys[name] for name in _with_parents(key) if name in self._keys), None):
            return found[-1].set_by
        return next((settings[-1].set_by for known, settings in self._keys.items() if known.startswith(f"{key}.")), fallback)

    def move(self, new: str, old: str) -> None:
        """Record that the key `old` was renamed to `new`."""
        for known in [key for key in self._keys if key == old or key.startswith(f"{old}.")]:
            moved = [_Setting(one.value, f"{one.set_by} (as {known})", one.order, one.own) for one in self._keys[known]]
            self._keys.setdefault(new + known[len(old) :], []).extend(moved)

    def choose_tasks(self, indices: list[int | None], names: list[str]) -> None:
        """Record the chosen tasks by their old indices in the config; None for a task that TASKS added."""
        by_index: dict[str, list[tuple[str, list[_Setting]]]] = {}
        for key in [key for key in self._keys if key.startswith(_TASKS)]:
            index_there, dot, rest = key.removeprefix(_TASKS).partition(".")
            by_index.setdefault(index_there, []).append((dot + rest, self._keys.pop(key)))
        for new, (index, name) in enumerate(zip(indices, names, strict=True)):
            if index is None:
                self.add(f"{_TASKS}{new}.name", name, f"TASKS {name}", own=True)
            for rest, settings in by_index.get(str(index), []):
                self._keys[f"{_TASKS}{new}{rest}"] = settings

    def history(self, key: str, value: Any, fallback: str) -> list[Origin]:
        """The places that set a leaf, the last one with its final value. A place that set a parent as a whole is one of them."""
        # An empty mapping removes nothing below it.
        found = [one for name in _with_parents(key) for one in self._keys.get(name, []) if name == key or one.value != {}]
        if not found:
            return [Origin(value, self.place(key, fallback))]
        found.sort(key=lambda one: one.order)
        places = [Origin(one.value, one.set_by) for one in found]
        text = places[-1].value
        if text != value and isinstance(text, str) and "${" in text:
            places[-1].set_by += f" ({text}{self._behind(text)})"
        places[-1].value = value
        return places

    def _behind(self, text: str) -> str:
        """`, PLACE` of the key that a text interpolates, if it is one key."""
        found = re.fullmatch(r"\$\{([\w.-]+)\}", text)
        return f", {self._keys[found[1]][-1].set_by}" if found and found[1] in self._keys else ""


def _with_parents(key: str) -> list[str]:
    """A dotted key and all its parents: a.b.c, a.b, a."""
    parts = key.split(".")
    return [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]


def leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar and every empty mapping or list, by its dotted key; `prefix` is a key and a dot that all of them start with."""
    if isinstance(data, dict | list) and data:
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix[:-1], data


def source_name(source: Path) -> str:
    """A config file as messages and origins name it: its path in the project or in the launcher, else its whole path."""
    launcher = launcher_configs()
    if source.is_relative_to(launcher):
        return f"{_LAUNCHER}/{source.relative_to(launcher)}"
    return str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else str(source)


def source_path(name: str) -> Path:
    """The config file that `source_name` gave this name."""
    if name.startswith(f"{_LAUNCHER}/"):
        return launcher_configs() / name.removeprefix(f"{_LAUNCHER}/")
    return ROOT / name
