"""What a person sees: colour and boxes on a terminal, plain text in a pipe. Data goes to stdout, messages to stderr."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from helpers.common.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console


def is_fancy(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that may get colour and cursor movement; NO_COLOR and TERM=dumb forbid both."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def counted(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`: the number with its noun, which takes an s in the plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def info(text: str) -> None:
    """One line `[info] …` on stderr."""
    _tagged("[info]", "36", text)


def notice(text: str) -> None:
    """One line `[notice] …` on stderr: nothing failed, but something differs from what the user may expect."""
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
    """A rich console on `stream`; in a pipe it is 100 columns wide and has no colour."""
    from rich.console import Console

    fancy = is_fancy(stream)
    width = None if fancy else 100
    return Console(file=stream, highlight=False, no_color=not fancy, force_terminal=fancy, width=width, soft_wrap=not fancy)


@dataclass(frozen=True)
class Cell:
    """A table cell with a rich style (`red`, `dim`)."""

    text: str
    style: str = ""


def print_table(title: str, head: list[str], rows: list[list[str | Cell]], right: tuple[str, ...] = (), last_is_text: bool = False) -> None:
    """Print a table on stdout: with borders on a terminal; in a pipe as aligned plain text, with nothing cut.

    `right` names the columns to align right (numbers). With `last_is_text` a terminal cuts the last column to one line.
    """
    texts = [head, *([cell.text if isinstance(cell, Cell) else cell for cell in row] for row in rows)]
    widths = [max(len(line[number]) for line in texts) for number in range(len(head))]
    if is_fancy(sys.stdout):
        from rich.table import Table
        from rich.text import Text

        screen = rich_console(sys.stdout)
        if last_is_text:
            widths[-1] = max(20, screen.width - sum(widths[:-1]) - 3 * len(head) - 1)  # 3: a border and two blanks per column
        table = Table(title=title, title_justify="left")
        for number, name in enumerate(head):
            cut: dict[str, Any] = {"overflow": "fold"}
            if last_is_text and number == len(head) - 1:
                cut = {"overflow": "ellipsis", "max_width": widths[-1]}
            table.add_column(name, justify="right" if name in right else "left", no_wrap=last_is_text, **cut)
        for row in rows:
            table.add_row(*(Text(cell.text, style=cell.style) if isinstance(cell, Cell) else Text(cell) for cell in row))
        screen.print(table)
        return
    print(title)
    for line in texts:
        cells = (
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(head, map(one_line, line), widths, strict=True)
        )
        print("  ".join(cells).rstrip())
