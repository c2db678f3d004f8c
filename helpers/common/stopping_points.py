"""Named places in the code where a test has the process killed, as a machine that fails would: EVALMAKE_STOP_AT=NAME."""

from __future__ import annotations

import os
import signal

VARIABLE = "EVALMAKE_STOP_AT"


def here(name: str) -> None:
    """End this process with SIGKILL if it was told to end at this place; else nothing."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
