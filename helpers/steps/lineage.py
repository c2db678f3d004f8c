"""Which file of a run was made from which, and whether those that are there belong together.

Every file holds the seals of the files that it was made from. An edited file fails its own seal; one that was replaced, by a copy from
another run or by one that came out differently, fails the seals that the others hold of it.
"""

from __future__ import annotations

from pathlib import Path

from helpers.common import files, run_folder
from helpers.common.console import notice
from helpers.common.errors import BadInput
from helpers.common.files import shown

# In the order they are made; each has its schema under its own name.
FILES = (
    "request.json",
    "config.yaml",
    "origins.json",
    "credentials.json",
    "model.json",
    "images.json",
    "launcher.yaml",
    "submission.json",
    "status.json",
    "results.json",
    "exports.json",
)


def check(run: Path) -> None:
    """Read every file of the run that is there. Raises BadInput for one that was edited, is torn, or belongs to other files.

    events.jsonl is a log that nothing is made from: when it was edited, a line says so.
    """
    read = {name: _read(run / name) for name in FILES if (run / name).exists()}
    for name, (_, made_from) in read.items():
        for source, seal in made_from.items():
            if source in read and read[source][0] != seal:
                raise BadInput(
                    f"{shown(run / source)} and {name} do not belong together: {name} was made from another {source}; "
                    f"delete the one that was replaced and the same command makes it again"
                )
    log = run / run_folder.EVENTS
    if not log.exists() or log.read_bytes().count(b"\n") <= 1:  # the step that is at work has just written one
        notice(f"{shown(log)} was gone or empty: the record of what happened begins anew")
    if number := run_folder.bad_event(run):
        notice(f"{shown(log)}:{number}: edited or torn; it is only a log, nothing is made from it")


def refuse_other(path: Path | str, seal: str, why: str) -> None:
    """Raise BadInput if a file of a run, about to be made with this seal, is not the one that the other files of the run were made from.

    `why` says what may have changed since.
    """
    run = run_folder.run_of(path)
    if run is None:
        return
    path = Path(path)
    held = {path.name: _read(path)[0]} if path.exists() else {}
    held |= {name: made_from[path.name] for name in FILES if (run / name).exists() and path.name in (made_from := _read(run / name)[1])}
    for name, other in held.items():
        if other != seal:
            raise BadInput(
                f"{shown(path)}{'' if path.exists() else ' is gone and'} cannot be made again as it was when {name} was made: {why}; "
                f"restore that, or leave RUN out to start a new run (`make results RUN={run.name}` shows the scores there are)"
            )


def _read(path: Path) -> tuple[str, dict[str, str]]:
    """The seal of a file of a run, and the seals of what it was made from."""
    schema = path.name.partition(".")[0]
    if path.suffix == ".yaml":
        _, seal, made_from = files.read_yaml(path, schema)
        return seal, made_from
    data = files.read_json(path, schema)
    return data["seal"], data.get("made_from", {})
