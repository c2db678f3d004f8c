"""exports.json: the record of a run's export to W&B, and its outcome in words."""

from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder
from helpers.common.errors import one_line
from helpers.credentials.wandb_server import WANDB

MADE_BY = "export_results.py"


def document(submission: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The content of exports.json before the export: it counts as failed until its state is known."""
    return {
        "made_by": MADE_BY,
        "made_from": {"submission.json": submission["seal"]},
        "results": results["seal"],
        "asked_at": run_folder.now(),
        "destination": WANDB,
        "mode": "online",
        "server": None,
        "entity": None,
        "project": None,
        "state": "failed",
        "reason": "",
        "runs": [],
    }


def again(run: Path | None) -> str:
    """The command that exports a run from this machine, in backticks."""
    return f"`make export{f' RUN={run.name}' if run else ''}`"


def is_done(out: str, results: dict[str, Any]) -> bool:
    """Whether exports.json (`out`) records an export of these results that left nothing to do."""
    before = _written(out)
    return bool(before) and before["results"] == results["seal"] and before["state"] != "failed" and not unfinished(out)


def announce(document: dict[str, Any], run: Path | None) -> None:
    """Print the outcome of an export on stderr: where its runs are, or why it failed and what to do."""
    where = f"{document['entity']}/{document['project']}"
    if document["state"] == "verified":
        console.done(f"W&B holds the scores: {len(document['runs'])} run{'s' if document['runs'][1:] else ''} in {where}, verified")
    elif document["state"] == "failed":
        kept = f"the scores are safe in results.json; try again with {again(run)}"
        console.say(one_line(f"✗ The export to W&B failed: {document['reason']}; {kept}"))
    elif document["reason"]:
        console.notice(f"W&B: {document['reason']}")
    for one in document["runs"]:
        if one["state"] in ("missing", "wrong") and one["reason"]:
            console.say(one_line(f"  ✗ {', '.join(one['tasks'])}: {one['reason']}"))
        elif one["url"]:
            console.say(f"  {', '.join(one['tasks'])}: {one['url']}")
            if one["reason"]:
                console.notice(f"W&B: {', '.join(one['tasks'])}: the scores are there, but something else failed: {one['reason']}")


def unfinished(out: str) -> set[str]:
    """The ids of the W&B runs in exports.json (`out`) that had a problem, whether or not W&B holds their scores."""
    return {one["id"] for one in _written(out).get("runs", []) if one["reason"]}


def _written(out: str) -> dict[str, Any]:
    """The exports.json that exists already; empty without one."""
    return {} if out == "-" or not Path(out).exists() else files.read_json(out, "exports")
