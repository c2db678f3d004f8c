"""Named places where a test can kill the process, as a failing machine would: EVALMAKE_STOP_AT=NAME."""

import os
import signal

VARIABLE = "EVALMAKE_STOP_AT"


def here(name: str) -> None:
    """End this process with SIGKILL if EVALMAKE_STOP_AT names this place."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
