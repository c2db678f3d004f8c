"""Importing images on a cluster: each a Slurm job whose script nemo-run writes, one for all who want the image; and following it.

The cluster's side is on_cluster/imports.sh and import_job.sh. nemo-run opens no connection: our one door submits what it wrote.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, Frame
from helpers.common import console
from helpers.common.errors import BadInput, Interrupted, StepFailed, Unreachable, one_line
from helpers.executors.slurm.verdict import Job, reason_of
from helpers.images import failures, references
from helpers.images.cache import Store, Wanted

# The job beats every 5 s; an NFS client may show a file's time a minute late.
STALE_SECONDS, GIVEN_UP_SECONDS = 90, 600
ASK_FIRST, ASK_MOST = 1.0, 10.0
# An import that ended so is begun anew, up to so many times.
NOT_ITS_FAULT, TRIES = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED"}, 3
# How long Slurm's controller may not answer before it is given up: jobs go on meanwhile.
SILENT_SECONDS = 180
LOG_LINES = 12


class NoImports(Exception):
    """Images cannot be imported here; the text says what is missing and the mend."""


@dataclass(frozen=True)
class Resources:
    """What an import's job asks of Slurm. `gpus` 0: none; `time` and `partition` None: Slurm's own."""

    account: str
    partition: str | None = None
    time: str | None = None
    gpus: int = 0
    mem: str | None = None
    cpus: int | None = None
    exclusive: bool | str | None = None


def resources_of(config: Mapping[str, Any]) -> Resources:
    """Of a compiled config: build_partition > run_partition > partition, build_time > time, GPUs where build_include_gpus says so.

    Raises BadInput for a build_gpus_per_node that is no number.
    """
    execution, env = config["execution"], (config.get("run") or {}).get("env") or {}
    gpus = env.get("build_gpus_per_node", 1) if env.get("build_include_gpus") else 0
    if isinstance(gpus, bool) or not str(gpus).isdecimal():
        raise BadInput(f"build_gpus_per_node: a number was expected, not {gpus!r}")
    partition = env.get("build_partition") or env.get("run_partition") or env.get("partition") or execution.get("partition")
    time_limit = env.get("build_time") or env.get("time") or execution.get("walltime")
    mem, cpus = env.get("mem"), env.get("cpus_per_task")
    return Resources(
        str(execution["account"]),
        str(partition) if partition else None,
        str(time_limit) if time_limit else None,
        int(gpus),
        str(mem) if mem is not None else None,
        int(cpus) if cpus is not None else None,
        env.get("exclusive") or None,
    )


def sbatch_script(resources: Resources, name: str) -> str:
    """The sbatch script that nemo-run writes for a job that runs `bash job.sh` in the folder `code` below where it is submitted.

    Its paths are relative, so it holds none of ours. Raises NoImports when nemo-run is not installed.
    """
    with _quiet():
        try:
            from nemo_run.core.execution.slurm import SlurmBatchRequest, SlurmExecutor, SlurmJobDetails
            from nemo_run.core.packaging.base import Packager
            from nemo_run.core.tunnel.client import LocalTunnel
        except ImportError as error:
            raise NoImports(f"nemo-run cannot be imported ({one_line(error)}): `make setup`, or `pip install nemo-run`") from error
    executor = SlurmExecutor(
        account=resources.account,
        partition=resources.partition,
        gpus_per_node=resources.gpus or None,
        mem=resources.mem,
        cpus_per_task=resources.cpus,
        exclusive=resources.exclusive,
        nodes=1,
        ntasks_per_node=1,
        tunnel=LocalTunnel(job_dir=""),  # its job_dir is all that is used of it
        packager=Packager(),
        job_details=SlurmJobDetails(job_name=name, folder="."),
        # Without a walltime of ours Slurm's own counts, not nemo-run's ten minutes.
        # Slurm would let a job whose node died wait for two minutes; we begin another at once.
        additional_parameters={"output": "slurm.out", "no_requeue": True},
    )
    executor.job_dir = ""
    executor.time = resources.time  # type: ignore[assignment]  # None is left out
    request = SlurmBatchRequest(
        launch_cmd=["sbatch", "--parsable"],
        jobs=[name],
        command_groups=[["bash", "job.sh"]],
        executor=executor,
        max_retries=0,
        extra_env={},
    )
    return str(request.materialize())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """nemo-run and what it imports warn on stderr while they are imported."""
    import io
    import warnings

    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class Import:
    """One image on its way into the cache. `old`: imports that do not count, as it is forced. `state`: imported or adopted, once done."""

    wanted: Wanted
    stem: str
    key: str
    token: str
    script: str = ""
    payload: str = ""
    old: str = ""
    state: str = ""
    path: str = ""
    job: str | None = None
    seconds: float = 0.0
    digest: str | None = None
    failed: failures.Failed | None = None
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


def begin(wanted: Wanted, store: Store, force: bool) -> Import:
    """An import that nobody has asked the cluster for yet."""
    key = wanted.key(store.platform)
    old, stem = "", references.stem(wanted.image, key)
    if wanted.hit and force:
        old = " ".join(kept.import_id for kept in store.stored if kept.sidecar["key"] == references.short_key(key))
        if wanted.hit.path.rpartition("/")[0] == store.folder and wanted.hit.sidecar["key"] == references.short_key(key):
            stem = wanted.hit.path.rpartition("/")[2].removesuffix(".sqsh")  # another tag of it: the same file is replaced
    return Import(wanted, stem, references.short_key(key), secrets.token_hex(6), old=old)


class Importing:
    """All imports that one command waits for."""

    def __init__(self, cluster: Cluster, store: Store, resources: Resources, imports: Sequence[Import], at_once: int) -> None:
        """`at_once`: how many jobs of ours there may be at a time."""
        self.cluster, self.store, self.resources, self.at_once = cluster, store, resources, at_once
        self.imports = list(imports)
        self._shown = ""

    def run(self) -> None:
        """Import all; each Import then says what came of it. Raises NoImports, Unreachable; interrupted, the jobs go on."""
        for one in self.imports:
            self._prepare(one)
        pause, last, silent = ASK_FIRST, "", time.monotonic()
        try:
            with self._display() as show:
                while waiting := [one for one in self.imports if not one.is_done]:
                    try:
                        self._ask(waiting)
                        silent = time.monotonic()
                    except Unreachable:
                        if time.monotonic() - silent > SILENT_SECONDS:
                            raise
                    show()
                    seen = "\n".join(one.line.partition(",")[0] for one in self.imports)
                    pause = ASK_FIRST if seen != last else min(ASK_MOST, pause * 1.3)
                    last = seen
                    if any(not one.is_done for one in self.imports):
                        time.sleep(pause)
        except (KeyboardInterrupt, Interrupted):
            left = [f"{one.wanted.image.canonical} (job {one.job})" for one in self.imports if not one.is_done and one.job]
            if left:
                console.say()
                console.info(f"the imports go on: {', '.join(left)}; the same command finds them")
            raise

    def _prepare(self, one: Import) -> None:
        name = f"{self.resources.account}-evalmake.import-{one.stem}.{one.token}"
        one.script, one.payload = sbatch_script(self.resources, name), self._payload(one)

    def _payload(self, one: Import) -> str:
        image, wanted = one.wanted.image, one.wanted
        three, four = image.forms(wanted.digest) if image.kind not in references.ARCHIVES else ("", "")
        values = connection.assigned(
            FOLDER=self.store.folder, KEY=one.key, STEM=one.stem, OLD=one.old, TOKEN=one.token,
            KIND=image.kind, PLACE=image.name, FORM3=three, FORM4=four,
            HOST=image.registry, REPO=image.name, TAG=image.tag, DIGEST=wanted.digest or "", INDEX=wanted.index or "",
            REFERENCE=image.reference, CANONICAL=image.canonical, PLATFORM=self.store.platform, MACHINE=self.store.machine,
            BY=self.store.who,
        )  # fmt: skip
        return values + connection.text_of("registry", "cache", "import_job")

    def _ask(self, waiting: list[Import]) -> None:
        free = self.at_once - sum(one.begun for one in waiting)
        starts = []
        for one in waiting:
            may = one.begun or free > 0
            free -= may and not one.begun
            starts.append(may)
        text = connection.script(
            "imports",
            FOLDER=self.store.folder,
            KEYS=[one.key for one in waiting],
            STEMS=[one.stem for one in waiting],
            OLDS=[one.old for one in waiting],
            TOKENS=[one.token for one in waiting],
            STARTS=[str(int(start)) for start in starts],
            WATCHED=[one.watched for one in waiting],
            SUBS=[one.script if start else "" for one, start in zip(waiting, starts, strict=True)],
            JOBS=[one.payload if start else "" for one, start in zip(waiting, starts, strict=True)],
            STALE=STALE_SECONDS,
            GIVEN_UP=GIVEN_UP_SECONDS,
        )
        by_key = {one.key: one for one in waiting}
        for frame in connection.run(self.cluster, text, timeout=180):
            if frame.key in by_key:
                self._take(by_key[frame.key], frame)

    def _take(self, one: Import, frame: Frame) -> None:
        name = one.wanted.image.canonical
        if frame.kind == "have":
            self._finish(one, frame.text)
        elif frame.kind == "queued":
            one.begun, one.job, one.watched, one.line = True, frame.text, one.token, f"{name}: job {frame.text} queued"
        elif frame.kind == "at-work":
            token, holder, job, queue, beat, log = (*frame.text.split("\n"), *[""] * 6)[:6]
            one.watched, one.job = token, job or None
            one.begun = token == one.token
            one.line = f"{name}: {self._phase(one, holder, job, queue, beat, log)}"
        elif frame.kind == "failed":
            failed = failures.read(frame.text)
            if failed.token != one.token and failed.verdict in ("", "stopped", "ended"):
                # Somebody else's job died: the next look begins another.
                one.watched, one.line = "", f"{name}: job {failed.job} of another command died, beginning anew"
            elif NOT_ITS_FAULT & set(failed.states) and one.tries < TRIES:
                one.line = f"{name}: job {failed.job} ended {' '.join(NOT_ITS_FAULT & set(failed.states))}, beginning anew"
                one.tries, one.token, one.watched, one.begun = one.tries + 1, secrets.token_hex(6), "", False
                self._prepare(one)
            else:
                one.failed, one.job, one.line = failed, failed.job or None, f"{name}: failed"
        elif frame.kind in ("full", "refused", "stuck"):
            one.trouble, one.line = self._trouble(frame), f"{name}: failed"
        elif frame.kind == "unsure":
            one.line = f"{name}: Slurm does not answer, trying again"
        elif frame.kind == "ending":
            one.line = f"{name}: job {frame.text.partition(chr(10))[2]} is ending"
        elif frame.kind == "free":
            one.line = f"{name}: waits, since {self.at_once} are at work (IMPORTS)"

    def _trouble(self, frame: Frame) -> str:
        if frame.kind == "full":
            return (
                f"{self.store.folder} cannot be written ({one_line(frame.text)}): free space (`make clean-images`), or mend its permissions"
            )
        if frame.kind == "stuck":
            holder, _, lock = frame.text.partition(" ")
            return f"the import of {holder} is dead, and its lock is not ours to break: have them remove {lock}"
        from helpers.executors.slurm.submission import mend_of

        return (
            f"Slurm refused the import's job: {one_line(frame.text)}{mend_of(frame.text)} (build_partition and build_time are for imports)"
        )

    def _finish(self, one: Import, text: str) -> None:
        import json

        head, _, sidecar = text.partition("\n")
        made = json.loads(sidecar)
        one.path = head.partition(" ")[2].removesuffix(".json") + ".sqsh"
        one.state = "imported" if made["import"] == one.token else "adopted"
        one.job, one.digest, one.seconds = made.get("job") or None, made.get("digest"), round(time.monotonic() - one.began, 1)
        by = f", by {made.get('by')}" if one.state == "adopted" else ""
        one.line = f"{one.wanted.image.canonical}: {one.state}, {size(made['bytes'])} in {made.get('seconds', 0)} s{by}"

    def _phase(self, one: Import, holder: str, job: str, queue: str, beat: str, log: str) -> str:
        whose = "" if one.begun else f" of {holder}, waiting for it"
        if not beat:
            state, _, reason = queue.partition("|")
            if state in ("", "PENDING"):
                return f"job {job}{whose} queued" + (f" ({reason_of(Job(0, state, reason))})" if reason else "")
            return f"job {job}{whose} starting"
        done, _, seconds = beat.partition(" ")
        step = log.replace("[INFO]", "").strip().rstrip(".").lower() or "starting"
        return f"job {job}{whose}: {step}, {size(int(done or 0))}, {seconds} s"

    @contextlib.contextmanager
    def _display(self) -> Iterator[Any]:
        """On a terminal all lines in place; in a pipe a line when one changes, but for its figures."""
        if console.is_fancy(sys.stderr):
            from rich.live import Live
            from rich.text import Text

            with Live(console=console.rich_console(sys.stderr), auto_refresh=False, transient=False) as live:
                yield lambda: live.update(Text("\n".join(f"  {one.line}" for one in self.imports if one.line)), refresh=True)
            return
        told: dict[str, str] = {}

        def show() -> None:
            for one in self.imports:
                head = one.line.partition(",")[0]
                if one.line and told.get(one.key) != head:
                    told[one.key] = head
                    console.info(one.line)

        yield show


def size(number: int) -> str:
    """`1.4 GB`, `120 MB`, `2 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}" if unit == "GB" else f"{number / factor:.0f} {unit}"
    return f"{number} B"


def refuse_failed(imports: Sequence[Import], store: Store) -> None:
    """Say what failed, with the end of each log, and raise StepFailed for the first."""
    problems = []
    for one in imports:
        if one.trouble:
            problems.append(f"{one.wanted.image.canonical} was not imported: {one.trouble}")
        elif one.failed:
            for line in one.failed.log[-LOG_LINES:]:
                console.say(f"  > {one_line(line)[:200]}")
            why = failures.why(one.failed, one.wanted.image, store.folder, store.platform, one.wanted.digest)
            where = f"; its log: {store.folder}/.failed.{one.failed.token}/log" if one.failed.token else ""
            problems.append(f"{one.wanted.image.canonical} was not imported (job {one.failed.job or '?'}): {why}{where}")
    for problem in problems[1:]:
        console.say(one_line(f"✗ {problem}"))
    if problems:
        raise StepFailed(problems[0] + (f" (and {len(problems) - 1} more, see above)" if problems[1:] else ""))
