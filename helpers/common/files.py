"""Files that pass between steps: written whole or not at all, validated by their JSON Schema, and sealed against edits.

A seal is a SHA-256 over the content. A file that a person edited after a step wrote it, be it by one space, is refused, so that nothing
edited is used, or ignored, in silence. Without a seal a file is taken as written by hand, and in a run's folder it is refused: a step
wrote it there, with one. `made_from` holds the seals of the files that it was made from: staleness is a question of content, not of clocks.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from helpers.common import run_folder
from helpers.common.errors import BadInput, StepFailed, one_line
from helpers.common.schema_check import surely_fits

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "configs" / "schemas"
SEAL_LINE = "# seal: sha256:"
MADE_FROM_LINE = "# made from: "


def shown(path: Path | str) -> str:
    """The path as a person would type it: relative to the working directory where it lies below it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def sha256_bytes(data: bytes) -> str:
    """`sha256:` and 64 hex digits of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The same of a file's content, read in pieces of 1 MiB (checkpoints are large)."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return "sha256:" + digest.hexdigest()


def write_text(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write `text` (UTF-8) beside its place, flush it to disk and rename it into its place: whole, or absent.

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
        message = f"cannot write {shown(path)}: {error.strerror}; free space or mend the permissions, then give the same command"
        raise StepFailed(message) from error


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there. Raises StepFailed when it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make {shown(path)}: {error.strerror}; free space or mend the permissions, then give the same command"
        raise StepFailed(message) from error


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


def _canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema configs/schemas/NAME.schema.json as a dict."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(name))


def validate(data: Any, schema: str, where: str) -> None:
    """Check `data` against configs/schemas/SCHEMA.schema.json; raises BadInput with `where`, the key, the value and what was expected."""
    if surely_fits(data, load_schema(schema)):
        return
    from jsonschema.exceptions import best_match

    error = best_match(_validator(schema).iter_errors(data))
    if error is not None:
        from helpers.common.schema_messages import explain

        raise BadInput(f"{where}: {explain(error)}")


def seal_json(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of `data` with its `seal` last: the SHA-256 over its canonical JSON without the seal."""
    content = {key: value for key, value in data.items() if key != "seal"}
    return {**content, "seal": sha256_bytes(_canonical(content))}


def write_json(path: Path | str, data: dict[str, Any], schema: str) -> str:
    """Validate, seal and write `data` as JSON; returns the seal. Raises StepFailed if the data does not fit its own schema (a bug)."""
    sealed = seal_json(data)
    try:
        validate(sealed, schema, shown(path))
    except BadInput as error:
        raise StepFailed(f"refusing to write a file that its schema rejects: {error}") from error
    write_text(path, _json_text(sealed))
    return str(sealed["seal"])


def read_json(path: Path | str, schema: str) -> dict[str, Any]:
    """Read a JSON file that a step wrote, check its seal and its schema.

    A file without a seal was written by hand: outside a run it is used, and a line on stderr says so. Raises BadInput for a missing, torn,
    edited or misfitting file.
    """
    text = read_text(path)
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{shown(path)}:{error.lineno}: not JSON: {error.msg}; delete it and the same command makes it again") from error
    except RecursionError:
        raise BadInput(f"{shown(path)}: not JSON that a step wrote: nested too deeply; delete it") from None
    if not isinstance(data, dict):
        raise BadInput(f"{shown(path)}: a JSON object was expected")
    sealed = seal_json(data)
    if "seal" not in data:
        _handmade(path)
    elif text != _json_text(sealed):
        raise BadInput(_edited(path))
    validate(sealed, schema, shown(path))
    return sealed


def write_yaml(path: Path | str, data: dict[str, Any], schema: str, made_by: str, made_from: dict[str, str]) -> str:
    """Validate and write `data` as YAML with a head that says what made it from what, and a seal as its last line; returns the seal."""
    try:
        validate(data, schema, shown(path))
    except BadInput as error:
        raise StepFailed(f"refusing to write a file that its schema rejects: {error}") from error
    body, seal = _yaml_body(data, made_by, made_from)
    write_text(path, f"{body}# seal: {seal}\n")
    return seal


def yaml_seal(data: dict[str, Any], made_by: str, made_from: dict[str, str]) -> str:
    """The seal that write_yaml would give to this content."""
    return _yaml_body(data, made_by, made_from)[1]


def _yaml_body(data: dict[str, Any], made_by: str, made_from: dict[str, str]) -> tuple[str, str]:
    origin = json.dumps(made_from, sort_keys=True)
    body = f"# made by {made_by}; do not edit: change the config or give SET=… to a new run\n{MADE_FROM_LINE}{origin}\n{dump_yaml(data)}"
    return body, sha256_bytes(body.encode("utf-8"))


def dump_yaml(data: Any) -> str:
    """`data` as YAML text: keys in their order, long text unwrapped, texts that YAML 1.1 would read as numbers quoted."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return text


def read_yaml(path: Path | str, schema: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    """Read a sealed YAML file of a run: its data, its seal, and the seals of what it was made from (empty for a handmade file)."""
    import yaml

    text = read_text(path)
    body, line, rest = text.rpartition(SEAL_LINE)
    made_from: dict[str, str] = {}
    if line:
        if line + rest != f"# seal: {sha256_bytes(body.encode('utf-8'))}\n":
            raise BadInput(_edited(path))
        for head in body.splitlines()[:2]:
            if head.startswith(MADE_FROM_LINE):
                made_from = json.loads(head[len(MADE_FROM_LINE) :])
    else:
        body = text
        _handmade(path)
    try:
        data = yaml.load(body, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # with libyaml ten times faster: 7 ms instead of 70
    except yaml.YAMLError as error:
        raise BadInput(f"{shown(path)}: {one_line(error)}") from error
    validate(data, schema, shown(path))
    return data, sha256_bytes(body.encode("utf-8")), made_from


def _json_text(sealed: dict[str, Any]) -> str:
    return json.dumps(sealed, indent=2, ensure_ascii=False) + "\n"


def _handmade(path: Path | str) -> None:
    if run_folder.run_of(path):
        raise BadInput(_edited(path).replace("was edited", "carries no seal: it was edited"))
    print(f"[info] {shown(path)} carries no seal: written by hand, used as it is", file=sys.stderr)


def _edited(path: Path | str) -> str:
    return (
        f"{shown(path)} was edited after it was written; delete it and the same command makes it again, "
        "or start a new run with SET=… to change a value"
    )
