"""What a person sees: colour and boxes on a terminal, plain text in a pipe. Data goes to stdout, talk to stderr."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from helpers.common.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console


def is_fancy(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that takes colour and cursor movement (NO_COLOR and TERM=dumb say no)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def is_yes(value: str | None) -> bool:
    """Whether a variable that switches something on was given as such: any text but 0, no, n, off and false."""
    return value is not None and value.strip().lower() not in {"", "0", "no", "n", "off", "false"}


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
        file=stream, highlight=False, no_color=not fancy, force_terminal=fancy, width=None if fancy else 100, soft_wrap=not fancy
    )


@dataclass(frozen=True)
class Cell:
    """A table's cell with a rich style (`red`, `dim`)."""

    text: str
    style: str = ""


def print_table(title: str, head: list[str], rows: list[list[str | Cell]], right: tuple[str, ...] = (), last_is_text: bool = False) -> None:
    """A table on stdout: drawn on a terminal, in aligned columns of plain text in a pipe, where nothing is cut.

    `right` names the columns of numbers. With `last_is_text` the last column is a sentence: on a terminal it is cut to one line.
    """
    texts = [head, *([cell.text if isinstance(cell, Cell) else cell for cell in row] for row in rows)]
    widths = [max(len(line[number]) for line in texts) for number in range(len(head))]
    if is_fancy(sys.stdout):
        from rich.table import Table
        from rich.text import Text

        screen = rich_console(sys.stdout)
        if last_is_text:
            widths[-1] = max(20, screen.width - sum(widths[:-1]) - 3 * len(head) - 1)  # 3: a border and two blanks a column
        table = Table(title=title, title_justify="left")
        for number, name in enumerate(head):
            sentence = last_is_text and number == len(head) - 1
            table.add_column(
                name,
                justify="right" if name in right else "left",
                overflow="ellipsis" if sentence else "fold",
                no_wrap=last_is_text,
                max_width=widths[-1] if sentence else None,
            )
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
