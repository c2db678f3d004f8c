"""Runs an evaluation as jobs of a Slurm cluster, one for each task."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.common import console, files, run_folder, walltime
from helpers.common.errors import Unreachable
from helpers.config import clusters, tasks
from helpers.credentials import gathering
from helpers.executors import containers, submissions
from helpers.executors.base import Answer, Document, Executor, Handover, ImageUse, Submitted, WandbExport
from helpers.executors.slurm import asking, following, job_values, jobs
from helpers.executors.slurm.description import DESCRIPTION
from helpers.executors.slurm.submission import Submitting, days_since
from helpers.executors.states import ENDED
from helpers.launcher import api

# The launcher's own images, where the config names none: of the proxy and of the export job (its executors/slurm/executor.py).
PROXY_IMAGE, EXPORT_IMAGE = "haproxy:latest", "python:3.12.7-slim"


class Slurm(Executor):
    """See helpers/executors/base.py."""

    description = DESCRIPTION
    log_kinds = ("client", "server", "slurm")
    streams_logs = True
    has_queue = True
    picks_tasks = True
    reads_local_files = False
    wandb_export = WandbExport.ONE_JOB_A_TASK

    def complete(self, data: Document, run: Path | None) -> None:
        """Put the run's id into the names of the jobs, and let the harness count its requests."""
        job_values.complete(data, run)

    def images(self, config: Mapping[str, Any], wandb_mode: str) -> Iterator[ImageUse]:
        """Every image of a run, with that of HAProxy, which serves several instances, and that of the launcher's export job."""
        yield from containers.uses(config)
        execution = config["execution"]
        if any((one.get("num_instances") or 1) > 1 for one in [execution, *containers.auxiliary(config).values()]):
            image = (execution.get("proxy") or {}).get("image") or PROXY_IMAGE
            yield ImageUse(str(image), "proxy", ("execution", "proxy", "image"))
        if gathering.by_launcher(config, wandb_mode):
            export = execution["auto_export"]
            image = (export.get("export_image") if isinstance(export, dict) else None) or EXPORT_IMAGE
            yield ImageUse(str(image), "auto-export", ("execution", "auto_export", "export_image"))

    def squash_obstacle(self, config: Mapping[str, Any]) -> str:
        """The profile's field that an import needs and does not have."""
        execution, env = config["execution"], (config.get("run") or {}).get("env") or {}
        if not execution.get("hostname"):
            return "host is not set: name the cluster's login node in the profile"
        if env.get("tunnel") not in (None, "ssh", "local"):
            return f'tunnel is {env["tunnel"]!r}: "ssh", or "local" on a login node, was expected'
        if not env.get("remote_job_dir"):
            return "remote_job_dir is not set: give the profile a folder on the cluster, which holds them in its folder containers"
        if not str(env["remote_job_dir"]).startswith("/"):
            return f"remote_job_dir {env['remote_job_dir']} is not absolute: give its whole path on the cluster"
        return ""

    def cluster(self, config: Mapping[str, Any]) -> Cluster | None:
        """The cluster of the profile."""
        return clusters.of_config(config)

    def cost(self, config: Mapping[str, Any]) -> str:
        """Jobs × nodes × GPUs × walltime in GPU-hours, and what automatic resuming can make of it."""
        execution, number = config["execution"], len(config["evaluation"]["tasks"])
        nodes, gpus = execution.get("num_nodes") or 1, gpus_per_node(execution)
        counts = " × ".join(f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in ((number, "job"), (nodes, "node"), (gpus, "GPU")))
        hours = number * nodes * gpus * walltime.seconds(execution["walltime"], "execution.walltime") / 3600
        text = f"{counts} × {execution['walltime']} = {round(hours, 2):g} GPU-hours at worst"
        if execution.get("max_walltime"):
            most = number * nodes * gpus * walltime.seconds(execution["max_walltime"], "execution.max_walltime") / 3600
            text += f" (a job that reaches its walltime is resumed, up to max_walltime {execution['max_walltime']}: {most:g})"
        return text + "."

    def job_scripts(self, data: Document) -> Iterator[tuple[str, str]]:
        """The launcher's sbatch scripts. It never sees the value of a `host:` variable."""
        names = set(re.findall(r"\bhost:([A-Za-z_]\w*)", files.dump_yaml(data)))
        kept = {name: os.environ.get(name) for name in names}
        os.environ.update(dict.fromkeys(names, "from-the-environment"))
        try:
            yield from api.sbatch_scripts(data)
        finally:
            for name, value in kept.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def submitted_before(self, _data: Document) -> str | None:
        """None: jobs that exist are found on the cluster."""
        return None

    def check(self, _data: Document) -> None:
        """Everything is checked on the cluster, just before the jobs are queued."""

    def submit(self, handover: Handover, _before: str | None) -> Submitted:
        """Queue the jobs that the cluster does not have yet."""
        cluster = clusters.of_config(handover.config)
        submitting = Submitting(cluster, handover.run, handover.seal, handover.keep_partial, handover.images)
        console.say(self.cost(handover.config))
        invocation = api.run_eval(handover.data, handover.log, submitting.replacing())
        entries = handover.data["evaluation"]["tasks"]
        when, recorded = api.recorded_jobs(invocation, len(entries))
        for index, (job, entry) in enumerate(zip(recorded, entries, strict=True)):
            folder = submitting.folders[index].name
            job["job_dir"] = str(handover.run / "jobs" / folder) if handover.run else None
            job |= {"job_name": submitting.names[index], "samples": job_values.samples(handover.data, entry)}
        return Submitted(invocation, when, recorded, cluster.document())

    def abandon(self, handover: Handover) -> str:
        """Jobs that Slurm has continue."""
        if not handover.run:
            return ""
        run = f"RUN={handover.run.name}"
        return (
            f"interrupted: jobs that Slurm has queued by now continue; `make eval {run}` finds them and submits the others, "
            f"`make cancel {run}` cancels them"
        )

    def ask(self, submissions_: Sequence[Document]) -> list[Answer]:
        """One round trip for each cluster."""
        answers: dict[int, Answer] = {}
        by_cluster: dict[str, list[int]] = {}
        for number, one in enumerate(submissions_):
            by_cluster.setdefault(repr(one["cluster"]), []).append(number)
        for numbers in by_cluster.values():
            asked = [submissions_[number] for number in numbers]
            try:
                question = asking.ask(clusters.of_submission(asked[0]), asked)
            except Unreachable as error:
                answers |= {n: Answer(submissions.unreachable_rows(submissions_[n], str(error)), error=error) for n in numbers}
            else:
                answers |= {n: Answer(question.rows(place), question.asked.problems) for place, n in enumerate(numbers)}
        return [answers[number] for number in range(len(submissions_))]

    def follow(self, submission: Document, with_logs: bool, record: Callable[[Answer], None]) -> Answer:
        """In one ssh session, with results fetched as tasks end."""
        return following.follow(submission, with_logs, record)

    def logs(self, submission: Document, chosen: Sequence[Document], which: str, to_the_end: bool) -> None:
        """The logs on the cluster."""
        following.show_logs(submission, list(chosen), which, to_the_end)

    def bring_home(self, submission: Document, rows: Sequence[Document], tidy: bool) -> int:
        """Fetch the folders of tasks that ended."""
        ended = [row for row in rows if row["state"] in ENDED]
        jobs.fetch(submission, ended)
        if tidy:
            jobs.tidy(submission, rows)
        return len(ended)

    def cancel(self, submission: Document, chosen: Sequence[Document]) -> list[str]:
        """Cancel the whole chain of each job."""
        names, folders = [job["job_name"] for job in chosen], [job["remote_dir"] for job in chosen]
        days = days_since(run_folder.moment_of(submission["submitted_at"]))
        cancelled = jobs.cancel(clusters.of_submission(submission), names, folders, days)
        labels = tasks.labels(submission["jobs"])
        return [
            f"{labels[job['index']]}: cancelled {', '.join(ids)}; nothing of it starts again"
            for job in chosen
            if (ids := cancelled.get(job["job_name"]))
        ]

    def cancel_unrecorded(self, handover: Handover) -> list[str] | None:
        """Cancel what was queued; the run is then as before it was submitted."""
        submitting = Submitting(clusters.of_config(handover.config), handover.run, handover.seal)
        names, folders = submitting.expected(handover.data)
        cancelled = jobs.cancel(submitting.cluster, names, folders, submitting.days, take_back=True)
        return [
            f"{name.rpartition('.')[0].partition('.')[2]}: cancelled {', '.join(ids)}, which had been queued before the run was recorded"
            for name, ids in cancelled.items()
        ] or [f"the run was not submitted: no job of it is on {submitting.cluster}"]

    def resume(self, submission: Document, rows: Sequence[Document], again: Sequence[int]) -> dict[int, str]:
        """Queue the tasks again in their own folders; a task that an earlier command queued is not queued twice."""
        queued = jobs.resume(submission, again) if again else {}
        jobs.record(submission, {row["index"]: row["chain"][0] for row in rows if row["state"] not in ENDED and row["chain"]})
        return queued

    def show_queue(self, cluster: Cluster, partition: str, most: int) -> None:
        """As `squeue` has it."""
        jobs.show_queue(cluster, partition, most)


def gpus_per_node(execution: Mapping[str, Any]) -> int:
    """The GPUs of each node of a job, out of gpus_per_node, gres (gpu:8, gpu:h100:4), or the extra sbatch flags."""
    flags = execution.get("sbatch_extra_flags") or {}
    for value in (execution.get("gpus_per_node"), flags.get("gpus-per-node"), execution.get("gres"), flags.get("gres")):
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, int):
            return value
        for part in str(value).split(","):
            if part.split(":")[0] == "gpu" or part.isdecimal() or re.fullmatch(r"[a-z]\w*:\d+", part):
                last = part.split(":")[-1]
                return int(last) if last.isdecimal() else 1
    return 0


EXECUTOR = Slurm()
