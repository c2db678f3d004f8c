"""Stopping the jobs of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.common import console, files, run_folder, step
from helpers.common.errors import BadInput, EvalmakeError, Interrupted, StepFailed, interruptible, one_line, uninterruptible
from helpers.executors import registry, submissions
from helpers.executors.base import Executor, Handover
from helpers.steps import status


def cancel_each(submission_paths: list[Path], tasks: list[str]) -> int:
    """Stop the jobs of each submission, or those of `tasks`; one that cannot be stopped does not keep the others running.

    Returns the exit code, 1 when several errors have different ones. The error of a single submission is raised; others are shown.
    """
    codes = set()
    for path in submission_paths:
        try:
            with step.recorded(run_folder.run_of(path), "cancel"):
                cancel(path, tasks)
        except Interrupted:
            raise
        except EvalmakeError as error:
            if len(submission_paths) == 1:
                raise
            text, run = one_line(error), path.parent.name
            console.say(f"error: {text}" if run in text else f"error: {run}: {text}")
            codes.add(error.exit_code)
    return codes.pop() if len(codes) == 1 else StepFailed.exit_code if codes else 0


def cancel(submission_path: Path, tasks: list[str] | None = None) -> None:
    """Stop the jobs of the submission for good, or those of `tasks`, and write status.json beside it.

    Jobs of a submission that was killed before submission.json was written are stopped too. Raises BadInput for a task that the run does
    not have, Unreachable when the cluster does not answer, StepFailed when something would not stop.
    """
    run = submission_path.parent
    if not submission_path.exists() and (found := _unrecorded(run)):
        executor, handover = found
        if (stopped := executor.cancel_unrecorded(handover)) is not None:
            _say(stopped)
            return
    submission = submissions.read(str(submission_path))
    executor = registry.get(submission["executor"])
    chosen = submissions.chosen(submission, tasks or [])
    if tasks and not executor.picks_tasks:
        raise BadInput(f"TASKS: executor {executor.description.name} stops the tasks of a run together; leave TASKS out")
    _say(executor.cancel(submission, chosen))
    files.write_json(submission_path.with_name("status.json"), status.ask(submission), "status")


@contextmanager
def leaving_nothing(run: Path | None) -> Iterator[None]:
    """When the block is interrupted (Ctrl-C, SIGTERM, SIGHUP), stop what it started for the run on this machine; its tasks stay open."""
    interruptible()
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        uninterruptible()
        if run and (found := _unrecorded(run)):
            executor, handover = found
            if elsewhere := executor.abandon(handover):
                raise Interrupted(elsewhere) from error
        raise


def _unrecorded(run: Path) -> tuple[Executor, Handover] | None:
    """What a submission of the run would hand to its executor; None before launcher.yaml was written."""
    try:
        data, seal, _ = files.read_yaml(run / "launcher.yaml", "launcher")
        config, _, _ = files.read_yaml(run / "config.yaml", "config")
    except BadInput:
        return None
    return registry.get(config["execution"]["type"]), Handover(config, data, seal, run)


def _say(stopped: list[str]) -> None:
    for text in stopped or ["nothing was running"]:
        console.done(text)
