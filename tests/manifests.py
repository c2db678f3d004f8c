"""Folders of manifests for tests, in the layout in which the training recipes write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def put(root: Path, name: str, version: str, path: str | None, latest: bool = True, **metadata: Any) -> Path:
    """Write ROOT/NAME/VERSION with its two documents, and ROOT/NAME/latest; returns the version's folder."""
    folder = root / name / version
    folder.mkdir(parents=True)
    manifest = {"name": name, "version": int(version[1:]), "type": "ModelArtifact", "path": path, "metadata": metadata}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / "metadata.json").write_text(json.dumps({"path": path, "metadata": metadata}))
    if latest:
        (root / name / "latest").write_text(f"{version}\n")
    return folder
