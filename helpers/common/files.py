"""Files that pass between steps: written whole or not at all, validated by their JSON Schema, and sealed against edits.

A seal is a SHA-256 over the content, so another layout, a space or a comment is no edit, and a changed value is. An edited file is refused:
nothing edited is used, or ignored, in silence. A file without a seal was written by hand; in a run's folder it is refused, since steps
write theirs with one. `made_from` holds the seals of the files that it was made from, so content decides what is stale, not clocks.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from helpers.common import run_folder, schema_messages, yaml_files
from helpers.common.errors import BadInput, StepFailed, one_line
from helpers.common.schema_check import surely_fits

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "configs" / "schemas"
SEAL_LINE = re.compile(r"^# seal: (.*)$", re.MULTILINE)
MADE_FROM_LINE = re.compile(r"^# made from: (.*)$", re.MULTILINE)
MAKE_AGAIN = "delete it, and the same command makes it again"


def shown(path: Path | str) -> str:
    """The path as a person would type it: relative to the working directory where it lies below it."""
    whole, here = Path(path).resolve(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else path)


def sha256_bytes(data: bytes) -> str:
    """`sha256:` and 64 hex digits of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """`sha256:` and 64 hex digits of a file's content, read in pieces of 1 MiB (checkpoints are large)."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return "sha256:" + digest.hexdigest()


def write_text(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write `text` (UTF-8) to a temporary file beside `path`, flush it to disk and rename it: the file is whole, or absent.

    `-` writes to stdout. Raises StepFailed when the folder cannot be written or the disk is full.
    """
    if str(path) == "-":
        sys.stdout.write(text)
        return
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise StepFailed(f"cannot write {shown(path)}: {error.strerror}; {run_folder.FREE_OR_FIX}") from error


def outdated(texts: dict[Path, str]) -> dict[Path, str]:
    """Those of these files that are missing or have another text than the one given."""
    return {path: text for path, text in texts.items() if not path.is_file() or read_text(path) != text}


def make_folder(path: Path) -> None:
    """Make a folder if it does not exist. Raises StepFailed when it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StepFailed(f"cannot make {shown(path)}: {error.strerror}; {run_folder.FREE_OR_FIX}") from error


def read_text(path: Path | str) -> str:
    """The text of a file, or of stdin for `-`. Raises BadInput when it is missing, a folder, unreadable, or not UTF-8."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        return Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(f"cannot read {shown(path)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{shown(path)}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema configs/schemas/NAME.schema.json as a dict."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(name))


def misfit(data: Any, schema: str) -> tuple[str, str] | None:
    """The dotted key that does not fit configs/schemas/SCHEMA.schema.json, and the explanation, key included; None if `data` fits."""
    if surely_fits(data, load_schema(schema)):
        return None
    from jsonschema.exceptions import best_match

    error = best_match(_validator(schema).iter_errors(data))
    return None if error is None else (schema_messages.key_of(error), schema_messages.explain(error))


def validate(data: Any, schema: str, where: str) -> None:
    """Check `data` against configs/schemas/SCHEMA.schema.json. Raises BadInput with `where`, the key, its value and what was expected."""
    if found := misfit(data, schema):
        raise BadInput(f"{where}: {found[1]}")


def seal_json(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of `data` with its `seal` last: the SHA-256 over its canonical JSON without the seal."""
    content = {key: value for key, value in data.items() if key != "seal"}
    return {**content, "seal": _seal(content)}


def write_json(path: Path | str, data: dict[str, Any], schema: str) -> str:
    """Validate, seal and write `data` as JSON; returns the seal. Raises StepFailed if the data does not fit its own schema (a bug)."""
    sealed = seal_json(data)
    _validate_own(sealed, schema, path)
    write_text(path, json.dumps(sealed, indent=2, ensure_ascii=False) + "\n")
    return str(sealed["seal"])


def read_json(path: Path | str, schema: str) -> dict[str, Any]:
    """Read a JSON file that a step wrote, and check its seal and its schema; the data comes with its seal.

    A file without a seal was written by hand: outside a run it is used, with a line on stderr. Raises BadInput for a file that is missing,
    torn, edited or does not fit its schema.
    """

    def keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise BadInput(f"{shown(path)} was edited: it has the key {one_line(twice)} twice; {MAKE_AGAIN}")
        return content

    text = read_text(path)
    try:
        data: Any = json.loads(text, object_pairs_hook=keys_once)
    except json.JSONDecodeError as error:
        raise BadInput(f"{shown(path)}:{error.lineno}: not JSON: {error.msg}; {MAKE_AGAIN}") from error
    except RecursionError:
        raise BadInput(f"{shown(path)}: nested too deeply for a file of a run; {MAKE_AGAIN}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{shown(path)}: expected a JSON object; {MAKE_AGAIN}")
    sealed = seal_json(data)
    if "seal" not in data:
        _check_handmade(path)
    elif data["seal"] != sealed["seal"]:
        raise _edited(path)
    validate(sealed, schema, shown(path))
    return sealed


def write_yaml(path: Path | str, data: dict[str, Any], schema: str, made_by: str, made_from: dict[str, str]) -> str:
    """Validate and write `data` as YAML; returns the seal. Comments say which script made it, from what, and its seal (the last line).

    Raises StepFailed if the data does not fit its own schema (a bug).
    """
    _validate_own(data, schema, path)
    seal = yaml_seal(data, made_from)
    head = f"# made by {made_by}; do not edit: change the config, or start a new run with SET=…"
    origin = json.dumps(made_from, sort_keys=True)
    write_text(path, f"{head}\n# made from: {origin}\n{yaml_files.dump(data)}# seal: {seal}\n")
    return seal


def yaml_seal(data: dict[str, Any], made_from: dict[str, str]) -> str:
    """The seal that write_yaml gives to this content."""
    return _seal({"data": _named(data), "made_from": made_from})


def read_yaml(path: Path | str, schema: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    """Read a sealed YAML file of a run: its data, its seal, and the seals of what it was made from (empty for a file written by hand).

    Raises BadInput as read_json does.
    """
    import yaml

    text = read_text(path)
    seals = [seal.strip() for seal in SEAL_LINE.findall(text)]
    if not seals:
        _check_handmade(path)
    try:
        data = yaml_files.load(text, keys_once=True)
        origin = MADE_FROM_LINE.search(text)
        made_from: dict[str, str] = json.loads(origin[1]) if origin else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{shown(path)}: not YAML that a step wrote: {one_line(error)}; {MAKE_AGAIN}") from error
    seal = yaml_seal(data, made_from)
    if seals and seals != [seal]:
        body = text.rpartition("# seal: ")[0]
        seal = sha256_bytes(body.encode("utf-8"))  # earlier versions sealed the text, and their runs still count
        if text != f"{body}# seal: {seal}\n":
            raise _edited(path)
    validate(data, schema, shown(path))
    return data, seal, made_from


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=repr)
    return sha256_bytes(text.encode("utf-8", "surrogateescape"))


def _named(data: Any) -> Any:
    """The same with every key as text, as JSON has them; YAML also has numbers as keys, and `1` is another key than `"1"`."""
    if isinstance(data, dict):
        return {key if isinstance(key, str) else repr((key,)): _named(value) for key, value in data.items()}
    return [_named(value) for value in data] if isinstance(data, list) else data


def _validate_own(data: dict[str, Any], schema: str, path: Path | str) -> None:
    try:
        validate(data, schema, shown(path))
    except BadInput as error:
        raise StepFailed(f"refusing to write a file that its own schema rejects: {error}") from error


def _check_handmade(path: Path | str) -> None:
    """Refuse a file without a seal in a run's folder; elsewhere say that it is used."""
    if run_folder.run_of(path):
        raise _edited(path, "has no seal, so it was edited after it was written")
    print(f"[info] {shown(path)} has no seal: written by hand, used as it is", file=sys.stderr)


def _edited(path: Path | str, what: str = "was edited after it was written") -> BadInput:
    return BadInput(f"{shown(path)} {what}; {MAKE_AGAIN}, or start a new run with SET=… to change a value")
