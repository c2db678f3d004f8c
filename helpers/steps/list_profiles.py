"""The table of the profiles of env.toml."""

from pathlib import Path

from helpers.common import console
from helpers.common.console import Cell
from helpers.common.files import shown
from helpers.config import config_files, profiles


def show(env_file: Path | None) -> None:
    """Print the profiles of env.toml, with the fields that they inherit. Raises BadInput when it cannot be read."""
    env = profiles.load(env_file) if env_file else profiles.find(config_files.CONFIGS)
    if env.path is None:
        console.say("There is no env.toml; run `cp env.toml.example env.toml` and fill in your cluster.")
        return
    shown_fields = ["executor", "host", "account", "partition"]
    rows: list[list[str | Cell]] = []
    for name in env.names():
        fields = profiles.get(env, name).fields
        rows.append([name, *(str(fields.get(key, "")) for key in shown_fields)])
    console.print_table(f"Profiles of {shown(env.path)}", ["profile", *shown_fields], rows)
