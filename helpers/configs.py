"""Evaluation configs on disk: found by name or path, read with line marks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.console import say
from helpers.errors import BadInput, nearest, one_line
from helpers.files import ROOT, read_text, shown, write_text

if TYPE_CHECKING:
    import yaml

CONFIGS = ROOT / "configs"
# A few lines of aliases can stand for billions of nodes; no evaluation config comes near this many.
MOST_NODES = 100_000


def folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where configs are looked up by name: EVALMAKE_CONFIG_PATH (folders joined by `:`), then configs/."""
    extra = [Path(part).expanduser() for part in environ.get("EVALMAKE_CONFIG_PATH", "").split(":") if part]
    return [*extra, CONFIGS]


def names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The names of all configs that can be given as CONFIG."""
    return sorted({path.stem for folder in folders(environ) for path in folder.glob("*.yaml")})


def find(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The absolute path of the config `name`: a name in one of the folders, or a path. Raises BadInput with the list of configs."""
    if not name.isprintable():
        raise BadInput(f"CONFIG={name!r}: a name or a path on one line was expected")
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser().absolute()
        if path.is_dir():
            raise BadInput(f"CONFIG={name} is a folder; name the YAML file in it")
        if path.is_file():
            return path
    for folder in folders(environ):
        path = (folder / f"{name}.yaml").absolute()
        if "/" not in name and path.is_file():
            return path
    known = names(environ)
    raise BadInput(f"CONFIG={name}: no such config{nearest(name, known)}; configs: {', '.join(known)}; or give a path")


def load_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A config file as plain data, and the line of every key as `a.b.0.c` -> line number (1-based).

    Scalars are read as OmegaConf reads them (`1e-3` is a number). Raises BadInput with file and line for a syntax error, a duplicate key,
    an alias bomb, text that is not UTF-8, or a document that is not a mapping.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader

    text = read_text(path)
    loader = get_yaml_loader()(text)
    try:
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        if node is not None:
            _mark(node, "", lines, [0], path)
        data = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or one_line(error)
        raise BadInput(f"{shown(path)}{line}: not YAML: {reason}") from error
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise BadInput(f"{shown(path)}: `key: value` lines were expected, not a {type(data).__name__}")
    return data, lines


def _mark(node: yaml.Node, prefix: str, lines: dict[str, int], count: list[int], path: Path) -> None:
    import yaml

    count[0] += 1
    if count[0] > MOST_NODES:
        raise BadInput(f"{shown(path)}:{node.start_mark.line + 1}: more than {MOST_NODES} values; its aliases (*name) repeat too much")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}" if isinstance(key, yaml.ScalarNode) else prefix
            lines[name] = key.start_mark.line + 1
            _mark(value, f"{name}.", lines, count, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{prefix}{index}"] = value.start_mark.line + 1
            _mark(value, f"{prefix}{index}.", lines, count, path)


def start_new(name: str) -> None:
    """Copy configs/template.yaml to configs/NAME.yaml. Raises BadInput without a name, for a path, or when the file is there."""
    if not name or "/" in name or not name.isprintable() or name.startswith("."):
        raise BadInput(f"CONFIG={name}: a name for the new config was expected, for example CONFIG=my-model")
    path = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    if path.exists():
        raise BadInput(f"{shown(path)} is there already; choose another name, or edit it")
    write_text(path, (CONFIGS / "template.yaml").read_text(encoding="utf-8"))
    say(f"{shown(path)} written; edit it, then `make eval CONFIG={path.stem}`")
