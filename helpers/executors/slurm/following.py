"""Following a run on a cluster until its tasks have ended: states, logs, and results that are copied here as tasks finish."""

import contextlib
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from helpers.common import console
from helpers.common.errors import EvalmakeError
from helpers.config import clusters, tasks
from helpers.executors import states
from helpers.executors.base import Answer
from helpers.executors.display import Display, Fancy, Plain, harmless
from helpers.executors.slurm import jobs as slurm_jobs
from helpers.executors.slurm.asking import Question
from helpers.executors.slurm.watching import LogPiece, Watch

# More bars than this would fill the screen, and logs are printed between them.
MOST_BARS = 8
COLOURS = (36, 35, 34, 32, 33, 96, 95, 94)
# The harness posts its request counts to a URL that does not answer (containers.ADAPTER), and logs that each time.
PROGRESS_COMPLAINT = b"progress tracking server"


def follow(submission: dict[str, Any], with_logs: bool, record: Callable[[Answer], None]) -> Answer:
    """Show states and logs until every job has ended, and copy results here as tasks finish. Returns the last answer.

    Each answer goes to `record` if its rows differ from those before. Raises Unreachable if the cluster cannot be reached at first; a
    connection that is lost later is opened again.
    """
    question = Question(clusters.of_submission(submission), [submission])
    watch = Watch(question, "client" if with_logs else None)
    fancy = console.is_fancy(sys.stderr) and len(submission["jobs"]) <= MOST_BARS
    view: Display = Fancy() if fancy else Plain()
    names = {f"0.{index}": label for index, label in tasks.labels(submission["jobs"]).items()}
    lines = Lines(names, view.say, console.is_fancy(sys.stderr))
    bringing, answer = Bringing(submission), Answer([])
    with view, contextlib.closing(watch.events()) as events:
        for event in events:
            if isinstance(event, LogPiece):
                lines.take(event)
                continue
            before, answer = answer, Answer(question.rows(0), question.sources.problems)
            if answer != before:
                record(answer)
            view.update(answer.rows)
            bringing.take(answer.rows)
            if states.is_over(answer.rows):
                watch.stop()
        lines.finish()
        bringing.finish()
    slurm_jobs.tidy(submission, answer.rows)
    return answer


@dataclass
class Bringing:
    """Copies the results of tasks here as they end, in threads beside the watching, which must not wait.

    The threads end with the process, so a person who detaches does not wait either. If a copy fails here, it is made again when the results
    are gathered; only then a failure is reported.
    """

    submission: dict[str, Any]
    begun: set[int] = field(default_factory=set)
    threads: list[Thread] = field(default_factory=list)

    def take(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Start copying the tasks that have ended since the last call, after the earlier ones."""
        ended = [row for row in rows if row["state"] in states.ENDED and row["index"] not in self.begun]
        if ended:
            self.begun.update(row["index"] for row in ended)
            thread = Thread(target=self._bring, args=(ended, self.threads[-1] if self.threads else None), daemon=True)
            thread.start()
            self.threads.append(thread)

    def finish(self) -> None:
        """Wait until every copy that was begun is done."""
        for thread in self.threads:
            thread.join()

    def _bring(self, ended: Sequence[Mapping[str, Any]], before: Thread | None) -> None:
        if before:
            before.join()
        with contextlib.suppress(EvalmakeError):
            slurm_jobs.fetch(self.submission, ended, interactive=False)


def show_logs(submission: dict[str, Any], jobs: Sequence[dict[str, Any]], which: str, to_the_end: bool) -> None:
    """Print the logs of some jobs of a submission on stdout, each line after its task's name. Raises Unreachable.

    With `to_the_end` the logs are printed as they grow, until these tasks have ended.
    """
    question = Question(clusters.of_submission(submission), [submission])
    labels = tasks.labels(submission["jobs"])
    names = {f"0.{job['index']}": labels[job["index"]] for job in jobs}
    watch = Watch(question, which, asks=to_the_end, keys=list(names))
    if to_the_end and len(jobs) < len(submission["jobs"]):
        question.submissions = [{**submission, "jobs": list(jobs)}]
    lines = Lines(names, lambda text: print(text, flush=to_the_end), console.is_fancy(sys.stdout))
    with contextlib.closing(watch.events()) as events:
        for event in events:
            if isinstance(event, LogPiece):
                lines.take(event)
            elif states.is_over(question.rows(0)):
                watch.stop()
    lines.finish()
    for key, task in names.items():
        if key not in lines.began:
            console.notice(f"{task} has no {which} log yet")


class Lines:
    """Joins pieces of logs into lines, each after its task's name."""

    def __init__(self, names: dict[str, str], out: Callable[[str], None], coloured: bool) -> None:
        """`names`: the tasks by key; `out` takes each line."""
        self.names, self.out, self.coloured = names, out, coloured
        self.rest: dict[str, bytes] = {}
        self.began: set[str] = set()
        width = max(map(len, names.values()), default=0)
        self.prefix = {key: self._prefix(task, width) for key, task in names.items()}

    def take(self, piece: LogPiece) -> None:
        """Print the lines that a piece completes."""
        name = f"{piece.key}/{piece.file}"
        if piece.begins and piece.key in self.began:
            self.out(f"{self.prefix[piece.key]}── continues in {piece.file}")
        self.began.add(piece.key)
        *lines, self.rest[name] = (self.rest.get(name, b"") + piece.data).split(b"\n")
        for line in lines:
            if PROGRESS_COMPLAINT not in line:
                self.out(self.prefix[piece.key] + harmless(line))

    def finish(self) -> None:
        """Print what is left of lines without an end."""
        for name, rest in self.rest.items():
            if rest:
                self.out(self.prefix[name.partition("/")[0]] + harmless(rest))
        self.rest = {}

    def _prefix(self, task: str, width: int) -> str:
        if not self.coloured:
            return f"{task} | "
        colour = COLOURS[zlib.crc32(task.encode()) % len(COLOURS)]
        return f"\x1b[{colour}m{harmless(task.encode()):<{width}} |\x1b[0m "
