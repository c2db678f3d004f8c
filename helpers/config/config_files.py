"""Evaluation configs on disk: found by name or path, read with line marks."""

import importlib.util
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.common.errors import BadInput, StepFailed, nearest, one_line
from helpers.common.files import ROOT, read_text, shown

if TYPE_CHECKING:
    import yaml

CONFIGS = ROOT / "configs"
# A few lines of YAML aliases can expand to billions of nodes. No real config comes near this number.
MOST_NODES = 30_000


@cache
def launcher_configs() -> Path:
    """The folder of the launcher's own config groups, found without its import (0.9 s). Raises StepFailed when there is none."""
    spec = importlib.util.find_spec("nemo_evaluator_launcher")
    if spec is None or spec.origin is None:
        raise StepFailed("nemo-evaluator-launcher is not installed; run: make setup")
    return Path(spec.origin).parent / "configs"


def folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The folders with configs, in search order: those of EVALMAKE_CONFIG_PATH (joined by `:`), then configs/."""
    extra = [Path(part).expanduser() for part in environ.get("EVALMAKE_CONFIG_PATH", "").split(":") if part]
    return [*extra, CONFIGS]


def names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The names of all configs, as given in CONFIG."""
    return sorted({path.stem for folder in folders(environ) for path in folder.glob("*.yaml")})


def find(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The absolute path of the config `name`, which may be a path too. Raises BadInput, with the list of configs, if there is none."""
    if not name.isprintable():
        raise BadInput(f"CONFIG={name!r}: expected a name or a path on one line")
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser().absolute()
        if os.path.isdir(path):  # noqa: PTH112  as in _is_file
            raise BadInput(f"CONFIG={name} is a folder; name the YAML file in it")
        if _is_file(path):
            return path
    for folder in folders(environ):
        path = (folder / f"{name}.yaml").absolute()
        if "/" not in name and _is_file(path):
            return path
    known = names(environ)
    raise BadInput(f"CONFIG={name}: there is no such config{nearest(name, known)}; configs: {', '.join(known)}; or give a path")


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  unlike Path.is_file, it accepts names that are too long for a file


def load_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A config file as plain data, and the line number (from 1) of every dotted key (`a.b.0.c`).

    Scalars are read as OmegaConf reads them (`1e-3` is a number). Raises BadInput, with file and line, for a syntax error, a duplicate key,
    aliases that expand too far, text that is not UTF-8, and a document that is not a mapping.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader

    text = read_text(path)
    loader = None
    try:
        loader = get_yaml_loader()(text)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        if node is not None:
            _mark(node, "", lines, [], path)
        data = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from error
    except ValueError as error:  # an impossible date
        raise BadInput(f"{shown(path)}: not YAML: {one_line(error)}; put text in quotes") from error
    except RecursionError as error:
        raise BadInput(f"{shown(path)}: nested too deeply; an evaluation config has only a few levels") from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(data, dict | None):
        raise BadInput(f"{shown(path)}:1: expected `key: value` lines, found {'a list' if isinstance(data, list) else 'plain text'}")
    return data or {}, lines


def first_unreadable(data: Any, key: str = "") -> str | None:
    """The first dotted key whose text has a `${` that OmegaConf's grammar cannot read; None if there is none."""
    from omegaconf import grammar_parser
    from omegaconf.errors import GrammarParseError

    if isinstance(data, dict | list):
        inside = data.items() if isinstance(data, dict) else enumerate(data)
        return next((bad for name, value in inside if (bad := first_unreadable(value, f"{key}.{name}" if key else str(name)))), None)
    if isinstance(data, str) and "${" in data:
        try:
            grammar_parser.parse(data)
        except GrammarParseError:
            return key
    return None


def _not_yaml(error: "yaml.YAMLError", path: Path) -> BadInput:
    mark = getattr(error, "problem_mark", None)
    reason = one_line(getattr(error, "problem", None) or error)
    # PyYAML's errors carry no more than this text.
    fixes = {"\\t": "indent with spaces", "duplicate key": "keep one of the two"}
    fix = next((fix for words, fix in fixes.items() if words in reason), "put text with any of : { } [ ] # in quotes")
    return BadInput(f"{shown(path)}{f':{mark.line + 1}' if mark else ''}: not YAML: {reason}; {fix}")


def _mark(node: "yaml.Node", prefix: str, lines: dict[str, int], around: list["yaml.Node"], path: Path) -> None:
    """Record the line of every key below `node`; `around` are the nodes that contain it."""
    import yaml

    place = f"{shown(path)}:{node.start_mark.line + 1}"
    if len(lines) > MOST_NODES:
        raise BadInput(f"{place}: more than {MOST_NODES} values: its aliases (*name) expand too far; write the values out")
    if any(node is outer for outer in around):
        raise BadInput(f"{place}: an alias (*name) inside the value that it names; write the value out")
    around.append(node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadInput(f"{shown(path)}:{key.start_mark.line + 1}: expected one word as a key, found a list or mapping")
            name = f"{prefix}{key.value}"
            lines[name] = key.start_mark.line + 1
            _mark(value, f"{name}.", lines, around, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{prefix}{index}"] = value.start_mark.line + 1
            _mark(value, f"{prefix}{index}.", lines, around, path)
    around.pop()
