"""helpers/images/import_job.py: what the job of an import requests from Slurm, and its script, which nemo-run writes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.images import import_job
from helpers.images.import_job import Resources


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, Resources("acc", "part", "01:00:00")),
        ({"partition": "p"}, Resources("acc", "p", "01:00:00")),
        ({"partition": "p", "run_partition": "r"}, Resources("acc", "r", "01:00:00")),
        ({"partition": "p", "run_partition": "r", "build_partition": "cpu"}, Resources("acc", "cpu", "01:00:00")),
        ({"time": "04:00:00"}, Resources("acc", "part", "04:00:00")),
        ({"time": "04:00:00", "build_time": "00:30:00"}, Resources("acc", "part", "00:30:00")),
        ({"build_gpus_per_node": 8}, Resources("acc", "part", "01:00:00")),
        ({"build_include_gpus": True}, Resources("acc", "part", "01:00:00", gpus_per_node=1)),
        ({"build_include_gpus": True, "build_gpus_per_node": "8"}, Resources("acc", "part", "01:00:00", gpus_per_node=8)),
        (
            {"mem": 0, "cpus_per_task": "16", "exclusive": True},
            Resources("acc", "part", "01:00:00", mem="0", cpus_per_task=16, exclusive=True),
        ),
    ],
)
def test_what_the_profile_says_of_imports_comes_first(env: dict[str, Any], expected: Resources) -> None:
    execution = {"account": "acc", "partition": "part", "walltime": "01:00:00"}
    assert import_job.resources_of({"execution": execution, "run": {"env": env}}) == expected


@pytest.mark.slow
def test_the_qos_and_the_reservation_of_the_evaluation_count_in_its_own_partition() -> None:
    flags = {"qos": "it's $5", "reservation": "team", "constraint": "h100", "exclude": None}
    execution = {"account": "acc", "partition": "part", "sbatch_extra_flags": flags}
    resources = import_job.resources_of({"execution": execution})
    assert resources.others == {"qos": "it's $5", "reservation": "team"}
    lines = [shlex.split(line)[1] for line in import_job.sbatch_script(resources, "n").splitlines() if line.startswith("#SBATCH")]
    assert {"--qos=it's $5", "--reservation=team"} <= set(lines)
    assert import_job.resources_of({"execution": execution, "run": {"env": {"build_partition": "cpu"}}}).others == {}


@pytest.mark.parametrize("gpus", ["all", -1, True, 1.5])
def test_gpus_that_are_no_number_are_refused(gpus: Any) -> None:
    env = {"build_include_gpus": True, "build_gpus_per_node": gpus}
    with pytest.raises(BadInput, match="build_gpus_per_node: expected a number"):
        import_job.resources_of({"execution": {"account": "a"}, "run": {"env": env}})


def test_nemo_run_writes_the_script_and_leaves_out_what_nobody_asked_for() -> None:
    lines = import_job.sbatch_script(Resources("acc"), "acc-evalmake.import-x.t").splitlines()
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    own = ["no-requeue", "nodes=1", "ntasks-per-node=1", "open-mode=append", "output=slurm.out"]
    assert asked == ["account=acc", "job-name=acc-evalmake.import-x.t", *own]
    full = import_job.sbatch_script(Resources("acc", "cpu", "00:30:00", 2, "8G", 4, True), "n")
    for line in ("partition=cpu", "time=00:30:00", "gpus-per-node=2", "mem=8G", "cpus-per-task=4", "exclusive"):
        assert f"#SBATCH --{line}\n" in full
    assert str(Path.home()) not in full
