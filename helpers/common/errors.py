"""The expected errors, each with its exit code; command_line shows them."""

import contextlib
import signal
from collections.abc import Iterable, Iterator

INTERRUPTED = 130


class EvalmakeError(Exception):
    """An error that a user can fix. Its text is one line: what happened, where (file:line), and the fix."""

    exit_code = 1


class StepFailed(EvalmakeError):
    """A step failed half-way and left nothing that looks finished. Exit 1."""


class BadInput(EvalmakeError):
    """The input is wrong; nothing was contacted or changed. Exit 2."""

    exit_code = 2


class Unreachable(EvalmakeError):
    """A cluster or a service did not answer. That is neither yes nor no, and worth trying again. Exit 3."""

    exit_code = 3


class TaskFailed(EvalmakeError):
    """The evaluation ended, but some task has no results. Exit 4."""

    exit_code = 4


class NoGo(EvalmakeError):
    """The gate's policy is broken. Exit 5."""

    exit_code = 5


class Inconclusive(EvalmakeError):
    """The gate cannot tell whether its policy holds. Exit 6."""

    exit_code = 6


class Interrupted(EvalmakeError):
    """A person stopped the step (Ctrl-C, SIGTERM, SIGHUP). Exit 130."""

    exit_code = INTERRUPTED


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Put a place in front of the message of a BadInput that is raised inside."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from error


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """` (did you mean X?)` with the known word closest to `word`, behind `prefix`; empty when none is close."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {prefix}{matches[0]}?)" if matches else ""


def one_line(text: object) -> str:
    r"""The text on one line, control characters as \\xNN, so that a message can neither forge a second line nor move the cursor."""
    folded = " ".join(str(text).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in folded)


def interruptible() -> None:
    """Make SIGTERM and SIGHUP raise Interrupted, as Ctrl-C raises KeyboardInterrupt, so that all three clean up."""

    def stop(number: int, _frame: object) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and that stays
            signal.signal(number, stop)


def uninterruptible() -> None:
    """Ignore Ctrl-C, SIGTERM and SIGHUP from now on, so that a second one does not cut the clean-up short."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
