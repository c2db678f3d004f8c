"""A new config, copied from configs/template.yaml."""

from helpers.common.console import say
from helpers.common.errors import BadInput
from helpers.common.files import shown, write_text
from helpers.config.config_files import CONFIGS


def start(name: str) -> None:
    """Copy configs/template.yaml to configs/NAME.yaml. Raises BadInput without a name, for a path, and when the file exists."""
    if not name or "/" in name or not name.isprintable() or name.startswith("."):
        raise BadInput(f"CONFIG={name}: expected a name for the new config, for example CONFIG=my-model")
    path = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    if path.exists():
        raise BadInput(f"{shown(path)} exists already; choose another name, or edit that file")
    write_text(path, (CONFIGS / "template.yaml").read_text(encoding="utf-8"))
    say(f"{shown(path)} written; edit it, then `make eval CONFIG={path.stem}`")
