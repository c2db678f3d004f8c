"""Importing images on a cluster: one Slurm job for each image, shared by everyone who wants it, and following these jobs.

imports.sh and import_job.sh do the work on the cluster. nemo-run only writes the sbatch scripts; we submit them over our own connection.
"""

import contextlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from helpers.cluster import scripts, slurm_words
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import console
from helpers.common.errors import Interrupted, StepFailed, Unreachable, one_line
from helpers.images import failures, import_job, references
from helpers.images.cache import Lookup, Store, Stored
from helpers.images.import_job import Resources

# The job beats every 5 s; an NFS client may see a file's time a minute late.
STALE_SECONDS, GIVEN_UP_SECONDS = 90, 600
ASK_FIRST, ASK_MOST = 1.0, 10.0
# An import that ended in one of these is begun again, up to so many times.
NOT_ITS_FAULT, TRIES = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED"}, 3
# How long Slurm's controller may be silent before we give up; the jobs keep running meanwhile.
SILENT_SECONDS = 180
LOG_LINES = 12


@dataclass
class Import:
    """One image on its way into the cache. `old`: imports that do not count since this one is forced. `state`: imported or adopted."""

    lookup: Lookup
    stem: str
    key: str
    token: str
    script: str = ""
    old: str = ""
    state: str = ""
    made: Stored | None = None
    job: str | None = None
    seconds: float = 0.0
    failed: failures.FailedImport | None = None
    trouble: str = ""
    watched: str = ""
    begun: bool = False
    line: str = ""
    tries: int = 1
    began: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to wait for."""
        return bool(self.state or self.trouble or self.failed)

    def payload(self, store: Store) -> str:
        """What its job runs on its node: import_job.sh with its values."""
        image, digest = self.lookup.image, self.lookup.digest
        three, four = image.forms(digest) if image.kind not in references.ARCHIVES else ("", "")
        values = scripts.assigned(
            FOLDER=store.folder, KEY=self.key, STEM=self.stem, OLD=self.old, TOKEN=self.token, KIND=image.kind, PLACE=image.name,
            FORM3=three, FORM4=four, HOST=image.registry, REPO=image.name, TAG=image.tag, DIGEST=digest or "",
            INDEX=self.lookup.index or "", REFERENCE=image.reference, CANONICAL=image.canonical, PLATFORM=store.platform,
            MACHINE=store.machine, BY=store.who,
        )  # fmt: skip
        return values + scripts.text_of("images/import_job.sh")


def begin(lookup: Lookup, store: Store, force: bool) -> Import:
    """An import that the cluster does not know yet."""
    key = lookup.key(store.platform)
    short, stem, old = references.short_key(key), references.stem(lookup.image, key), ""
    if lookup.hit and force:
        old = " ".join(stored.sidecar["import"] for stored in store.stored if stored.sidecar["key"] == short)
        if lookup.hit.path.rpartition("/")[0] == store.folder and lookup.hit.sidecar["key"] == short:
            stem = lookup.hit.path.rpartition("/")[2].removesuffix(".sqsh")  # replaces that file, also if another tag made it
    return Import(lookup, stem, short, secrets.token_hex(6), old=old)


class Importing:
    """All imports that one command waits for."""

    def __init__(self, cluster: Cluster, store: Store, resources: Resources, imports: Sequence[Import], at_once: int) -> None:
        """`at_once`: the number of jobs that may run at a time."""
        self.cluster, self.store, self.resources, self.at_once = cluster, store, resources, at_once
        self.imports = list(imports)

    def run(self) -> None:
        """Import all; each Import then holds its outcome. Raises NoImports and Unreachable. If interrupted, the jobs keep running."""
        for one in self.imports:
            self._prepare(one)
        pause, last, answered = ASK_FIRST, "", time.monotonic()
        try:
            with self._display() as show:
                while waiting := [one for one in self.imports if not one.is_done]:
                    try:
                        self._ask(waiting)
                        answered = time.monotonic()
                    except Unreachable:
                        if time.monotonic() - answered > SILENT_SECONDS:
                            raise
                    show()
                    seen = "\n".join(one.line.partition(",")[0] for one in self.imports)
                    pause = ASK_FIRST if seen != last else min(ASK_MOST, pause * 1.3)
                    last = seen
                    if any(not one.is_done for one in self.imports):
                        time.sleep(pause)
        except (KeyboardInterrupt, Interrupted):
            left = [f"{one.lookup.image.canonical} (job {one.job})" for one in self.imports if not one.is_done and one.job]
            if left:
                console.say()
                console.info(f"these imports keep running: {', '.join(left)}; the same command finds them")
            raise

    def _prepare(self, one: Import) -> None:
        name = f"{self.resources.account}-evalmake.import-{one.stem}.{one.token}"
        one.script = import_job.sbatch_script(self.resources, name)

    def _ask(self, waiting: list[Import]) -> None:
        begun_first = sorted(waiting, key=lambda one: not one.begun)
        starts = {one.key for one in begun_first[: self.at_once]}
        text = scripts.script(
            "images/imports.sh",
            FOLDER=self.store.folder,
            KEYS=[one.key for one in waiting],
            STEMS=[one.stem for one in waiting],
            OLDS=[one.old for one in waiting],
            TOKENS=[one.token for one in waiting],
            STARTS=[str(int(one.key in starts)) for one in waiting],
            WATCHED=[one.watched for one in waiting],
            SUBS=[one.script if one.key in starts else "" for one in waiting],
            JOBS=[one.payload(self.store) if one.key in starts else "" for one in waiting],
            STALE=STALE_SECONDS,
            GIVEN_UP=GIVEN_UP_SECONDS,
        )
        by_key = {one.key: one for one in waiting}
        for frame in scripts.run(self.cluster, text, timeout=180):
            if frame.key in by_key:
                self._take(by_key[frame.key], frame)

    def _take(self, one: Import, frame: Frame) -> None:
        name = one.lookup.image.canonical
        if frame.kind == "have":
            self._finish(one, frame.text)
        elif frame.kind == "queued":
            one.begun, one.job, one.watched, one.line = True, frame.text, one.token, f"{name}: job {frame.text} queued"
        elif frame.kind == "at-work":
            token, holder, job, queue, beat, log = (*frame.text.split("\n"), *[""] * 6)[:6]
            one.watched, one.job = token, job or None
            one.begun = token == one.token
            one.line = f"{name}: {_phase(one, holder, job, queue, beat, log)}"
        elif frame.kind == "failed":
            self._fail(one, failures.read(frame.text))
        elif frame.kind in ("full", "refused", "stuck"):
            one.trouble, one.line = self._trouble(frame), f"{name}: failed"
        elif frame.kind == "unsure":
            one.line = f"{name}: Slurm does not answer, trying again"
        elif frame.kind == "ending":
            one.line = f"{name}: job {frame.text.partition(chr(10))[2]} is ending"
        elif frame.kind == "free":
            one.line = f"{name}: waits until fewer than {self.at_once} imports are running (IMPORTS)"

    def _fail(self, one: Import, failed: failures.FailedImport) -> None:
        name = one.lookup.image.canonical
        if failed.token != one.token and failed.verdict in ("", "stopped", "ended"):
            # Somebody else's job died: the next round begins another.
            one.watched, one.line = "", f"{name}: job {failed.job} of another command died, starting again"
        elif NOT_ITS_FAULT & set(failed.states) and one.tries < TRIES:
            one.line = f"{name}: job {failed.job} ended {' '.join(NOT_ITS_FAULT & set(failed.states))}, starting again"
            one.tries, one.token, one.watched, one.begun = one.tries + 1, secrets.token_hex(6), "", False
            self._prepare(one)
        else:
            one.failed, one.job, one.line = failed, failed.job or None, f"{name}: failed"

    def _trouble(self, frame: Frame) -> str:
        folder, text = self.store.folder, one_line(frame.text)
        if frame.kind == "full":
            return f"{folder} cannot be written ({text}): free space (`make clean-images`), or fix its permissions"
        if frame.kind == "stuck":
            holder, _, lock = frame.text.partition(" ")
            return f"the import of {holder} is dead, and only they can remove its lock: ask them to remove {lock}"
        refusal = one_line(slurm_words.refusal(frame.text))
        return f"Slurm refused the import job: {refusal} (imports use build_partition and build_time)"

    def _finish(self, one: Import, text: str) -> None:
        head, _, sidecar = text.partition("\n")
        made = json.loads(sidecar)
        one.made = Stored(head.partition(" ")[2].removesuffix(".json") + ".sqsh", made)
        one.state = "imported" if made["import"] == one.token else "adopted"
        one.job, one.seconds = made.get("job") or None, round(time.monotonic() - one.began, 1)
        by = f", by {made.get('by')}" if one.state == "adopted" else ""
        one.line = f"{one.lookup.image.canonical}: {one.state}, {size(made['bytes'])} in {made.get('seconds', 0)} s{by}"

    @contextlib.contextmanager
    def _display(self) -> Iterator[Callable[[], None]]:
        """On a terminal all lines, redrawn in place; in a pipe a line for each change, apart from its figures."""
        if console.is_fancy(sys.stderr):
            from rich.live import Live
            from rich.text import Text

            with Live(console=console.rich_console(sys.stderr), auto_refresh=False, transient=False) as live:
                yield lambda: live.update(Text("\n".join(f"  {one.line}" for one in self.imports if one.line)), refresh=True)
            return
        shown: dict[str, str] = {}

        def show() -> None:
            for one in self.imports:
                head = one.line.partition(",")[0]
                if one.line and shown.get(one.key) != head:
                    shown[one.key] = head
                    console.info(one.line)

        yield show


def _phase(one: Import, holder: str, job: str, queue: str, beat: str, log: str) -> str:
    whose = "" if one.begun else f" of {holder}, waiting for it"
    if not beat:
        state, _, reason = queue.partition("|")
        if state in ("", "PENDING"):
            return f"job {job}{whose} queued" + (f" ({slurm_words.pending_reason(reason)})" if reason else "")
        return f"job {job}{whose} starting"
    done, _, seconds = beat.partition(" ")
    step = log.replace("[INFO]", "").strip().rstrip(".").lower() or "starting"
    return f"job {job}{whose}: {step}, {size(int(done or 0))}, {seconds} s"


def size(number: int) -> str:
    """`1.4 GB`, `120 MB`, `2 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}" if unit == "GB" else f"{number / factor:.0f} {unit}"
    return f"{number} B"


def refuse_failed(imports: Sequence[Import], store: Store) -> None:
    """Print what failed, with the end of each log, and raise StepFailed for the first failure."""
    problems = []
    for one in imports:
        image = one.lookup.image
        if one.trouble:
            problems.append(f"{image.canonical} was not imported: {one.trouble}")
        elif one.failed:
            for line in one.failed.log[-LOG_LINES:]:
                console.say(f"  > {one_line(line)[:200]}")
            why = failures.why(one.failed, image, store.folder, store.platform, one.lookup.digest)
            where = f"; its log: {store.folder}/.failed.{one.failed.token}/log" if one.failed.token else ""
            problems.append(f"{image.canonical} was not imported (job {one.failed.job or '?'}): {why}{where}")
    for problem in problems[1:]:
        console.say(one_line(f"✗ {problem}"))
    if problems:
        raise StepFailed(problems[0] + (f" (and {len(problems) - 1} more, see above)" if problems[1:] else ""))
