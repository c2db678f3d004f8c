"""What an executor does. process/, docker/ and slurm/ implement it; only registry.py knows their names.

A submission is the content of submission.json, a job one of its `jobs`, a row one of the `jobs` of status.json, `data` the content of
launcher.yaml, and a config the content of config.yaml.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput, Unreachable
from helpers.config.executor_description import Description
from helpers.credentials.auto_export import WandbExport

Document = dict[str, Any]


@dataclass(frozen=True)
class ImageUse:
    """A container image of a run: its reference, what uses it, and the config key that names it."""

    reference: str
    user: str
    key: tuple[str | int, ...]


@dataclass(frozen=True)
class Handover:
    """What is submitted: the compiled config, launcher.yaml and its seal, and the run's folder (None outside a run)."""

    config: Document
    data: Document
    seal: str
    run: Path | None
    keep_partial: bool = False  # when one task is refused, the jobs of the others stay
    images: Sequence[str] = ()  # the references or paths that launcher.yaml names
    log: Path | None = None  # for the launcher's own output
    owner: int | None = None  # the pid whose end stops jobs that do not outlive us: the `make eval` that somebody looks at


@dataclass(frozen=True)
class Submitted:
    """The outcome of a submission: `submitted_at` is UTC text, `jobs` are those of submission.json, in the tasks' order.

    The step adds `task`, `index` and `harness` to each job, and null for a place that it does not name.
    """

    invocation_id: str
    submitted_at: str
    jobs: list[Document]
    cluster: Document | None = None


@dataclass(frozen=True)
class Answer:
    """Where the jobs of one submission stand: rows of status.json, what did not answer, and why nothing answered at all."""

    rows: list[Document]
    problems: tuple[str, ...] = ()
    error: Unreachable | None = None


class Executor(ABC):
    """One way to run an evaluation. An instance has no state: that is in the run's files, and where the jobs run."""

    description: ClassVar[Description]
    log_kinds: ClassVar[tuple[str, ...]] = ("client", "server")
    streams_logs: ClassVar[bool] = False  # `make eval` shows the tasks' logs unless VERBOSE=0
    has_queue: ClassVar[bool] = False  # jobs wait in a queue, so a sweep runs its models side by side
    jobs_outlive_us: ClassVar[bool] = True  # Ctrl-C detaches; otherwise it stops the jobs
    has_pyxis: ClassVar[bool] = False  # Pyxis starts the containers, and pulls images that are no files
    picks_tasks: ClassVar[bool] = False  # single tasks can be cancelled
    reads_local_files: ClassVar[bool] = True  # a job can read a file of this machine
    wandb_export: ClassVar[WandbExport] = WandbExport.NEVER

    # ---- Before submitting -----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def complete(self, data: Document, run: Path | None) -> None:
        """Put into a launcher config what this executor's runs need: the launcher's word for `execution.type`, folders, names.

        Raises BadInput for a value that the jobs cannot get.
        """

    def let_evaluation_read(self, data: Document, folder: str) -> None:  # noqa: B027  without containers there is nothing to do
        """Make a folder of the machine that runs the jobs readable where the tasks run, at the same path."""

    def images(self, _config: Mapping[str, Any], _wandb_mode: str) -> Iterator[ImageUse]:
        """Every use of a container image in a run of this config; none where nothing runs in containers."""
        return iter(())

    def squash_obstacle(self, _config: Mapping[str, Any]) -> str:
        """Why the images of a run are not squashed, with the fix; empty when they can be. Contacts nothing."""
        return f"executor {self.description.name} uses no .sqsh files"

    def cluster(self, _config: Mapping[str, Any]) -> Cluster | None:
        """The cluster that a compiled config runs on, which also has its checkpoints and manifests; None for this machine."""
        return None

    @abstractmethod
    def cost(self, config: Mapping[str, Any]) -> str:
        """One line: what the evaluation takes at most."""

    def job_scripts(self, _data: Document) -> Iterator[tuple[str, str]]:
        """The name of each task and the script that would run it; contacts nothing. Raises BadInput where there are none, StepFailed."""
        raise BadInput(f"executor {self.description.name} submits no job scripts; leave VERBOSE out")

    # ---- Submitting ------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def submitted_before(self, data: Document) -> str | None:
        """The invocation whose jobs this machine knows for this launcher config, though submission.json is missing.

        Raises BadInput when those jobs were made from another launcher config.
        """

    @abstractmethod
    def check(self, data: Document) -> None:
        """Check all that can be known before anything is submitted. Raises BadInput, StepFailed or Unreachable, with the fix."""

    @abstractmethod
    def submit(self, handover: Handover, before: str | None) -> Submitted:
        """Submit exactly once. After a kill at any moment, a second call finds the jobs that exist and submits only the others.

        `before`: what `submitted_before` found. Raises StepFailed when a job is refused, Unreachable.
        """

    def abandon(self, _handover: Handover) -> str:
        """Called when a person interrupts a submission: stop what was started here, or say in one sentence what continues elsewhere."""
        return ""

    # ---- A run that was submitted ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def ask(self, submissions: Sequence[Document]) -> list[Answer]:
        """Where the jobs of each submission stand now, in as few round trips as possible. Raises nothing for what cannot be reached."""

    def resumes_here(self, _submission: Document) -> bool:
        """Whether `follow` would start jobs on this machine: the step then puts the run's credentials into the environment first."""
        return False

    @abstractmethod
    def follow(self, submission: Document, with_logs: bool, record: Callable[[Answer], None]) -> Answer:
        """Show progress, and logs, until every job has ended or is lost (states.is_lost); resumes first what was interrupted before.

        Returns the last answer. Answers on the way may be given to `record`, which writes status.json. Lets
        KeyboardInterrupt, Interrupted and BrokenPipeError pass, after it has stopped jobs that do not outlive us. Raises Unreachable.
        """

    @abstractmethod
    def logs(self, submission: Document, jobs: Sequence[Document], which: str, to_the_end: bool) -> None:
        """Print the logs of these jobs on stdout, each line after its task's name; with `to_the_end` as they grow. Raises Unreachable."""

    def bring_home(self, _submission: Document, _rows: Sequence[Document], _tidy: bool) -> int:
        """Copy what ended tasks wrote to their `job_dir` here; returns how many were copied. `tidy`: remove jobs that they left queued."""
        return 0

    @abstractmethod
    def cancel(self, submission: Document, jobs: Sequence[Document]) -> list[str]:
        """Stop these jobs for good. Returns a sentence for each thing that was stopped, none when nothing ran.

        Raises Unreachable, and StepFailed when a job would not stop.
        """

    def cancel_unrecorded(self, _handover: Handover) -> list[str] | None:
        """Stop the jobs of a submission that was killed before submission.json was written; None where this run can have none."""
        return None

    @abstractmethod
    def resume(self, submission: Document, rows: Sequence[Document], again: Sequence[int]) -> dict[int, str]:
        """Run the tasks with these indices again, which ended without results; `rows` are the last status of all tasks.

        Returns the new job id of each; an empty one says that the task waits for `make eval`. Raises Unreachable, StepFailed.
        """

    def show_queue(self, _cluster: Cluster, _partition: str, _most: int) -> None:
        """Print at most `most` jobs of a partition (empty: of all) on stdout. Raises BadInput where there is no queue, Unreachable."""
        raise BadInput(f"executor {self.description.name} has no queue")

    def explain(self, reason: str, _job_dir: Path) -> str:
        """The reason of a failed job, with its cause and fix when they are known."""
        return reason
