"""Where each value of a compiled config was set: files with lines, the profile, overrides, defaults; the last one wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import configs
from helpers.composing import launcher_configs
from helpers.files import ROOT
from helpers.profiles import EnvFile, Profile

_LAUNCHER = "nemo_evaluator_launcher/configs"


@dataclass
class Origin:
    """One place that set a value."""

    value: Any
    set_by: str


class Trace:
    """The origins of every dotted key, in the order in which they were set."""

    def __init__(self) -> None:
        """Nothing was set yet."""
        self.keys: dict[str, list[Origin]] = {}

    def add(self, key: str, value: Any, set_by: str) -> None:
        """Note that `set_by` set `key`."""
        self.keys.setdefault(key, []).append(Origin(value, set_by))

    def add_file(self, source: Path, package: str = "") -> None:
        """Note every leaf of a config file, put under `package`."""
        data, lines = configs.load_yaml(source)
        data.pop("defaults", None)
        for key, value in leaves(data):
            self.add(f"{package}.{key}" if package else key, value, f"{source_name(source)}:{lines.get(key, 1)}")

    def add_profile(self, env: EnvFile, profile: Profile | None) -> None:
        """Note [wandb] and the profile's fields, which become run.wandb and run.env."""
        for key, value in env.tables.get("wandb", {}).items():
            self.add(f"run.wandb.{key}", value, env.where("wandb", key))
        for key, value in (profile.fields if profile else {}).items():
            assert profile
            if key == "wandb" and isinstance(value, dict):
                for name, content in value.items():
                    self.add(f"run.wandb.{name}", content, profile.origins[key])
                continue
            self.add(f"run.env.{key}", value, profile.origins[key])
            if key in ("container_image", "container"):
                self.add("run.env.container", value, profile.origins[key])

    def place(self, key: str, fallback: str = "config") -> str:
        """The last place that set `key`, or the nearest of its parents or children."""
        probe = key
        while probe:
            if probe in self.keys:
                return self.keys[probe][-1].set_by
            probe = probe.rpartition(".")[0]
        return next((history[-1].set_by for known, history in self.keys.items() if known.startswith(f"{key}.")), fallback)

    def places(self) -> dict[str, str]:
        """The last place of every key."""
        return {key: history[-1].set_by for key, history in self.keys.items()}

    def move(self, new: str, old: str) -> None:
        """Note that what was set as `old` is `new` now."""
        for known in [key for key in self.keys if key == old or key.startswith(f"{old}.")]:
            self.keys.setdefault(new + known[len(old) :], []).extend(
                Origin(origin.value, f"{origin.set_by} (as {known})") for origin in self.keys[known]
            )

    def history(self, key: str, value: Any, fallback: str) -> list[Origin]:
        """The places that set a leaf, the last with the value that it has. A leaf of something set as a whole has its parent's places."""
        probe = key
        while probe and probe not in self.keys:
            probe = probe.rpartition(".")[0]
        if not probe:
            return [Origin(value, "TASKS" if key.startswith("evaluation.tasks.") else fallback)]
        places = [Origin(origin.value, origin.set_by) for origin in self.keys[probe]]
        if probe == key and places[-1].value != value and isinstance(places[-1].value, str) and "${" in places[-1].value:
            places[-1].set_by += f" ({places[-1].value})"
        places[-1].value = value
        return places


def leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list (and every empty one), by its dotted key."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, f"{prefix}{key}.")
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            yield from leaves(value, f"{prefix}{index}.")
    else:
        yield prefix[:-1], data


def source_name(source: Path) -> str:
    """A config file as messages and origins name it: within the project, within the launcher, or whole."""
    launcher = launcher_configs()
    if source.is_relative_to(launcher):
        return f"{_LAUNCHER}/{source.relative_to(launcher)}"
    return str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else str(source)


def source_path(name: str) -> Path:
    """The config file that `source_name` gave this name to."""
    if name.startswith(f"{_LAUNCHER}/"):
        return launcher_configs() / name.removeprefix(f"{_LAUNCHER}/")
    return ROOT / name
