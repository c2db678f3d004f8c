"""Which file of a run was made from which, and whether the files of a run belong together.

Every file holds the seals of the files that it was made from. An edited file does not fit its own seal. A replaced one, copied from another
run or made again with another content, does not fit the seals that the other files hold of it.
"""

from pathlib import Path

from helpers.common import files, run_folder
from helpers.common.errors import BadInput
from helpers.common.files import shown

# The files of a run in the order they are made, each with the script that makes it; each has a schema of the same name.
MADE_BY = {
    "request.json": "new_run.py",
    "config.yaml": "compile_config.py",
    "origins.json": "compile_config.py",
    "credentials.json": "wandb_env.py",
    "model.json": "resolve_model.py",
    "images.json": "squash_image.py",
    "launcher.yaml": "submit_eval.py",
    "submission.json": "submit_eval.py",
    "status.json": "status.py",
    "results.json": "collect_results.py",
    "exports.json": "export_results.py",
}
FILES = tuple(MADE_BY)


def check(run: Path) -> None:
    """Read every file that the run has. Raises BadInput for one that was edited, is torn, or does not belong to the others."""
    read = {name: _read(run / name) for name in FILES if (run / name).exists()}
    for name, (_, made_from) in read.items():
        for source, seal in made_from.items():
            if source in read and read[source][0] != seal:
                why = f"{name} was made from another {source}; delete the one that was replaced, and run the same command"
                raise BadInput(f"{shown(run / source)} and {name} do not belong together: {why}")


def refuse_other(path: Path | str, seal: str, why: str) -> None:
    """Raise BadInput if a file about to be written with this seal differs from the one that the run's other files were made from.

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
            what = f"{shown(path)}{'' if path.exists() else ' is missing and'} cannot be made again as it was when {name} was made: {why}"
            fix = f"restore that, or leave RUN out to start a new run (`make results RUN={run.name}` shows the scores so far)"
            raise BadInput(f"{what}; {fix}")


def _read(path: Path) -> tuple[str, dict[str, str]]:
    """The seal of a file of a run, and the seals of what it was made from."""
    schema = path.name.partition(".")[0]
    if path.suffix == ".yaml":
        _, seal, made_from = files.read_yaml(path, schema)
        return seal, made_from
    data = files.read_json(path, schema)
    return data["seal"], data.get("made_from", {})
