"""Staying with a run on a cluster until its tasks have ended: states, logs, and results brought home as they finish."""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Callable
from threading import Thread
from typing import Any

from helpers.common import console
from helpers.common.errors import EvalmakeError
from helpers.config import clusters, tasks
from helpers.executors.base import Answer
from helpers.executors.display import Display, Fancy, Plain, harmless
from helpers.executors.slurm import jobs as slurm_jobs
from helpers.executors.slurm.asking import Question
from helpers.executors.slurm.watching import LogPiece, Watch
from helpers.executors.states import ENDED, is_over

# More bars than this would fill the screen, and logs come between them.
MOST_BARS = 8
COLOURS = (36, 35, 34, 32, 33, 96, 95, 94)


def follow(submission: dict[str, Any], with_logs: bool, record: Callable[[Answer], None]) -> Answer:
    """Show states and logs until every job has ended, and fetch results as they come; returns the last answer.

    `record` takes each answer. Raises Unreachable when the cluster cannot be reached at the start; a connection that is lost later is made
    again.
    """
    question = Question(clusters.of_submission(submission), [submission])
    watch = Watch(question, "client" if with_logs else None)
    fancy = console.is_fancy(sys.stderr) and len(submission["jobs"]) <= MOST_BARS
    view: Display = Fancy() if fancy else Plain()
    names = {f"0.{index}": label for index, label in tasks.labels(submission["jobs"]).items()}
    lines = Lines(names, view.say, console.is_fancy(sys.stderr))
    bringing = Bringing(submission)
    answer = Answer([])
    with view, contextlib.closing(watch.events()) as events:
        for event in events:
            if isinstance(event, LogPiece):
                lines.take(event)
                continue
            answer = Answer(question.rows(0), question.asked.problems)
            record(answer)
            view.update(answer.rows)
            bringing.take(answer.rows)
            if is_over(answer.rows):
                watch.stop()
        lines.finish()
        bringing.finish()
    slurm_jobs.tidy(submission, answer.rows)
    return answer


class Bringing:
    """Brings the results of tasks home as they end, beside the watching, which must not wait for it.

    Its threads end with the process, so that a person who detaches does not wait either. What fails here is done once more when the
    results are gathered, and then it counts.
    """

    def __init__(self, submission: dict[str, Any]) -> None:
        """Nothing is home yet."""
        self.submission = submission
        self.begun: set[int] = set()
        self.threads: list[Thread] = []

    def take(self, rows: list[dict[str, Any]]) -> None:
        """Begin to bring the tasks that have ended since the last status, after those before them."""
        ended = [job for job in rows if job["state"] in ENDED and job["index"] not in self.begun]
        if ended:
            self.begun.update(job["index"] for job in ended)
            thread = Thread(target=self._bring, args=(ended, self.threads[-1] if self.threads else None), daemon=True)
            thread.start()
            self.threads.append(thread)

    def finish(self) -> None:
        """Wait until what was begun is done."""
        for thread in self.threads:
            thread.join()

    def _bring(self, ended: list[dict[str, Any]], before: Thread | None) -> None:
        if before:
            before.join()
        with contextlib.suppress(EvalmakeError):
            slurm_jobs.fetch(self.submission, ended, interactive=False)


def show_logs(submission: dict[str, Any], jobs: list[dict[str, Any]], which: str, to_the_end: bool) -> None:
    """The logs of some jobs of a submission on stdout, each line behind its task's name. Raises Unreachable.

    With `to_the_end` as they grow, until the tasks have ended.
    """
    question = Question(clusters.of_submission(submission), [submission])
    labels = tasks.labels(submission["jobs"])
    names = {f"0.{job['index']}": labels[job["index"]] for job in jobs}
    watch = Watch(question, which, asks=to_the_end, keys=list(names))
    if to_the_end and len(jobs) < len(submission["jobs"]):
        question.submissions = [{**submission, "jobs": jobs}]
    lines = Lines(names, lambda text: print(text, flush=to_the_end), console.is_fancy(sys.stdout))
    with contextlib.closing(watch.events()) as events:
        for event in events:
            if isinstance(event, LogPiece):
                lines.take(event)
            elif is_over(question.rows(0)):
                watch.stop()
    lines.finish()
    for key, task in names.items():
        if key not in lines.began:
            console.notice(f"{task} has no {which} log yet")


class Lines:
    """Pieces of logs put together to lines, each behind its task's name."""

    def __init__(self, names: dict[str, str], out: Callable[[str], None], coloured: bool) -> None:
        """`names`: the tasks by key; `out` is given each line."""
        self.names, self.out, self.coloured = names, out, coloured
        self.rest: dict[str, bytes] = {}
        self.began: set[str] = set()
        width = max(map(len, names.values()), default=0)
        self.prefix = {key: self._prefix(task, width) for key, task in names.items()}

    def take(self, piece: LogPiece) -> None:
        """Print the whole lines that a piece completes."""
        name = f"{piece.key}/{piece.file}"
        if piece.begins and piece.key in self.began:
            self.out(f"{self.prefix[piece.key]}── goes on in {piece.file}")
        self.began.add(piece.key)
        *lines, self.rest[name] = (self.rest.get(name, b"") + piece.data).split(b"\n")
        for line in lines:
            # The harness is given a URL that nobody answers, so that it counts its requests (slurm_config.ADAPTER): no news.
            if b"progress tracking server" not in line:
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
