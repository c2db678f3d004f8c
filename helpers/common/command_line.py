"""What every script shares: its argument parser, and the one place that turns an expected error into a line and an exit code."""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from helpers.common.errors import INTERRUPTED, EvalmakeError, one_line


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose --help starts with `description`, a script's docstring, in its own line breaks."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Run what a script does.

    The one error boundary: an EvalmakeError becomes one line `error: …` on stderr and its exit code; a reader that closes the pipe ends the
    script silently; anything else is a bug and keeps its traceback. EVALMAKE_DEBUG=1 shows every traceback first.
    """
    try:
        yield
        sys.stdout.flush()
    except EvalmakeError as error:
        if os.environ.get("EVALMAKE_DEBUG"):
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
