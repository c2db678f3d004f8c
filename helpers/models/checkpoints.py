"""One look at a checkpoint where its files are, before anything is imported or queued: its tokenizer, and what its config.json says."""

import json
import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.cluster import scripts
from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput

FOLDERS = (".", "tokenizer")  # Megatron checkpoints keep the tokenizer in the second
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json")
NUMBERS = ("max_position_embeddings", "num_attention_heads")


@dataclass(frozen=True)
class Checkpoint:
    """The path of the folder that has the tokenizer (None: there is none), and those NUMBERS that the checkpoint's config.json has."""

    tokenizer: str | None
    numbers: dict[str, int] = field(default_factory=dict)


def look(path: str, cluster: Cluster | None) -> Checkpoint:
    """Look at the checkpoint `path` on a cluster, or on this machine. Raises BadInput when it does not exist, Unreachable."""
    if cluster:
        text = scripts.script("models/checkpoint.sh", CHECKPOINT=path, FOLDERS=FOLDERS, NAMES=TOKENIZER_FILES)
        found = {frame.kind: frame.text for frame in scripts.run(cluster, text)}
    else:
        found = _look_here(Path(path))
    if "missing" in found:
        where = f" on {cluster}" if cluster else " on this machine"
        raise BadInput(f"deployment.checkpoint_path: {path} does not exist{where}; check the path")
    folder = found.get("tokenizer")
    return Checkpoint(None if folder is None else posixpath.normpath(posixpath.join(path, folder)), _numbers(found.get("config", "")))


def _look_here(path: Path) -> dict[str, str]:
    if not path.exists():
        return {"missing": str(path)}
    found = {}
    if folders := [folder for folder in FOLDERS if any((path / folder / name).is_file() for name in TOKENIZER_FILES)]:
        found["tokenizer"] = folders[0]
    if (config := path / "config.json").is_file():
        found["config"] = config.read_text(encoding="utf-8", errors="replace")
    return found


def _numbers(text: str) -> dict[str, int]:
    """The NUMBERS in the text of a config.json, at its top or for the text part of the model.

    A model whose positions are scaled (rope_scaling) takes more than max_position_embeddings, by a rule of each kind of scaling: left out.
    """
    try:
        data: Any = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    inner = data["text_config"] if isinstance(data.get("text_config"), dict) else {}
    merged = {**inner, **data}
    scaled = merged.get("rope_scaling") or {}
    found = {name: merged[name] for name in NUMBERS if type(merged.get(name)) is int}
    if scaled:
        found.pop("max_position_embeddings", None)
    return found
