"""What a run on Slurm costs, beside the stock launcher on the same test cluster: submitting, asking, following. Needs root.

BED=/tmp/bed make bench        on a bed of its own; without it .cluster, which stays up if it was
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from checkout import ROOT, copy_project, make_in
from cluster.conftest import cluster
from cluster.testbed import Bed

__all__ = ["cluster"]
LAUNCHER = Path(sys.executable).with_name("nemo-evaluator-launcher")
SUBMITTED, ASKED, FOLLOWED, LINES = 20, 100, 50, 4
SUBMIT_LIMIT, STATUS_LIMIT, LATENCY_LIMIT = 1 / 5, 1 / 2, 1.0


class Pipeline:
    """A copy of the project whose Make sees the bed; every ssh call is a line of ssh.log."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed, self.project, self.log = bed, copy_project(folder / "project"), folder / "ssh.log"
        (self.project / ".venv").symlink_to(ROOT / ".venv")
        self.env = bed.env(BED_SSH_LOG=str(self.log), NEMO_EVALUATOR_EXEC_DB_FILE=str(folder / "exec.jsonl"))
        for name in [name for name in self.env if name.startswith(("MAKE", "MFLAGS"))]:
            del self.env[name]
        self.make = make_in(self.project, self.env)

    def config(self, count: int, **params: object) -> Path:
        """A config of `count` toy tasks."""
        data = yaml.safe_load((self.bed.folder / "cluster-eval.yaml").read_text())
        task = {**data["evaluation"]["tasks"][0]}
        if params:
            task["nemo_evaluator_config"] = {"config": {"params": params}}
        data["evaluation"]["tasks"] = [task] * count
        data["deployment"].pop("checkpoint_path", None)
        path = self.project / "configs" / f"bench{count}.yaml"
        path.write_text(yaml.dump(data, Dumper=yaml.SafeDumper))
        return path

    def batch(self, count: int) -> tuple[Path, float]:
        """Submit that many tasks: the run's folder, and seconds."""
        config = self.config(count)
        began = time.perf_counter()
        done = self.make("batch", "PROFILE=CLUSTER", f"CONFIG={config}")
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        return max((self.project / "runs").iterdir()), seconds

    def ssh_calls(self) -> list[str]:
        """The ssh commands since the last time, without those that only open or look at the connection."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if "bash -s" in line]


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The project, and an empty queue before and after."""
    cluster.cancel_all()
    yield Pipeline(cluster, tmp_path_factory.mktemp("bench"))
    cluster.cancel_all()


def stock(pipeline: Pipeline, *words: str) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        [LAUNCHER, *words], env=pipeline.env, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - began, done.stdout


def test_submitting_twenty_tasks_takes_a_fifth_of_the_stock_launcher(pipeline: Pipeline) -> None:
    pipeline.batch(1)  # the connection is open then, as the stock launcher's would be by the user's own ControlMaster
    run, ours = pipeline.batch(SUBMITTED)
    assert len(json.loads((run / "submission.json").read_text())["jobs"]) == SUBMITTED
    pipeline.bed.cancel_all()
    settings = {"hostname": pipeline.bed.alias, "username": "root", "account": "research", "output_dir": f"{pipeline.bed.name}/jobs/stock"}
    overrides = [word for key, value in settings.items() for word in ("-o", f"execution.{key}={value}")]
    theirs, _ = stock(pipeline, "run", "--config", str(pipeline.config(SUBMITTED)), *overrides)
    pipeline.bed.cancel_all()
    print(f"{SUBMITTED} tasks: ours {ours:.1f} s, the launcher's {theirs:.1f} s: 1/{theirs / ours:.1f}")
    assert ours <= SUBMIT_LIMIT * theirs


def test_a_whole_attached_run_logs_in_once(pipeline: Pipeline) -> None:
    from helpers.cluster import connection

    before = (pipeline.bed.folder / "log/sshd.log").read_text().count("Accepted publickey")
    found = connection.Cluster(pipeline.bed.alias, "root")
    os.environ["PATH"] = pipeline.env["PATH"]
    connection.socket_path.cache_clear()
    connection.close(found)
    done = pipeline.make("eval", "PROFILE=CLUSTER", f"CONFIG={pipeline.config(2, limit_samples=3)}")
    assert done.returncode == 0, done.stderr
    logins = (pipeline.bed.folder / "log/sshd.log").read_text().count("Accepted publickey") - before
    print(f"logins of a whole attached run: {logins}")
    assert logins == 1


def test_the_status_of_a_hundred_jobs_is_one_ssh_command_and_half_of_the_stock_one(pipeline: Pipeline) -> None:
    run, _ = pipeline.batch(ASKED)
    invocation = json.loads((run / "submission.json").read_text())["invocation_id"]
    ours, theirs = [], []
    for _ in range(3):
        pipeline.ssh_calls()
        began = time.perf_counter()
        done = pipeline.make("status", f"RUN={run.name}")
        ours.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
        assert len(pipeline.ssh_calls()) == 1
        theirs.append(stock(pipeline, "status", invocation)[0])
    pipeline.bed.cancel_all()
    print(f"status of {ASKED} jobs: ours {min(ours):.2f} s, the launcher's {min(theirs):.2f} s: 1/{min(theirs) / min(ours):.1f}")
    assert min(ours) <= STATUS_LIMIT * min(theirs)


def test_a_line_is_on_the_terminal_within_a_second_and_fifty_tasks_are_one_session(pipeline: Pipeline) -> None:
    run, _ = pipeline.batch(FOLLOWED)
    folders = [Path(job["remote_dir"]) for job in json.loads((run / "submission.json").read_text())["jobs"]]
    pipeline.ssh_calls()
    command = ["make", "logs", "FOLLOW=1", f"RUN={run.name}"]
    with subprocess.Popen(command, cwd=pipeline.project, env=pipeline.env, stdout=subprocess.PIPE, text=True, bufsize=1) as follower:
        assert follower.stdout
        delays = []
        # As jobs do on the nodes, whose folder this is: a line a task and round, with the time at which it was written.
        for number in range(LINES):
            for folder in folders:
                with (folder / "logs" / "client-999999.log").open("a") as log:
                    log.write(f"MARK {time.time()}\n")
            for _ in folders:
                line = follower.stdout.readline()
                while "MARK" not in line:
                    line = follower.stdout.readline()
                if number:  # the first round waits for the follower to start
                    delays.append(time.time() - float(line.split("MARK ")[1]))
        follower.kill()
    sessions = len(pipeline.ssh_calls())
    pipeline.bed.cancel_all()
    print(
        f"from the node to the terminal, {FOLLOWED} tasks: median {statistics.median(delays):.2f} s, "
        f"most {max(delays):.2f} s, {sessions} session"
    )
    assert statistics.median(delays) < LATENCY_LIMIT
    assert sessions == 1
