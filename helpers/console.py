"""What a person sees: colour and boxes on a terminal, plain text in a pipe. Data goes to stdout, talk to stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from helpers.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console


def is_fancy(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that takes colour and cursor movement (NO_COLOR and TERM=dumb say no)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def info(text: str) -> None:
    """One line `[info] …` on stderr."""
    _tagged("[info]", "36", text)


def notice(text: str) -> None:
    """One line `[notice] …` on stderr: nothing is wrong, but something is not quite as it was written."""
    _tagged("[notice]", "33", text)


def done(text: str) -> None:
    """One line `✓ …` on stderr."""
    _tagged("✓", "32", text)


def say(text: str = "") -> None:
    """One plain line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _tagged(tag: str, colour: str, text: str) -> None:
    if is_fancy(sys.stderr):
        tag = f"\x1b[{colour}m{tag}\x1b[0m"
    say(f"{tag} {one_line(text)}")


def rich_console(stream: TextIO) -> Console:
    """A rich console on `stream`; in a pipe it is 100 columns wide and draws no colour."""
    from rich.console import Console

    fancy = is_fancy(stream)
    return Console(
        file=stream, highlight=False, no_color=not fancy, force_terminal=fancy or None, width=None if fancy else 100, soft_wrap=not fancy
    )
