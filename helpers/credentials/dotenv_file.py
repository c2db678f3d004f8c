"""The .env file beside env.toml: NAME=value lines, read by python-dotenv's parser."""

import io
import re
from pathlib import Path

from helpers.common.errors import BadInput
from helpers.common.files import read_text, shown

DOTENV = ".env"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read(folder: Path | None) -> tuple[dict[str, str], list[str]]:
    """The variables in `folder`/.env that have a value, and notices about the file; nothing without a folder or file.

    python-dotenv handles quotes, `export` and comments. Nothing is interpolated: a `$` in a password stays a `$`. Raises BadInput with file
    and line for a line that is not an assignment, without its text, which may be a secret that lost its name.
    """
    path = folder / DOTENV if folder else None
    if path is None or not path.exists() or path.is_dir():
        return {}, []
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(read_text(path))):
        text = binding.original.string
        if binding.key is None and not binding.error:
            continue  # blank lines and comments
        if binding.error or not binding.key or not VARIABLE.fullmatch(binding.key) or binding.value is None or "\0" in binding.value:
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise BadInput(f"{shown(path)}:{line}: expected NAME=value; fix the line, or start it with #")
        values[binding.key] = binding.value
    notice = f"{shown(path)} can be read by others on this machine: `chmod 600 {shown(path)}`"
    return {name: value for name, value in values.items() if value}, [notice] if path.stat().st_mode & 0o077 else []
