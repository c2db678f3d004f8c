"""Evaluations as jobs of a Slurm cluster."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.common import console, run_folder, yaml_files
from helpers.common.errors import StepFailed, Unreachable, one_line
from helpers.config import clusters, tasks
from helpers.credentials import auto_export
from helpers.credentials.auto_export import WandbExport
from helpers.executors import containers, states
from helpers.executors.base import Answer, Document, Executor, Handover, ImageUse, Submitted
from helpers.executors.slurm import asking, following, job_values
from helpers.executors.slurm import jobs as slurm_jobs
from helpers.executors.slurm.cost import cost
from helpers.executors.slurm.description import DESCRIPTION
from helpers.executors.slurm.submission import Submission, days_since
from helpers.executors.submissions import unreachable_rows
from helpers.launcher import api

# Images of the launcher (executors/slurm/executor.py) for the job that exports results, and for the proxy, where the config names none.
EXPORT_IMAGE, PROXY_IMAGE = "python:3.12.7-slim", "haproxy:latest"


class Slurm(Executor):
    """Each task is a job of a cluster, with its model server in it; the cluster is reached over one ssh connection."""

    description = DESCRIPTION
    log_kinds = ("client", "server", "slurm")
    streams_logs = True
    has_queue = True
    has_pyxis = True
    picks_tasks = True
    reads_local_files = False
    wandb_export = WandbExport.ONE_JOB_A_TASK

    def complete(self, data: Document, run: Path | None) -> None:
        data["execution"]["type"] = self.description.launcher_type
        job_values.complete(data, run)

    def images(self, config: Mapping[str, Any], wandb_mode: str) -> Iterator[ImageUse]:
        yield from containers.uses(config)
        execution = config["execution"]
        # HAProxy distributes requests to several instances, of the model or of an auxiliary deployment.
        if any((one.get("num_instances") or 1) > 1 for one in [execution, *containers.auxiliary(config).values()]):
            yield ImageUse(str((execution.get("proxy") or {}).get("image") or PROXY_IMAGE), "proxy", ("execution", "proxy", "image"))
        if auto_export.by_launcher(config, wandb_mode, self.wandb_export):
            export = execution["auto_export"]
            image = str((export.get("export_image") if isinstance(export, dict) else None) or EXPORT_IMAGE)
            yield ImageUse(image, "auto-export", ("execution", "auto_export", "export_image"))

    def squash_obstacle(self, config: Mapping[str, Any]) -> str:
        env = (config.get("run") or {}).get("env") or {}
        if not config["execution"].get("hostname"):
            return "host is not set: name the cluster's login node in the profile"
        if env.get("tunnel") not in (None, "ssh", "local"):
            return f'tunnel is {env["tunnel"]!r}: expected "ssh", or "local" on a login node'
        if not env.get("remote_job_dir"):
            return "remote_job_dir is not set: give the profile a folder on the cluster; images are kept in its folder containers"
        if not str(env["remote_job_dir"]).startswith("/"):
            return f"remote_job_dir {env['remote_job_dir']} is not absolute: give its whole path on the cluster"
        return ""

    def let_evaluation_read(self, data: Document, folder: str) -> None:
        """Mount it read-only, unless a mount of the config has it."""
        mounts = data["execution"].setdefault("mounts", {}).setdefault("evaluation", {})
        targets = [str(target).partition(":")[0].rstrip("/") for target in mounts.values()]
        if not any(f"{folder}/".startswith(f"{target}/") for target in targets):
            mounts[folder] = f"{folder}:ro"

    def cluster(self, config: Mapping[str, Any]) -> Cluster:
        return clusters.of_config(config)

    cost = staticmethod(cost)

    def job_scripts(self, data: Document) -> Iterator[tuple[str, str]]:
        before = dict(os.environ)
        # The launcher looks up host: variables, which a dry run need not have.
        os.environ.update(dict.fromkeys(re.findall(r"\bhost:([A-Za-z_]\w*)", yaml_files.dump(data)), "from-the-environment"))
        try:
            with api.talking_to(None):
                from helpers.executors.slurm import job_scripts  # 0.9 s, as below

                texts = list(job_scripts.texts(data))
        except (ValueError, RuntimeError, KeyError) as error:
            raise StepFailed(f"nemo-evaluator-launcher cannot write the job scripts: {one_line(error)}") from error
        finally:
            os.environ.clear()
            os.environ.update(before)
        yield from texts

    def submitted_before(self, _data: Document) -> None:
        """Always None: `submit` finds the jobs that exist on the cluster."""

    def check(self, data: Document) -> None:
        """Nothing: `submit` checks everything on the cluster in one round trip before it queues a job."""

    def submit(self, handover: Handover, _before: str | None) -> Submitted:
        console.say(self.cost(handover.config))
        submission = self._submission(handover)
        api.run_eval(handover.data, handover.log, _submitting(submission))
        jobs = [
            {
                "job_id": f"{submission.invocation_id}.{index}",
                "slurm_job_id": submission.ids[index],
                "remote_dir": submission.remote_folders[index],
                "job_dir": str(handover.run / "jobs" / submission.folders[index].name) if handover.run else None,
                "job_name": submission.names[index],
                "samples": job_values.samples(handover.data, entry),
            }
            for index, entry in enumerate(handover.data["evaluation"]["tasks"])
        ]
        submitted_at = run_folder.as_text(submission.submitted_at)
        return Submitted(submission.invocation_id, submitted_at, jobs, asdict(submission.cluster))

    def abandon(self, handover: Handover) -> str:
        if not handover.run:
            return ""
        run = handover.run.name
        return (
            f"interrupted: jobs that Slurm has already queued keep running; `make eval RUN={run}` adopts them and submits the others, "
            f"`make cancel RUN={run}` cancels them"
        )

    def _submission(self, handover: Handover) -> Submission:
        return Submission(self.cluster(handover.config), handover.run, handover.seal, handover.keep_partial, handover.images)

    def ask(self, submissions: Sequence[Document]) -> list[Answer]:
        """Ask each cluster once for all its submissions."""
        answers: dict[int, Answer] = {}
        by_cluster: dict[Cluster, list[int]] = {}
        for number, one in enumerate(submissions):
            by_cluster.setdefault(clusters.of_submission(one), []).append(number)
        for cluster, numbers in by_cluster.items():
            try:
                question = asking.ask(cluster, [submissions[number] for number in numbers])
            except Unreachable as error:
                answers |= {number: Answer(unreachable_rows(submissions[number], str(error)), error=error) for number in numbers}
            else:
                answers |= {number: Answer(question.rows(place), question.sources.problems) for place, number in enumerate(numbers)}
        return [answers[number] for number in range(len(submissions))]

    follow = staticmethod(following.follow)
    logs = staticmethod(following.show_logs)

    def bring_home(self, submission: Document, rows: Sequence[Document], tidy: bool) -> int:
        copied = slurm_jobs.fetch(submission, [row for row in rows if row["state"] in states.ENDED])
        if tidy:
            slurm_jobs.tidy(submission, rows)
        return copied

    def cancel(self, submission: Document, jobs: Sequence[Document]) -> list[str]:
        """Cancel the whole chain of each of these jobs."""
        days = days_since(run_folder.moment_of(submission["submitted_at"]))
        names, folders = [job["job_name"] for job in jobs], [job["remote_dir"] for job in jobs]
        cancelled = slurm_jobs.cancel(clusters.of_submission(submission), names, folders, days)
        labels = tasks.labels(submission["jobs"])
        return [
            f"{labels[job['index']]}: cancelled {', '.join(cancelled[job['job_name']])}; it will not be resumed"
            for job in jobs
            if job["job_name"] in cancelled
        ]

    def cancel_unrecorded(self, handover: Handover) -> list[str]:
        submission = self._submission(handover)
        names, folders = submission.expected(handover.data)
        cancelled = slurm_jobs.cancel(submission.cluster, names, folders, submission.days, take_back=True)
        return [
            f"{name.rpartition('.')[0].partition('.')[2]}: cancelled {', '.join(ids)}, which was queued before the run was recorded"
            for name, ids in cancelled.items()
        ] or [f"the run was not submitted: it has no jobs on {submission.cluster}"]

    def show_queue(self, cluster: Cluster, partition: str, most: int) -> None:
        slurm_jobs.show_queue(cluster, partition, most)

    def resume(self, submission: Document, rows: Sequence[Document], again: Sequence[int]) -> dict[int, str]:
        """Queue these tasks again, in their own folders. A task that an interrupted command has queued already is not queued twice."""
        queued = slurm_jobs.resume(submission, again) if again else {}
        alive = [row for row in rows if row["state"] not in states.ENDED and row.get("chain")]
        slurm_jobs.record(submission, {row["index"]: row["chain"][0] for row in alive})
        return queued


@contextlib.contextmanager
def _submitting(submission: Submission) -> Iterator[None]:
    from helpers.executors.slurm import job_scripts

    with job_scripts.submitting(submission):
        yield


EXECUTOR = Slurm()
