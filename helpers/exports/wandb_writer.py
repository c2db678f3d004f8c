"""The process that writes runs with wandb's SDK: a plan (JSON) on stdin, one line of JSON for each run on stdout.

wandb_export.py starts it. It is a process of its own because the SDK starts a service, prints, and retries for hours. The key comes from
the environment; what the SDK prints goes to stderr.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from helpers.common.errors import one_line
from helpers.models import wandb_lineage

# Seconds, and the number of retries of each of the SDK's senders. Without these limits it retries for hours.
FINISH_SECONDS, INIT_SECONDS, TRIES, WAIT_SECONDS = 60, 30, 2, 2
SENDERS = ("file_stream", "file_transfer", "graphql")
# What the SDK does not record: the files and the machine of this process say nothing about the evaluation.
SWITCHED_OFF = ("disable_git", "disable_code", "x_disable_meta", "x_disable_stats", "x_disable_machine_info")


def main() -> None:
    """Write each run of the plan; one that fails does not stop the next."""
    plan = json.load(sys.stdin)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps what the SDK and its service print out of the answers
    for one in plan["runs"]:
        try:
            answer = {"url": _write(plan, one)}
        except Exception as error:  # noqa: BLE001  any error of the SDK is the answer for this run, and the next run is tried
            answer = {"error": one_line(f"{type(error).__name__}: {error}")[:500]}
        print(json.dumps({"id": one["id"], **answer}), file=answers, flush=True)


def _write(plan: dict[str, Any], one: dict[str, Any]) -> str:
    """Write one run, logging only what W&B does not hold yet. Returns its URL, "" for none (offline)."""
    import wandb

    given = plan["settings"]
    chosen: dict[str, Any] = {"silent": True, "console": "off", "x_save_requirements": False, **dict.fromkeys(SWITCHED_OFF, True)}
    chosen |= {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    chosen |= {f"x_{sender}_retry_max": TRIES for sender in SENDERS}
    chosen |= {f"x_{sender}_retry_wait_max_seconds": WAIT_SECONDS for sender in SENDERS}
    run = wandb.init(
        entity=plan["entity"],
        project=plan["project"],
        mode=plan["mode"],
        id=one["id"],
        resume="allow",
        name=one["name"],
        group=given.get("group") or one["config"]["invocation_id"],
        job_type=given.get("job_type") or "evaluation",
        tags=given.get("tags"),
        notes=given.get("description"),
        config=one["config"],
        settings=wandb.Settings(**chosen),
    )
    try:
        summary = dict(run.summary)
        new = {name: value for name, value in one["metrics"].items() if summary.get(name) != value}
        if new:
            run.log(new)
        run.summary.update(one["metrics"])
        if given.get("copy_artifacts") is not False:
            run.log_artifact(_artifact(wandb, one, given))
        if plan["lineage"]:
            wandb_lineage.declare(run, **plan["lineage"])
    finally:
        run.finish()
    return str(run.url or "")


def _artifact(wandb: Any, one: dict[str, Any], given: dict[str, Any]) -> Any:
    """The files of the run's tasks: those that the launcher's exporters need, or with `only_required: false` all but caches."""
    from nemo_evaluator_launcher.exporters.utils import get_available_artifacts, should_exclude_artifact

    made = wandb.Artifact(name=f"results-{one['id']}", type="evaluation_result", metadata={"invocation_id": one["config"]["invocation_id"]})
    for name, folder in one["folders"].items():
        artifacts = Path(folder) / "artifacts"
        chosen = get_available_artifacts(artifacts)
        if given.get("only_required") is False:
            every = [path.relative_to(artifacts) for path in sorted(artifacts.rglob("*")) if path.is_file()]
            chosen = [str(path) for path in every if not any(map(should_exclude_artifact, path.parts))]
        for path in chosen:
            made.add_file(str(artifacts / path), name=f"{name}/artifacts/{path}", skip_cache=True)
        for log in sorted((Path(folder) / "logs").rglob("*")) if given.get("copy_logs") else []:
            if log.is_file():
                made.add_file(str(log), name=f"{name}/logs/{log.relative_to(Path(folder) / 'logs')}", skip_cache=True)
    return made


if __name__ == "__main__":
    main()
