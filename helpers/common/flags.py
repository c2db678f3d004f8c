"""Values that people type: on or off, and counts. Standard library only: read_variables.py checks them before anything is installed."""

from helpers.common.errors import BadInput

YES = ("1", "y", "yes", "true", "on")
NO = ("0", "n", "no", "false", "off", "")
# The on/off variables of the Makefile.
NAMES = ("FORCE_SQUASH", "REMOTE", "YES", "KEEP_PARTIAL", "VERBOSE", "WATCH", "FOLLOW")


def is_yes(name: str, value: str | None) -> bool:
    """Whether the variable `name` switches something on; case and surrounding blanks do not matter, and None (not given) is no.

    Raises BadInput for a value that is neither yes nor no.
    """
    word = (value or "").strip().lower()
    if word not in YES + NO:
        raise BadInput(f"{name}={value}: expected {', '.join(YES)} to switch it on, or {', '.join(NO[:-1])} to leave it off")
    return word in YES


def count(name: str, value: str, noun: str) -> int:
    """The value of the variable `name` as a number of `noun`. Raises BadInput unless it is a whole number, 1 or more."""
    if not value.isdecimal() or int(value) < 1:
        raise BadInput(f"{name}={value}: expected a number of {noun}, 1 or more")
    return int(value)
