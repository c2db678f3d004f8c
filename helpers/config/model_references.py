"""Models named by artifact: what a reference means, where it is looked up, and what `${art:…}` in a config becomes.

`run.model: rl:latest` names an artifact. `${art:model,path}` elsewhere in the config stands for its path; `version`, `name`, `digest` and
`metadata.KEY` stand for the rest of its record. A compiled config keeps the `${art:…}`: model.json has the concrete version and the values,
launcher.yaml the result. A config without `${art:…}` looks nothing up, and its model.json names no model.

An artifact is looked up in one place only, W&B or a folder of manifests: W&B counts versions from v0 and manifests from v1, so v2 in one is
not v2 in the other. The training recipes that write the folder set its layout, and the rule that W&B wins if both are configured
(NVIDIA-NeMo/Nemotron, docs of nemo_runspec.artifacts).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from helpers.common.errors import BadInput, located, nearest
from helpers.config.tracing import leaves

# Short names of the recipe's models; run.artifacts.names of a config adds to them, or overrides them.
SHORT_NAMES = {"pretrain": "ModelArtifact-pretrain", "sft": "ModelArtifact-sft", "rl": "ModelArtifact-rl"}
# ${art:KEY,FIELD}: `run.KEY` is the reference.
USE = re.compile(r"\$\{art:\s*(\w+)\s*(?:,\s*([^,{}]*?)\s*)?\}")
FIELDS = ("path", "version", "name", "digest")
METADATA = "metadata."
LATEST = "latest"
# The keys of a model's metadata that may hold the path of its files, in the order in which they are tried.
PATH_KEYS = ("absolute_path", "path", "checkpoint_path", "model_path")
REFERENCE = re.compile(r"(?:(?:(?P<entity>[^/:]+)/)?(?P<project>[^/:]+)/)?(?P<name>[^/:]+)(?::(?P<version>[^/:]+))?")
MOST_LISTED = 8
# Paths and metadata of an artifact become part of shell commands, and other people wrote them.
UNSAFE_PATH = re.compile(r"[\x00-\x1f\"'`$;&|<>\\!*?(){}\[\]]")
SAFE_METADATA = re.compile(r"[\w./:@%+=,-]*")


@dataclass(frozen=True)
class Use:
    """A `${art:KEY,FIELD}` of a config, and the dotted key whose value contains it."""

    key: str
    field: str
    place: str


@dataclass(frozen=True)
class Reference:
    """A reference as text and in parts. `entity` and `project` None: those of run.wandb."""

    text: str
    name: str
    version: str
    entity: str | None = None
    project: str | None = None


@dataclass(frozen=True)
class Artifact:
    """An artifact that was found: its full name, its concrete version, and the path of its files (None: `no_path` says why)."""

    name: str
    version: str
    digest: str
    kind: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    no_path: str = ""


@dataclass(frozen=True)
class ListedArtifact:
    """An artifact in a listing: its full name, its versions, oldest first, and the version of each alias."""

    name: str
    versions: list[str]
    aliases: dict[str, str]


class ModelStore(Protocol):
    """A place that answers: W&B, or a folder of manifests."""

    where: str

    def find(self, key: str, reference: Reference, with_path: bool) -> Artifact:
        """The artifact. Raises BadInput if it or its version does not exist, Unreachable if the store did not answer."""

    def listing(self, match: str) -> list[ListedArtifact]:
        """All artifacts whose names contain this text. Raises Unreachable."""


# ---- In a config ---------------------------------------------------------------------------------------------------------------------


def uses(config: Mapping[str, Any]) -> list[Use]:
    """Every `${art:…}` of a config outside its run section."""
    return [Use(found[1], found[2] or "path", key) for key, text in _texts(config) for found in USE.finditer(text)]


def _texts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every text outside the run section, with its dotted key."""
    rest = {name: section for name, section in config.items() if name != "run"}
    return [(key, value) for key, value in leaves(rest) if isinstance(value, str)]


def references(config: Mapping[str, Any]) -> dict[str, Reference]:
    """The references that the config uses, by their keys in `run`. Raises BadInput for an invalid one."""
    return {key: _reference(config, key) for key in dict.fromkeys(use.key for use in uses(config))}


def _reference(config: Mapping[str, Any], key: str) -> Reference:
    return parse(f"run.{key}", str((config.get("run") or {}).get(key) or ""), names(config))


def names(config: Mapping[str, Any]) -> dict[str, str]:
    """The artifact of each short name: the recipe's, and those of run.artifacts.names."""
    own = _settings(config).get("names") or {}
    return {**SHORT_NAMES, **{short: str(name) for short, name in own.items() if name}}


def manifest_root(config: Mapping[str, Any]) -> str | None:
    """The root of the manifests in which this config looks up its artifacts; None for W&B, which is the default.

    run.artifacts decides, which [artifacts] of env.toml fills. Raises BadInput for a file backend without a root.
    """
    settings = _settings(config)
    manifest = settings.get("manifest") or {}
    root = settings.get("root") or manifest.get("root")
    switches = [one for one in (settings.get("wandb"), manifest.get("wandb")) if one is not None]
    backend = settings.get("backend") or ("wandb" if True in switches or (not root and False not in switches) else "file")
    if backend == "file" and not root:
        fix = 'write `root = "/path/to/artifacts"` into [artifacts] of env.toml, or give SET="run.artifacts.backend=wandb"'
        raise BadInput(f"artifacts: the file backend has no root; {fix}")
    return str(root) if backend == "file" else None


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return (config.get("run") or {}).get("artifacts") or {}


def parse(key: str, text: str, known: Mapping[str, str]) -> Reference:
    """Read NAME, NAME:VERSION, PROJECT/NAME:VERSION or ENTITY/PROJECT/NAME:VERSION; a bare NAME may be one of the short names `known`.

    A version is vN, N (the same as vN) or an alias; the default is `latest`. Raises BadInput for anything else.
    """
    found = REFERENCE.fullmatch(text)
    if not found:
        examples = "rl:latest, sft:v2 or my-team/nemotron/ModelArtifact-rl:v3"
        raise BadInput(f"{key}={text}: expected NAME:VERSION, such as {examples}")
    version = found["version"] or LATEST
    name = found["name"] if found["project"] else known.get(found["name"], found["name"])
    return Reference(text, name, f"v{version}" if version.isdecimal() else version, found["entity"], found["project"])


def check(config: Mapping[str, Any], where: Callable[[str], str]) -> None:
    """Refuse what no lookup could answer: an unknown field, or an invalid reference. `where` gives file and line of a dotted key."""
    fields = ", ".join([*FIELDS, f"{METADATA}KEY"])
    for key, text in _texts(config):
        if "${art:" in USE.sub("", text):
            raise BadInput(f"{where(key)}: {key}: {text}: expected ${{art:model,path}}: a key of `run`, then one of {fields}")
    for use in uses(config):
        if use.field not in FIELDS and not (use.field.startswith(METADATA) and use.field != METADATA):
            hint = nearest(use.field, FIELDS)
            raise BadInput(f"{where(use.place)}: {use.place}: ${{art:{use.key},{use.field}}}: expected one of {fields}{hint}")
    for key in dict.fromkeys(use.key for use in uses(config)):
        with located(where(f"run.{key}")):
            reference = _reference(config, key)
        with located(where("run.artifacts")):
            root = manifest_root(config)
        if root and reference.project:
            why = f"{reference.text} names a W&B project, but artifacts are looked up in files"
            raise BadInput(f'{where(f"run.{key}")}: run.{key}: {why}; give NAME:VERSION, or SET="run.artifacts.backend=wandb"')


def asks_wandb(config: Mapping[str, Any]) -> dict[str, bool]:
    """The keys of `run` that are looked up in W&B, each with whether its reference lacks the entity, so that run.wandb has to name it."""
    found = references(config)
    return {f"run.{key}": not one.entity for key, one in found.items()} if found and not manifest_root(config) else {}


# ---- What was found ------------------------------------------------------------------------------------------------------------------


def recorded(config: Mapping[str, Any], store: ModelStore) -> dict[str, dict[str, Any]]:
    """The `models` of model.json: for each key of `run` that the config uses, the artifact with its concrete version.

    Of the metadata, only what the config uses is recorded. Raises BadInput for what does not exist or is unsafe in a shell, Unreachable if
    the store did not answer.
    """
    models = {}
    for key, reference in references(config).items():
        fields = dict.fromkeys(use.field for use in uses(config) if use.key == key)
        found = store.find(f"run.{key}", reference, "path" in fields)
        asked, whole, fix = f"run.{key}={reference.text}", f"{found.name}:{found.version}", 'give SET="deployment.checkpoint_path=…"'
        keys = [field.removeprefix(METADATA) for field in fields if field.startswith(METADATA)]
        for name in keys:
            value = found.metadata.get(name)
            if not isinstance(value, (str, int, float)):
                plain = ", ".join(sorted(other for other, one in found.metadata.items() if isinstance(one, (str, int, float))))
                hint = nearest(name, found.metadata)
                raise BadInput(f"{asked}: the metadata of {whole} has no {name}{hint}; it has {plain or 'nothing'}")
            if not SAFE_METADATA.fullmatch(str(value)):
                why = "which a shell could expand; only letters, digits and ./:@%+=,- are allowed"
                raise BadInput(f"{asked}: the metadata {name} of {whole} is {value!r}, {why}")
        if found.path and UNSAFE_PATH.search(found.path):
            raise BadInput(f"{asked}: the path of {whole} is {found.path!r}, which a shell could expand; {fix}")
        if found.path is None and "path" in fields:
            raise BadInput(f"{asked}: {whole} does not say where its files are: {found.no_path}; {fix}")
        models[key] = {
            "reference": reference.text,
            "backend": "file" if manifest_root(config) else "wandb",
            "found_in": store.where,
            "name": found.name,
            "version": found.version,
            "digest": found.digest,
            "type": found.kind,
            "path": found.path,
            "metadata": {name: str(found.metadata[name]) for name in keys},
        }
    return models


def stand_ins(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same for a plan, which looks nothing up: the reference's own name and version, and a made-up path."""
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
    """`data` with every `${art:…}` replaced by its value in `models` (of model.json). Raises BadInput for a model that is not there."""
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
        raise BadInput(f"{found[0]} is not in model.json; scripts/resolve_model.py makes that file")
    return str(value)


def path_in(metadata: Mapping[str, Any]) -> tuple[str | None, str]:
    """The absolute path of the files that a model's metadata has; or None, and why there is none."""
    for key in PATH_KEYS:
        if value := metadata.get(key):
            path = path_of(str(value))
            return path, "" if path else f"{key} is {value}, not a path of a filesystem"
    return None, f"its metadata has none of {', '.join(PATH_KEYS)}"


def path_of(text: str) -> str | None:
    """The absolute path in a text or a `file://` URI; None for anything else."""
    if text.startswith("/"):
        return text
    parts = urlsplit(text)
    return unquote(parts.path) if parts.scheme == "file" and parts.path.startswith("/") else None


# ---- What was not found --------------------------------------------------------------------------------------------------------------


def no_name(key: str, reference: Reference, where: str, known: Iterable[str]) -> BadInput:
    """The error for an artifact that does not exist, with the nearest names and a list of those that do."""
    existing = sorted(known)
    wanted = [reference.name, reference.text.partition(":")[0]]
    near = [one for word in wanted for one in get_close_matches(word, existing, n=2, cutoff=0.6)]
    short = get_close_matches(reference.text.partition(":")[0], SHORT_NAMES, n=1, cutoff=0.5)  # lr: rl
    near += [SHORT_NAMES[one] for one in short if SHORT_NAMES[one] in existing]
    hint = f" (did you mean {' or '.join(dict.fromkeys(near))}?)" if near else ""
    has = f"it has {_some(existing)}" if existing else "it has none"
    return BadInput(f"{key}={reference.text}: {where} has no artifact {reference.name}{hint}; {has}; `make models` lists them")


def no_version(key: str, reference: Reference, name: str, versions: list[str], aliases: Iterable[str]) -> BadInput:
    """The error for a version that does not exist, with the nearest one and a list of those that do."""
    others = [one for one in aliases if one not in versions]
    hint = nearest(reference.version, [*others, *versions]) if not re.fullmatch(r"v\d+", reference.version) else ""
    has = _some([*others, *reversed(versions)]) if versions else "none"
    return BadInput(f"{key}={reference.text}: {name} has no version {reference.version}{hint}; it has {has}")


def _some(words: list[str]) -> str:
    more = len(words) - MOST_LISTED
    return ", ".join(words[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
