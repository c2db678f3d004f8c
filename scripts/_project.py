"""Puts the project's folder on Python's path, so that a script can import helpers/ in any working directory. Scripts import it first."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
