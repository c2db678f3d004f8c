"""The logs of a run's tasks."""

from helpers.common import processes
from helpers.common.errors import BadInput, nearest
from helpers.executors import registry, submissions


def show(submission_path: str, tasks: list[str], which: str, to_the_end: bool) -> None:
    """Print the logs of the tasks (all, or those named) on stdout, each line after its task's name; with `to_the_end` as they grow.

    `which`: client, server, or another log that the executor has. Raises BadInput for a task or a log that there is not; Unreachable.
    """
    submission = submissions.read(submission_path)
    executor = registry.get(submission["executor"])
    jobs = submissions.chosen(submission, tasks)
    if which not in executor.log_kinds:
        known = " and ".join(executor.log_kinds)
        raise BadInput(f"WHICH={which}{nearest(which, executor.log_kinds)}: a run on executor {executor.description.name} has {known} logs")
    if to_the_end:
        processes.end_with_caller()
    executor.logs(submission, jobs, which, to_the_end)
