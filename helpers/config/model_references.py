"""Models named by artifact: what a reference means, where it is looked up, and what `${art:…}` in a config becomes.

`run.model: rl:latest` names an artifact; `${art:model,path}` elsewhere in the config stands for its path, and `version`, `name`, `digest`
and `metadata.KEY` for what else is recorded of it. A compiled config keeps the `${art:…}`: model.json holds what they are, with the
concrete version, and launcher.yaml has the values. A config without one needs no registry, and its model.json names no model.

An artifact is looked up in one place, W&B or a folder of manifests: v2 in one is not v2 in the other, since W&B counts from v0 and
manifests from v1. The layout of that folder, and that W&B wins where both are configured, are those of the training recipes that write them
(NVIDIA-NeMo/Nemotron, docs of nemo_runspec.artifacts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from helpers.common.errors import BadInput, nearest
from helpers.config.tracing import leaves

# What the recipe's models are called; a config's run.artifacts.names adds to it, and overrides it.
SHORT_NAMES = {"pretrain": "ModelArtifact-pretrain", "sft": "ModelArtifact-sft", "rl": "ModelArtifact-rl"}
# ${art:KEY,FIELD}: KEY is a key of `run`, whose value is the reference.
USE = re.compile(r"\$\{art:\s*(\w+)\s*(?:,\s*([^,{}]*?)\s*)?\}")
FIELDS = ("path", "version", "name", "digest")
METADATA = "metadata."
LATEST = "latest"
# Where the metadata of a model says where its files are; the first that is there counts.
PATH_KEYS = ("absolute_path", "path", "checkpoint_path", "model_path")
REFERENCE = re.compile(r"(?:(?:(?P<entity>[^/:]+)/)?(?P<project>[^/:]+)/)?(?P<name>[^/:]+)(?::(?P<version>[^/:]+))?")
MOST_LISTED = 8
# What an artifact says becomes part of commands that a shell reads, and it was written by somebody else.
UNSAFE_PATH = re.compile(r"[\x00-\x1f\"'`$;&|<>\\!*?(){}\[\]]")
SAFE_METADATA = re.compile(r"[\w./:@%+=,-]*")


@dataclass(frozen=True)
class Use:
    """A `${art:KEY,FIELD}` of a config, and the dotted key where it stands."""

    key: str
    field: str
    place: str


@dataclass(frozen=True)
class Reference:
    """An artifact as it was named: its text, and the parts. `entity` and `project` None: those of run.wandb."""

    text: str
    name: str
    version: str
    entity: str | None = None
    project: str | None = None


@dataclass(frozen=True)
class Place:
    """Where artifacts are looked up: `wandb`, or `file` with the root of the manifests."""

    backend: str
    root: str | None = None


@dataclass(frozen=True)
class Found:
    """An artifact as it was found: its whole name, its concrete version, and where its files are (None, and why not)."""

    name: str
    version: str
    digest: str
    kind: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    no_path: str = ""


@dataclass(frozen=True)
class Listed:
    """An artifact that can be named: its whole name, its versions, oldest first, and its aliases with the version of each."""

    name: str
    versions: list[str]
    aliases: dict[str, str]


class Registry(Protocol):
    """Where artifacts are looked up, at work."""

    where: str

    def find(self, key: str, reference: Reference, with_path: bool) -> Found:
        """The artifact. Raises BadInput when there is no such artifact or version, Unreachable when that could not be asked."""
        ...

    def listing(self, match: str) -> list[Listed]:
        """All artifacts with this text in their names. Raises Unreachable."""
        ...


# ---- In a config ---------------------------------------------------------------------------------------------------------------------


def uses(config: Mapping[str, Any]) -> list[Use]:
    """Every `${art:…}` of a config outside of its run section."""
    rest = {name: section for name, section in config.items() if name != "run"}
    return [Use(*one, place) for place, value in leaves(rest) for one in _in_text(value)]


def _in_text(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        for found in USE.finditer(value):
            yield found[1], found[2] or "path"


def references(config: Mapping[str, Any]) -> dict[str, Reference]:
    """The references that the config uses, by their keys in `run`. Raises BadInput for one that is no reference."""
    run, known = config.get("run") or {}, names(config)
    return {key: parse(f"run.{key}", str(run.get(key) or ""), known) for key in dict.fromkeys(use.key for use in uses(config))}


def names(config: Mapping[str, Any]) -> dict[str, str]:
    """The short names and the artifacts that they mean: the recipe's, and those of run.artifacts.names."""
    own = _settings(config).get("names") or {}
    return {**SHORT_NAMES, **{short: str(name) for short, name in own.items() if name}}


def place(config: Mapping[str, Any]) -> Place:
    """Where this config looks its artifacts up: run.artifacts, which env.toml's [artifacts] fills. W&B where nothing is said.

    Raises BadInput for a file backend without a root, and for settings that leave no backend.
    """
    settings = _settings(config)
    manifest = settings.get("manifest") or {}
    root = settings.get("root") or manifest.get("root")
    switches = [one for one in (settings.get("wandb"), manifest.get("wandb")) if one is not None]
    backend = settings.get("backend") or ("wandb" if True in switches or (not root and False not in switches) else "file")
    if backend == "file" and not root:
        raise BadInput(
            'artifacts: the file backend has no root; write `root = "/path/to/artifacts"` into [artifacts] of env.toml, '
            'or SET="run.artifacts.backend=wandb"'
        )
    return Place(backend, str(root) if root and backend == "file" else None)


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return (config.get("run") or {}).get("artifacts") or {}


def parse(key: str, text: str, known: Mapping[str, str]) -> Reference:
    """NAME, NAME:VERSION, PROJECT/NAME:VERSION or ENTITY/PROJECT/NAME:VERSION; a bare NAME may be a short one of `known`.

    A version is vN, N for vN, or an alias; without one it is `latest`. Raises BadInput naming `key` for anything else.
    """
    found = REFERENCE.fullmatch(text)
    if not found:
        raise BadInput(f"{key}={text}: NAME:VERSION was expected, such as rl:latest, sft:v2 or my-team/nemotron/ModelArtifact-rl:v3")
    version = found["version"] or LATEST
    if version.isdecimal():
        version = f"v{version}"
    name = found["name"] if found["project"] else known.get(found["name"], found["name"])
    return Reference(text, name, version, found["entity"], found["project"])


def check(config: Mapping[str, Any]) -> None:
    """Raise BadInput, with the dotted key first, for what no lookup could answer: an unknown field, or a reference that is none."""
    for key, value in leaves({name: section for name, section in config.items() if name != "run"}):
        if isinstance(value, str) and "${art:" in USE.sub("", value):
            raise BadInput(f"{key}: {value}: ${{art:model,path}} was expected: a key of `run`, then one of {_fields()}")
    for use in uses(config):
        if use.field not in FIELDS and not (use.field.startswith(METADATA) and use.field != METADATA):
            raise BadInput(f"{use.place}: ${{art:{use.key},{use.field}}}: one of {_fields()} was expected{nearest(use.field, FIELDS)}")
    found = references(config)
    if not found or place(config).backend == "wandb":
        return
    for key, reference in found.items():
        if reference.project:
            raise BadInput(
                f"run.{key}: {reference.text} names a project of W&B, and artifacts are looked up in files; "
                f'give NAME:VERSION, or SET="run.artifacts.backend=wandb"'
            )


def _fields() -> str:
    return ", ".join([*FIELDS, f"{METADATA}KEY"])


def asks_wandb(config: Mapping[str, Any]) -> dict[str, bool]:
    """The keys of `run` that are looked up in W&B, each with whether project and entity must be known from elsewhere for it."""
    found = references(config)
    return {f"run.{key}": not one.entity for key, one in found.items()} if found and place(config).backend == "wandb" else {}


# ---- What was found ------------------------------------------------------------------------------------------------------------------


def recorded(config: Mapping[str, Any], registry: Registry, where: Place) -> dict[str, dict[str, Any]]:
    """The `models` of model.json: for each key of `run` that the config uses, the artifact with its concrete version.

    Metadata is recorded as far as the config uses it. Raises BadInput for what does not exist, Unreachable when that could not be asked.
    """
    models = {}
    for key, reference in references(config).items():
        wanted = [use for use in uses(config) if use.key == key]
        found = registry.find(f"run.{key}", reference, any(use.field == "path" for use in wanted))
        keys = list(dict.fromkeys(use.field.removeprefix(METADATA) for use in wanted if use.field.startswith(METADATA)))
        for name in keys:
            if not isinstance(found.metadata.get(name), (str, int, float)):
                listed = ", ".join(sorted(one for one, said in found.metadata.items() if isinstance(said, (str, int, float)))) or "nothing"
                raise BadInput(
                    f"run.{key}={reference.text}: the metadata of {found.name}:{found.version} has no {name}"
                    f"{nearest(name, found.metadata)}; it has {listed}"
                )
            if not SAFE_METADATA.fullmatch(str(found.metadata[name])):
                raise BadInput(
                    f"run.{key}={reference.text}: the metadata {name} of {found.name}:{found.version} is {found.metadata[name]!r}, which a "
                    "shell could expand; only letters, digits and ./:@%+=,- are taken"
                )
        if found.path and UNSAFE_PATH.search(found.path):
            raise BadInput(
                f"run.{key}={reference.text}: the path of {found.name}:{found.version} is {found.path!r}, which a shell could expand; "
                'give SET="deployment.checkpoint_path=…"'
            )
        if found.path is None and any(use.field == "path" for use in wanted):
            raise BadInput(
                f"run.{key}={reference.text}: {found.name}:{found.version} does not say where its files are: {found.no_path}; "
                'give SET="deployment.checkpoint_path=…"'
            )
        models[key] = {
            "reference": reference.text,
            "backend": where.backend,
            "found_in": registry.where,
            "name": found.name,
            "version": found.version,
            "digest": found.digest,
            "type": found.kind,
            "path": found.path,
            "metadata": {name: str(found.metadata[name]) for name in keys},
        }
    return models


def stand_ins(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same for a plan, which asks nobody: the reference's own words, and a path that says that it is none yet."""
    return {
        key: {
            "path": f"/path-of/{one.name}/{one.version}",
            "version": one.version,
            "name": one.name,
            "digest": "digest",
            "metadata": {use.field.removeprefix(METADATA): "metadata" for use in uses(config) if use.field.startswith(METADATA)},
        }
        for key, one in references(config).items()
    }


def filled(data: Any, models: Mapping[str, Mapping[str, Any]]) -> Any:
    """`data` with every `${art:…}` replaced by what `models` (of model.json) says. Raises BadInput for a model that it does not have."""
    if isinstance(data, dict):
        return {key: filled(value, models) for key, value in data.items()}
    if isinstance(data, list):
        return [filled(value, models) for value in data]
    return USE.sub(lambda found: _value(found, models), data) if isinstance(data, str) else data


def _value(found: re.Match[str], models: Mapping[str, Mapping[str, Any]]) -> str:
    wanted = found[2] or "path"
    model = models.get(found[1], {})
    value = model.get("metadata", {}).get(wanted.removeprefix(METADATA)) if wanted.startswith(METADATA) else model.get(wanted)
    if value is None:
        raise BadInput(f"{found[0]} is not resolved: model.json does not have it; scripts/resolve_model.py makes that file")
    return str(value)


def path_in(metadata: Mapping[str, Any]) -> tuple[str | None, str]:
    """Where a model's metadata says that its files are: an absolute path, or None and why not."""
    for key in PATH_KEYS:
        if value := metadata.get(key):
            path = path_of(str(value))
            return path, "" if path else f"{key} is {value}, no path of a filesystem"
    return None, f"its metadata has none of {', '.join(PATH_KEYS)}"


def path_of(text: str) -> str | None:
    """The absolute path that a text or a `file://` URI is; None for any other."""
    if text.startswith("/"):
        return text
    parts = urlsplit(text)
    return unquote(parts.path) if parts.scheme == "file" and parts.path.startswith("/") else None


# ---- What was not found --------------------------------------------------------------------------------------------------------------


def no_name(key: str, reference: Reference, where: str, known: Iterable[str]) -> BadInput:
    """An artifact that is not there: the nearest names, and those that are."""
    there = sorted(known)
    wanted = [reference.name, reference.text.partition(":")[0]]
    near = [one for word in wanted for one in get_close_matches(word, there, n=2, cutoff=0.6)]
    short = get_close_matches(reference.text.partition(":")[0], SHORT_NAMES, n=1, cutoff=0.5)  # lr: rl
    near += [SHORT_NAMES[one] for one in short if SHORT_NAMES[one] in there]
    hint = f" (did you mean {' or '.join(dict.fromkeys(near))}?)" if near else ""
    has = f"it has {_some(there)}" if there else "it has none"
    return BadInput(f"{key}={reference.text}: {where} has no artifact {reference.name}{hint}; {has}; `make models` lists them")


def no_version(key: str, reference: Reference, name: str, versions: list[str], aliases: Iterable[str]) -> BadInput:
    """A version that an artifact does not have: the nearest, and those that it has."""
    others = [one for one in aliases if one not in versions]
    hint = nearest(reference.version, [*others, *versions]) if not re.fullmatch(r"v\d+", reference.version) else ""
    has = _some([*others, *reversed(versions)]) if versions else "none"
    return BadInput(f"{key}={reference.text}: {name} has no version {reference.version}{hint}; it has {has}")


def _some(words: list[str]) -> str:
    more = len(words) - MOST_LISTED
    return ", ".join(words[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
