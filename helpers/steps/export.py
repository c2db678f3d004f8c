"""exports.json: bring the results of a run to W&B, and ask W&B whether it holds them."""

from pathlib import Path
from typing import Any

from helpers.common import files
from helpers.common.errors import BadInput
from helpers.credentials import auto_export
from helpers.credentials.wandb_server import WANDB
from helpers.executors import registry, submissions
from helpers.exports import exports_file, wandb_export
from helpers.steps import request
from helpers.steps import results as results_step


def export(submission_path: str, out: str, destination: str, auto: bool) -> None:
    """Export the results of a submission, collecting them first if need be, and write exports.json.

    With `auto` only when the config asks for it, and a failed export is recorded, not raised. Raises BadInput for another destination than
    W&B and for a run that has not ended, and otherwise as wandb_export.export.
    """
    submission = submissions.read(submission_path)
    refuse_other(destination, submission)
    run = Path(submission_path).resolve().parent
    config = files.read_yaml(run / "config.yaml", "config")[0]
    if not (run / "results.json").exists():
        results_step.gather(submission_path, None, str(run / "results.json"), partial=False)
    if auto and not auto_export.to_wandb(config):
        results = files.read_json(run / "results.json", "results")
        if not exports_file.is_done(out, results):
            files.write_json(out, exports_file.document(submission, results) | {"state": "nothing", "asked_at": None}, "exports")
        return
    is_local = registry.get(config["execution"]["type"]).reads_local_files
    env_dir = request.env_folder(run / "config.yaml")
    wandb_export.export(run, submission, config, env_dir, reads_local_files=is_local, out=out, auto=auto)


def refuse_other(destination: str, submission: dict[str, Any]) -> None:
    """Raise BadInput for a destination other than W&B, with the launcher's own command for it."""
    if destination != WANDB:
        command = f".venv/bin/nemo-evaluator-launcher export {submission['invocation_id']} --dest {destination}"
        raise BadInput(f"DEST={destination}: only wandb is supported here; for other destinations use the launcher: `{command}`")
