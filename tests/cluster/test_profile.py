"""What a profile says reaches Slurm and the containers, and a node that cannot start a job is the reason that is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import faults
from cluster.pipeline import HELD, Pipeline, said
from cluster.testbed import Bed
from helpers.common import files

COMMENT = """it's "nightly"; costs $5 `id` #1 & more"""
NOTICES = "2026-11-27 maintenance until 18:00\n4711 nodes\n12 modules loaded"


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline.made(cluster, tmp_path_factory.mktemp("profile"))
    made.write_config("one", ["toy.sums"])
    return made


@pytest.fixture(autouse=True)
def _empty_queue(pipeline: Pipeline, idle: None) -> Iterator[None]:
    yield
    pipeline.scancel()


def test_options_reach_slurm_as_they_are_and_a_greeting_and_a_cluster_s_name_are_no_part_of_an_id(pipeline: Pipeline) -> None:
    options = {"qos": "normal", "exclude": "n2", "mail_type": "END", "mail_user": "me@x.example", "comment": COMMENT}
    pipeline.write_profile("OPTIONS", **options)
    pipeline.disconnect()
    with faults.greeting(pipeline.bed, NOTICES):
        done = pipeline.make("batch", "CONFIG=one", "PROFILE=OPTIONS", f"SET={HELD}")
        assert done.returncode == 0, said(done)
        (entry,) = pipeline.document(pipeline.run)["jobs"]
        (job,) = pipeline.jobs(pipeline.run)
        assert entry["slurm_job_id"] == job.id
        shown = pipeline.bed.slurm("scontrol", "show", "job", job.id)
        assert f"Comment={COMMENT}" in shown
        for text in ("QOS=normal", "ExcNodeList=n2", "MailUser=me@x.example", "MailType=END"):
            assert re.search(rf"\b{text}\b", shown), shown
        state = pipeline.make("status", f"RUN={pipeline.run.name}")
        assert "PENDING" in said(state)
        assert "JobHeldUser" in said(state)
        assert f"cancelled {job.id}" in said(pipeline.make("cancel", f"RUN={pipeline.run.name}"))
    pipeline.disconnect()


def test_variables_of_the_profile_reach_the_server_and_the_evaluation(pipeline: Pipeline) -> None:
    env = pipeline.project / "env.toml"
    pipeline.write_profile("VARIABLES", exclusive=True)
    text = "plain; $5 and 'more'"
    env.write_text(f'{env.read_text()}\n[VARIABLES.env_vars]\nPLAIN = {json.dumps(text)}\nHOST = "host:GIVEN"\n')
    tell = 'echo "got $PLAIN and $HOST"'
    pipeline.write_config(
        "told",
        ["toy.sums"],
        deployment={"command": f"{tell}; python3 /opt/toy/toy_model.py --port 8000"},
        evaluation={"pre_cmd": tell},
    )
    given = {"GIVEN": "from here", "NEMO_EVALUATOR_TRUST_PRE_CMD": "1"}
    done = pipeline.make("eval", "CONFIG=told", "PROFILE=VARIABLES", env=given)
    assert done.returncode == 0, said(done)
    there = Path(pipeline.document(pipeline.run)["jobs"][0]["remote_dir"])
    for kind in ("server", "client"):
        log = "".join(path.read_text() for path in there.glob(f"logs/{kind}-*.log"))
        assert f"got {text} and from here" in log, log[:2000]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.without_pyxis, r"the node has no Pyxis.*; srun: unrecognized option '--container-image'; choose a partition"),
        (faults.prolog_fails, r"its prolog\) failed on the node; .*Error running slurm prolog: 3; `make resume` takes another node"),
    ],
    ids=["no Pyxis", "prolog"],
)
def test_what_a_node_lacks_is_the_reason_of_the_failed_task(fault: Any, reason: str, pipeline: Pipeline) -> None:
    with fault(pipeline.bed):
        done = pipeline.make("eval", "CONFIG=one")
    assert done.returncode
    (row,) = files.read_json(pipeline.run / "status.json", "status")["jobs"]
    assert row["state"] == "FAILED"
    assert re.search(reason, row["reason"]), row["reason"]
    assert re.search(reason, said(done)), said(done)
