"""On/off variables: one rule for what counts as yes and what counts as no. Standard library only: read_variables.py checks them first."""

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
