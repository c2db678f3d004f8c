"""Walltimes in Slurm's formats (man sbatch, --time): MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS."""

import re

from helpers.common.errors import BadInput

# What the launcher accepts (common/helpers.py: walltime_to_seconds).
LAUNCHER_FORM = re.compile(r"(\d+-)?\d+:\d+:\d+")
SLURMS_FORM = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}")
FORMS = "MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"


def seconds(text: str, where: str) -> int:
    """The walltime in seconds. Raises BadInput, with `where`, for another format and for zero."""
    days, dash, rest = text.strip().rpartition("-")
    if not SLURMS_FORM.fullmatch(text.strip()):
        raise BadInput(f"{where}: walltime {text!r}: expected text in one of Slurm's formats: {FORMS}")
    numbers = [int(part) for part in rest.split(":")]
    # Hours come first behind days, or where there are three numbers; otherwise minutes do.
    hours, minutes, secs = ([*numbers, 0, 0] if dash or len(numbers) == 3 else [0, *numbers, 0])[:3]  # noqa: PLR2004
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + secs
    if not total:
        raise BadInput(f"{where}: walltime {text!r}: expected more than zero")
    return total


def canonical(total: int) -> str:
    """Seconds as HH:MM:SS, or as D-HH:MM:SS from one day on."""
    days, rest = divmod(total, 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text
