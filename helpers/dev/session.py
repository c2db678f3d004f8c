"""The picture of a terminal session in README.md: recording `make eval` on a terminal, and drawing the recording as an SVG."""

import os
import pty
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from helpers.common.errors import StepFailed
from helpers.common.files import ROOT

RECORDING = ROOT / "docs" / "session.txt"
PICTURE = ROOT / "docs" / "session.svg"
COLUMNS, ROWS = 96, 40
PROMPT = "\x1b[32m$\x1b[0m "
# Colours, "up N lines", "clear the line", and hiding the cursor: all that rich sends for its tables and bars.
_SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(\r?\n)|(\r)|([^\x1b\r\n]+)")


def record(command: list[str]) -> str:
    """Run a command on a terminal of its own; returns the prompt, the command and what the screen shows at the end, with colours.

    Raises StepFailed unless the command exits 0.
    """
    output = bytearray()

    def read(terminal: int) -> bytes:
        piece = os.read(terminal, 1 << 16)
        output.extend(piece)
        return piece

    size = [f"COLUMNS={COLUMNS}", f"LINES={ROWS}"]
    code = os.waitstatus_to_exitcode(pty.spawn(["env", "-C", str(ROOT), "TERM=xterm-256color", *size, *command], read))
    if code:
        raise StepFailed(f"{' '.join(command)} exited with code {code}; nothing was recorded")
    return f"{PROMPT}{' '.join(command)}\n{screen(output.decode('utf-8', 'replace'))}"


def screen(output: str) -> str:
    """What a terminal shows after this output: bars that were redrawn in place are there once, in their last state."""
    lines, row = [""], 0
    for arguments, kind, line_break, carriage_return, text in _SEQUENCE.findall(output):
        if line_break:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif kind == "A":
            row = max(0, row - int(arguments or 1))
        elif kind == "K":
            lines[row] = ""
        elif kind == "m":
            lines[row] += f"\x1b[{arguments}m"
        elif not carriage_return:
            lines[row] += text
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def drawn(recording: str) -> str:
    """The recording as an SVG that loads nothing from the network: the reader's own monospace font stands in for rich's web font."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(recording), soft_wrap=True)
    svg = re.sub(r"\s*(?:@font-face \{.*?\}|<!--.*?-->)", "", console.export_svg(title="evalmake"), flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
