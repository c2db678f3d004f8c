"""A base for executors whose jobs have their folders on this machine, so asking about them costs little."""

import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.common import console
from helpers.common.errors import BadInput, Interrupted, uninterruptible
from helpers.common.files import shown
from helpers.executors import endpoint_failures, job_folder, states
from helpers.executors.base import Answer, Document, Executor
from helpers.executors.display import Display, Fancy, Plain, Tail
from helpers.executors.scores import has_scores

ASK_SECONDS = 0.25


class LocalExecutor(Executor):
    """Asks for jobs by their folders, which have the layout of executors/job_folder.py; follows them and shows their logs."""

    @abstractmethod
    def rows(self, submission: Document) -> list[Document]:
        """The rows of status.json for a submission, now."""

    def begin(self, submission: Document) -> None:
        """Called before following: start the jobs that were interrupted before."""

    def finish(self, submission: Document) -> None:
        """Called when no job is running any more: wait for what follows the jobs."""

    def stop(self, submission: Document) -> None:
        """Stop the jobs, so that they can be resumed; for executors whose jobs do not outlive us."""

    def complete(self, data: Document, run: Path | None) -> None:
        """Give the jobs a folder of this run alone: what is in it says whether the run was submitted before."""
        execution = data["execution"]
        execution["type"] = self.description.launcher_type
        given = execution.get("output_dir")
        folder = Path(given).expanduser().resolve() / run.name if given and run else run
        execution["output_dir"] = str((folder or Path.cwd()) / "jobs")

    def cost(self, config: Mapping[str, Any]) -> str:
        number = len(config["evaluation"]["tasks"])
        return f"{number} task{'s, one after another,' if number > 1 else ''} on this machine; no GPU-hours are charged."

    def check(self, data: Document) -> None:
        path = data["deployment"].get("checkpoint_path")
        if path and Path(path).is_absolute() and not Path(path).exists():
            raise BadInput(f"deployment.checkpoint_path: {path} does not exist on this machine; check the path, or choose another PROFILE")

    def ask(self, submissions: Sequence[Document]) -> list[Answer]:
        return [Answer(self.rows(submission)) for submission in submissions]

    def row(self, job: Document, found: Document) -> Document:
        """The row of a job: what `found` says of it, the samples it asks, and why it failed."""
        row = {"task": job["task"], "index": job["index"], "job_id": job["job_id"], "requests_total": None, **found}
        if job["job_dir"]:
            folder = Path(job["job_dir"])
            row["requests_total"] = job_folder.samples_asked(folder)
            if row["state"] == states.SUCCEEDED and not has_scores(folder / "artifacts" / "results.yml"):
                row["state"], row["reason"] = states.FAILED, "results.yml holds no score"
            row["answers"] = job_folder.answers_of(folder) if row["state"] in states.ENDED else None
            explained = self.explain(row["reason"], folder) if row["state"] == states.FAILED else row["reason"]
            nothing = endpoint_failures.none_scorable(row["answers"]) if row["state"] in (states.SUCCEEDED, states.FAILED) else ""
            if nothing and explained == row["reason"]:
                row["state"], explained = states.FAILED, nothing
            row["reason"] = explained
        return row

    def explain(self, reason: str, job_dir: Path) -> str:
        return endpoint_failures.explain(reason, job_dir)

    def follow(self, submission: Document, with_logs: bool, record: Callable[[Answer], None]) -> Answer:
        try:
            self.begin(submission)
            tails = [Tail(job) for job in submission["jobs"]] if with_logs else []
            answer = self._watch(submission, Fancy() if console.is_fancy(sys.stderr) and not with_logs else Plain(), tails)
            self.finish(submission)
        except BaseException as error:
            # A terminal that is closed (EIO), or a bug, stops the jobs too: none may keep running unseen.
            if not self.jobs_outlive_us:
                uninterruptible()
                self.stop(submission)
                if isinstance(error, (KeyboardInterrupt, Interrupted, BrokenPipeError)):
                    record(Answer(self.rows(submission)))
            raise
        if states.is_lost(answer.rows) and not self.jobs_outlive_us:
            self.stop(submission)
        return answer

    def _watch(self, submission: Document, view: Display, tails: list[Tail]) -> Answer:
        with view:
            while True:
                rows = self.rows(submission)
                for tail in tails:
                    tail.show()
                view.update(rows)
                if states.is_over(rows) or states.is_lost(rows):
                    break
                time.sleep(ASK_SECONDS)
            for tail in tails:
                tail.finish()
        return Answer(rows)

    def logs(self, submission: Document, jobs: Sequence[Document], which: str, to_the_end: bool) -> None:
        tails = [Tail(job, which, print) for job in jobs]
        if to_the_end:
            self._watch(submission, Display(), tails)
        for tail in tails:
            tail.finish()
            if not tail.began:
                console.notice(f"{tail.task} has no {which} log yet")


def refuse_other(data: Document, submitted: Document, invocation: str) -> None:
    """Raise BadInput when the jobs in a launcher config's folder were submitted with another launcher config."""
    if submitted != data:
        raise BadInput(
            f"the jobs in {shown(Path(data['execution']['output_dir']))} were submitted with another launcher config; leave RUN out to "
            f"start a new run (`nemo-evaluator-launcher status {invocation}` shows those jobs)"
        )
