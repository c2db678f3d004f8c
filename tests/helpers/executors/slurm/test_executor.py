"""helpers/executors/slurm/executor.py: the executor's answers to what steps ask it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cluster_double import CLUSTER, RUN, SEAL, ClusterDouble
from cluster_double import config as submitted_config
from helpers.cluster import connection
from helpers.common.errors import Unreachable
from helpers.executors import registry
from helpers.executors.base import Executor, Handover
from helpers.executors.slurm import executor as slurm_executor
from helpers.executors.slurm import jobs as slurm_jobs
from helpers.executors.slurm.cost import gpus_per_node
from helpers.executors.slurm.executor import EXECUTOR, EXPORT_IMAGE, PROXY_IMAGE
from helpers.executors.slurm.submission import Submission
from helpers.launcher import launcher_yaml
from slurm_double import SlurmDouble
from slurm_submissions import LOCAL, show, submission


def test_the_registry_knows_it_by_the_name_slurm() -> None:
    assert registry.get("slurm") is EXECUTOR
    assert isinstance(EXECUTOR, Executor)


# ---- Images --------------------------------------------------------------------------------------------------------------------------


def config(**more: Any) -> dict[str, Any]:
    return {
        "execution": {
            "type": "slurm",
            "num_instances": 2,
            "proxy": {"image": "haproxy:latest"},
            "auto_export": {"destinations": ["wandb"]},
        },
        "deployment": {"type": "vllm", "image": "vllm/vllm:1"},
        "auxiliary_deployments": {"judge": {"type": "vllm", "image": "judge:1"}, "off": {"type": "none", "image": "off:1"}},
        "evaluation": {"tasks": [{"name": "one", "container": "tasks:1"}, {"name": "two", "container": "vllm/vllm:1"}]},
        **more,
    }


def users(given: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for use in EXECUTOR.images(given, "online"):
        found.setdefault(use.reference, []).append(use.user)
    return found


def put_paths(given: dict[str, Any], paths: dict[str, str]) -> None:
    launcher_yaml.put_images(given, {use.key: paths[use.reference] for use in EXECUTOR.images(given, "online") if use.reference in paths})


def test_every_image_of_a_run_has_its_users_and_each_can_be_replaced_by_a_path() -> None:
    given = config()
    assert users(given) == {
        "vllm/vllm:1": ["deployment", "task two"],
        "tasks:1": ["task one"],
        "judge:1": ["auxiliary deployment judge"],
        "haproxy:latest": ["proxy"],
        EXPORT_IMAGE: ["auto-export"],
    }
    paths = {reference: f"/c/{number}.sqsh" for number, reference in enumerate(users(given))}
    put_paths(given, paths)
    assert sorted(users(given)) == sorted(paths.values())
    assert [task["container"] for task in given["evaluation"]["tasks"]] == ["/c/1.sqsh", "/c/0.sqsh"]


def test_an_image_that_is_not_used_is_not_imported() -> None:
    given = config(deployment={"type": "none", "image": "x:1"}, auxiliary_deployments=None)
    given["execution"] = {"type": "slurm", "proxy": {"image": "haproxy"}, "auto_export": {"destinations": ["wandb"], "enabled": False}}
    assert list(users(given)) == ["tasks:1", "vllm/vllm:1"]


def test_the_launcher_s_own_images_are_used_too_and_named_once_they_have_a_path() -> None:
    """HAProxy stands before several instances, of an auxiliary deployment too."""
    given = config(auxiliary_deployments={"judge": {"type": "vllm", "image": "judge:1", "num_instances": 2}})
    given["execution"] = {"type": "slurm", "auto_export": {"destinations": ["wandb"]}}
    assert users(given)[PROXY_IMAGE] == ["proxy"]
    put_paths(given, {PROXY_IMAGE: "/c/proxy.sqsh", EXPORT_IMAGE: "/c/export.sqsh"})
    assert given["execution"]["proxy"] == {"image": "/c/proxy.sqsh"}
    assert given["execution"]["auto_export"]["export_image"] == "/c/export.sqsh"


def test_these_images_are_those_that_the_launcher_takes() -> None:
    from nemo_evaluator_launcher.executors.slurm import executor as stock

    source = Path(stock.__file__).read_text()
    assert f'export_image: str = "{EXPORT_IMAGE}"' in source
    assert f'"{PROXY_IMAGE}"' in source


# ---- What it costs -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "execution", "said"),
    [
        (1, {"num_nodes": 1, "gres": "gpu:8", "walltime": "04:00:00"}, "1 job × 1 node × 8 GPUs × 04:00:00 = 32 GPU-hours at most."),
        (3, {"num_nodes": 2, "gpus_per_node": 1, "walltime": "00:30:00"}, "3 jobs × 2 nodes × 1 GPU × 00:30:00 = 3 GPU-hours at most."),
        (2, {"walltime": "01:00:00"}, "2 jobs × 1 node × 0 GPUs × 01:00:00 = 0 GPU-hours at most."),
        (
            1,
            {"gres": "gpu:2", "walltime": "01:00:00", "max_walltime": "10:00:00"},
            "= 2 GPU-hours at most (20 if jobs are resumed until max_walltime 10:00:00).",
        ),
    ],
)
def test_the_cost_is_one_line_with_the_right_plurals(tasks: int, execution: dict[str, Any], said: str) -> None:
    assert EXECUTOR.cost({"execution": execution, "evaluation": {"tasks": [{}] * tasks}}).endswith(said)


@pytest.mark.parametrize(
    ("execution", "gpus"),
    [
        ({}, 0),
        ({"gpus_per_node": 4}, 4),
        ({"gpus_per_node": None, "gres": "gpu:8"}, 8),
        ({"gres": "gpu:h100:4,nvme:1"}, 4),
        ({"gres": "gpu"}, 1),
        ({"sbatch_extra_flags": {"gpus-per-node": "h100:2"}}, 2),
        ({"sbatch_extra_flags": {"gres": "gpu:3", "exclusive": True}}, 3),
        ({"gres": "nvme"}, 0),
    ],
)
def test_the_gpus_of_a_node_are_read_from_every_place_that_asks_for_them(execution: dict[str, Any], gpus: int) -> None:
    assert gpus_per_node(execution) == gpus


# ---- Submitting ----------------------------------------------------------------------------------------------------------------------


def handover(run: Path | None) -> Handover:
    data = submitted_config()
    return Handover({**data, "run": {"env": {}}}, data, SEAL, run, log=run / "launcher.log" if run else None)


def test_what_is_submitted_comes_back_as_the_jobs_of_submission_json(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    monkeypatch.setenv("MY_WORD", "x")
    done = EXECUTOR.submit(handover(run), None)
    assert "Logging error" not in (run / "launcher.log").read_text()
    assert done.invocation_id == Submission(CLUSTER, run, SEAL).invocation_id
    assert done.cluster == asdict(CLUSTER)
    assert [(job["slurm_job_id"], job["job_name"], job["job_dir"]) for job in done.jobs] == [
        (str(101 + index), f"research-{RUN}.{name}", f"{run}/jobs/{name}")
        for index, name in enumerate(["hellaswag.0", "adlr_mmlu.1", "hellaswag.2"])
    ]
    assert done.jobs[0]["remote_dir"] == f"/lustre/ann/20261122_013512-{done.invocation_id}/hellaswag.0"
    assert "3 jobs × 1 node × 0 GPUs × 01:00:00" in capsys.readouterr().err


def test_a_dry_run_needs_no_variable_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_TOKEN", raising=False)
    monkeypatch.delenv("MY_WORD", raising=False)
    scripts = dict(EXECUTOR.job_scripts(submitted_config()))
    assert list(scripts) == ["hellaswag.0", "adlr_mmlu.1", "hellaswag.2"]
    assert "#SBATCH --account research" in scripts["hellaswag.0"]
    assert "MY_TOKEN" not in slurm_executor.os.environ


def test_jobs_of_a_submission_that_was_not_recorded_are_cancelled_by_the_names_that_they_must_have(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def cancel(cluster: object, names: list[str], folders: list[str], days: int, take_back: bool) -> dict[str, list[str]]:
        asked.append((cluster, names, take_back))
        return {names[1]: ["7", "8"]} if len(asked) == 1 else {}

    monkeypatch.setattr(slurm_jobs, "cancel", cancel)
    assert EXECUTOR.cancel_unrecorded(handover(run)) == ["adlr_mmlu: cancelled 7, 8, which was queued before the run was recorded"]
    assert asked[0][0] == CLUSTER
    assert asked[0][1][0] == f"research-{RUN}.hellaswag.0"
    assert asked[0][2] is True
    (said,) = EXECUTOR.cancel_unrecorded(handover(run))
    assert said.startswith("the run was not submitted")


def test_an_interrupted_submission_says_how_to_continue_and_how_to_cancel(run: Path) -> None:
    said = EXECUTOR.abandon(handover(run))
    assert f"`make eval RUN={RUN}` adopts them" in said
    assert f"`make cancel RUN={RUN}` cancels them" in said


# ---- A run that was submitted --------------------------------------------------------------------------------------------------------


def test_any_number_of_submissions_is_one_question_per_cluster_and_one_that_is_unreachable_spoils_no_other(
    slurm: SlurmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, also = submission(tmp_path, "a", run="here"), submission(tmp_path, "a", "b", run="also")
    away = submission(tmp_path, "a", run="away", cluster={**LOCAL, "host": "no-such-host.invalid", "tunnel": "ssh"})
    show(slurm, here, 0, "RUNNING")
    show(slurm, also, 1, "CANCELLED")

    def refuse(*_: object) -> None:
        raise Unreachable("not there")

    monkeypatch.setattr(connection, "open_connection", refuse)
    answers = EXECUTOR.ask([away, here, also])
    assert [answer.rows[-1]["state"] for answer in answers] == ["UNREACHABLE", "RUNNING", "CANCELLED"]
    assert [str(answer.error) if answer.error else None for answer in answers] == ["not there", None, None]
    assert len(slurm.calls("squeue")) == 1
    assert EXECUTOR.ask([]) == []


def test_cancelling_names_each_task_with_its_jobs(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    show(slurm, one, 0, "RUNNING")
    show(slurm, one, 1, "COMPLETED")
    assert EXECUTOR.cancel(one, one["jobs"]) == ["a: cancelled 1; it will not be resumed"]
    assert EXECUTOR.cancel(one, one["jobs"]) == []
