"""helpers/exports/ and steps/export.py with the real wandb SDK, against the double of a server and offline."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from helpers.common import files, processes, run_folder
from helpers.common.errors import BadInput, EvalmakeError, StepFailed, Unreachable
from helpers.executors import job_folder
from helpers.executors import scores as results
from helpers.executors.process import jobs as process_jobs
from helpers.exports import exports_file, wandb_export, wandb_runs
from helpers.steps import export
from local_jobs import make_jobs
from wandb_double import ENTITY, KEY, PROJECT, WandbDouble

pytestmark = pytest.mark.slow

RUN = "20261122T013512Z-local-7f3a"
SCORES = {"acc": {"acc": (0.5, 0.25, 4), "norm": (0.625, None, None)}}
HALF = {"t_acc": 0.5, "t_acc_stderr": 0.25, "t_acc_n": 4, "t_acc_norm": 0.625}


def results_yml(scores: dict[str, dict[str, tuple[float, float | None, int | None]]], name: str = "t") -> str:
    made = {
        metric: {"scores": {score: {"value": v, "stats": {"stderr": e, "count": n}} for score, (v, e, n) in inner.items()}}
        for metric, inner in scores.items()
    }
    return json.dumps({"results": {"tasks": {name: {"metrics": made}}}})


class Desk:
    """A run whose tasks have ended, in a folder of its own, and the double."""

    def __init__(self, folder: Path, double: WandbDouble) -> None:
        self.run, self.double = folder / RUN, double
        self.out = self.run / "exports.json"

    def fill(self, *tasks: str, **wandb: Any) -> None:
        self.run.mkdir(exist_ok=True)
        jobs = make_jobs(self.run / "jobs", dict.fromkeys(dict.fromkeys(tasks), "true"))
        plan = job_folder.read(jobs / process_jobs.PLAN)
        assert plan
        self.invocation = str(plan["invocation_id"])
        entries = []
        for index, name in enumerate(tasks):
            folder = jobs / f"{name}.{index}"
            (folder / "artifacts").mkdir(parents=True, exist_ok=True)
            (folder / "logs").mkdir(exist_ok=True)
            (folder / "artifacts/results.yml").write_text(results_yml(SCORES))
            job_folder.stage(folder, "running")
            job_folder.stage(folder, "exit", 0)
            entries.append(
                {"task": name, "index": index, "harness": "starter", "job_id": f"{self.invocation}.{index}", "slurm_job_id": None}
                | {"remote_dir": None, "job_dir": str(folder)}
            )
        config = {
            "run": {"wandb": {"project": PROJECT, "entity": ENTITY}},
            "execution": {"type": "process", "auto_export": {"destinations": ["wandb"]}},
            "deployment": {"type": "none"},
            "evaluation": {"tasks": [{"name": name} for name in tasks]},
            "export": {"wandb": wandb},
        }
        files.write_yaml(self.run / "config.yaml", config, "config", "compile_config.py", {})
        document = {"made_by": "submit_eval.py", "made_from": {}, "invocation_id": self.invocation, "executor": "process"}
        files.write_json(self.run / "submission.json", document | {"submitted_at": run_folder.now(), "jobs": entries}, "submission")

    def export(self, auto: bool = False, dest: str = "wandb") -> dict[str, Any]:
        export.export(str(self.run / "submission.json"), str(self.out), dest, auto)
        return files.read_json(self.out, "exports")

    def failed(self, kind: type[EvalmakeError]) -> str:
        """The text of the error that `make export` ends with; exports.json says the same."""
        with pytest.raises(kind) as caught:
            self.export()
        written = files.read_json(self.out, "exports")
        assert written["state"] == "failed"
        assert written["reason"] in str(caught.value)
        assert KEY not in self.out.read_text() + str(caught.value)
        return str(caught.value)


@pytest.fixture
def desk(tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.toml").write_text("")
    with WandbDouble() as double:
        monkeypatch.setenv("WANDB_BASE_URL", double.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield Desk(tmp_path, double)


# ---- What W&B is to hold --------------------------------------------------------------------------------------------------------------


def rows(*names: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [
        {"part": part, "metric": metric, "score": score, "value": 0.1 * number, "stderr": None, "n": None}
        for number, (part, metric, score) in enumerate(names, 1)
    ]


def test_metrics_have_the_launcher_s_names_with_their_errors_and_counts() -> None:
    made = wandb_runs.metrics({"t": results.named_rows(json.loads(results_yml(SCORES)))})
    assert made == HALF
    assert wandb_runs.metrics({"t": [{**rows(("t", "m", "m"))[0], "value": None}]}) == {}


def test_no_metric_takes_another_s_place() -> None:
    same = wandb_runs.metrics({"a.0": rows(("t", "acc", "acc")), "a.1": rows(("t", "acc", "acc"), ("t", "f1", "f1"))})
    assert same == {"a.0/t_acc": 0.1, "a.1/t_acc": 0.1, "t_f1": 0.2}
    close = wandb_runs.metrics({"a": rows(("x_y", "z", "z"), ("x", "y_z", "y_z"))})
    assert close == {"a/x_y/z/z": 0.1, "a/x/y_z/y_z": 0.2}
    of_its_own = wandb_runs.metrics({"a": [{**rows(("t", "acc", "acc"))[0], "stderr": 0.9}, *rows(("t", "acc", "stderr"))]})
    assert of_its_own == {"t_acc": 0.1, "t_acc_stderr": 0.1}


def test_the_names_are_those_of_the_launcher_s_own_exporter(tmp_path: Path) -> None:
    from nemo_evaluator_launcher.exporters.utils import extract_accuracy_metrics

    (tmp_path / "results.yml").write_text(results_yml(SCORES))
    stock = extract_accuracy_metrics(tmp_path)
    assert stock.items() <= wandb_runs.metrics({"t": results.named_rows(json.loads(results_yml(SCORES)))}).items()
    assert set(stock) == {"t_acc", "t_acc_norm"}, "it leaves standard errors and counts out"


# ---- Online ---------------------------------------------------------------------------------------------------------------------------


def test_each_task_gets_a_verified_run_and_a_second_export_changes_nothing(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.fill("t", "u", group="nightly", tags=["rl"], description="why", extra_metadata={"stage": "rl"}, job_type="eval")
    written = desk.export()
    said = capsys.readouterr().err
    assert f"✓ W&B holds the scores: 2 runs in {ENTITY}/{PROJECT}, verified\n" in said
    assert (written["state"], written["server"], written["entity"], written["project"]) == ("verified", desk.double.url, ENTITY, PROJECT)
    for index, task in enumerate(("t", "u")):
        name = f"{desk.invocation}-{task}.{index}"
        run = desk.double.run(name)
        assert run.state == "finished"
        assert {key: value for key, value in run.summary.items() if not key.startswith("_")} == HALF
        assert [{key: line[key] for key in HALF} for line in run.history] == [HALF]
        given = run.attributes
        assert (given["groupName"], given["tags"], given["notes"], given["jobType"]) == ("nightly", ["rl"], "why", "eval")
        assert {"stage": "rl", "benchmark": task, "harness": "starter", "invocation_id": desk.invocation}.items() <= {
            key: inner.get("value") for key, inner in run.config.items()
        }.items()
        assert written["runs"][index]["url"] == f"{desk.double.url}/{ENTITY}/{PROJECT}/runs/{name}"
        assert f"  {task}: {written['runs'][index]['url']}\n" in said
    assert sorted((one.collection, one.type, one.index) for one in desk.double.artifacts.values()) == [
        (f"results-{desk.invocation}-{task}.{index}", "evaluation_result", 0) for index, task in enumerate(("t", "u"))
    ]
    assert desk.double.keys_seen() == {KEY, None}, "None: uploads to signed addresses"
    assert desk.double.unknown == []
    assert not (desk.run / "wandb").exists()
    before = len(desk.double.calls)
    assert desk.export()["state"] == "verified"
    assert [call.operation for call in desk.double.calls[before:]] == ["HeldRuns"]
    assert len(desk.double.runs) == 2


def test_a_wrong_and_a_missing_run_are_fixed_and_a_new_score_is_one_more_step(desk: Desk) -> None:
    desk.fill("t", "u")
    desk.export()
    wrong, gone = (desk.double.run(f"{desk.invocation}-{name}") for name in ("t.0", "u.1"))
    wrong.summary["t_acc"] = 0.75
    del desk.double.runs[(ENTITY, PROJECT, gone.name)]
    assert desk.export()["state"] == "verified"
    assert wrong.summary["t_acc"] == 0.5
    assert [line.get("t_acc") for line in wrong.history] == [0.5, 0.5]
    assert [line.get("t_acc_n") for line in wrong.history] == [4, None], "what was right is not logged again"
    assert desk.double.run(gone.name).summary["t_acc_norm"] == 0.625
    assert len(desk.double.runs) == 2


def test_what_the_server_loses_is_a_failure_that_names_the_metric(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fill("t")
    stream = desk.double.stream

    def losing(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = stream(path, body)
        for run in desk.double.runs.values():
            run.summary.pop("t_acc", None)
        return answer

    monkeypatch.setattr(desk.double, "stream", losing)
    text = desk.failed(StepFailed)
    assert "1 of 1 W&B runs differ from results.json: t: t_acc is null there and 0.5 in results.json" in text
    assert f"try again with `make export RUN={RUN}`" in text
    assert (desk.run / "wandb" / "export.log").exists()


def test_one_run_for_all_holds_each_task_s_metrics(desk: Desk) -> None:
    desk.fill("t", "u", "t", log_mode="multi_task", name="nano3", run_id="mine")
    written = desk.export()
    assert [(one["id"], one["name"], one["tasks"]) for one in written["runs"]] == [("mine", "nano3", ["t.0", "u", "t.2"])]
    summary = desk.double.run("mine").summary
    assert {key for key in summary if key.endswith("acc")} == {"t.0/t_acc", "u/t_acc", "t.2/t_acc"}
    assert len(written["runs"]) == len(desk.double.runs) == 1


def test_artifacts_and_logs_are_exported_as_the_config_says(desk: Desk) -> None:
    desk.fill("t", copy_artifacts=False)
    desk.export()
    assert desk.double.artifacts == {}
    desk.fill("u", copy_logs=True, only_required=False)
    folder = desk.run / "jobs/u.0"
    (folder / "artifacts/cache").mkdir()
    (folder / "artifacts/cache/a").write_text("big")
    (folder / "artifacts/predictions.jsonl").write_text("{}")
    (folder / "logs/client_stdout.log").write_text("said")
    desk.export()
    (made,) = desk.double.artifacts.values()
    names = set(json.loads(made.manifest)["contents"])
    assert {"starter.u/artifacts/results.yml", "starter.u/artifacts/predictions.jsonl", "starter.u/logs/client_stdout.log"} <= names
    assert not [name for name in names if "cache" in name]


def named_by_artifact(desk: Desk) -> None:
    """model.json as resolve_model.py leaves it: the second version of an artifact of the training."""
    for step in (1, 2):
        made = desk.double.put_artifact("ModelArtifact-rl", metadata={"absolute_path": f"/lustre/rl-{step}"})
    one = {"reference": "rl:latest", "backend": "wandb", "found_in": desk.double.url, "name": f"{ENTITY}/{PROJECT}/ModelArtifact-rl"}
    one |= {"version": "v1", "digest": made.digest, "type": "model", "path": "/lustre/rl-2"}
    document = {"made_by": "resolve_model.py", "made_from": {}, "models": {"model": {**one, "metadata": {}}}}
    files.write_json(desk.run / "model.json", document, "model")


def test_the_model_that_was_evaluated_goes_into_its_wandb_run_and_the_results_come_out(desk: Desk) -> None:
    desk.fill("t")
    named_by_artifact(desk)
    assert desk.export()["state"] == "verified"
    used = [desk.double.artifacts[one] for one in desk.double.run(f"{desk.invocation}-t.0").used]
    assert [(one.collection, one.index) for one in used] == [("ModelArtifact-rl", 1)]
    (made,) = [one for one in desk.double.artifacts.values() if one.type == "evaluation"]
    assert (made.collection, made.index) == ("BenchmarkResults-rl", 0)
    assert json.loads(made.metadata or "")["scores"] == {"t/acc": 0.5, "t/acc/norm": 0.625}


def test_a_failed_lineage_is_reported_and_the_next_export_records_it(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.fill("t")
    named_by_artifact(desk)
    models = dict(desk.double.artifacts)
    desk.double.artifacts.clear()
    (one,) = desk.export()["runs"]
    assert one["state"] == "verified"
    assert "no longer has it" in one["reason"]
    assert "[notice] W&B: t: the scores are there, but something else failed: " in capsys.readouterr().err
    desk.double.artifacts = models
    (one,) = desk.export(auto=True)["runs"]
    assert (one["state"], one["reason"]) == ("verified", "")
    assert desk.double.run(one["id"]).used


def test_of_two_exports_of_a_run_the_second_waits_and_finds_it_done(desk: Desk) -> None:
    desk.fill("t")
    with (desk.run / wandb_export.LOCK).open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(desk.export)
        assert not wait([second], 1).done
        assert desk.double.runs == {}
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert second.result(60)["state"] == "verified"


# ---- What goes wrong ------------------------------------------------------------------------------------------------------------------


def test_a_refused_key_and_a_closed_project_are_bad_input(desk: Desk) -> None:
    desk.fill("t")
    desk.double.expired.add(KEY)
    assert "refuses the key from environment" in desk.failed(BadInput)
    desk.double.expired.clear()
    desk.double.read_only.add(f"{ENTITY}/{PROJECT}")
    assert "permission denied" in desk.failed(StepFailed)


def test_no_network_is_unreachable_and_with_auto_only_recorded_and_announced(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.fill("t")
    desk.double.off()
    assert "does not answer" in desk.failed(Unreachable)
    written = desk.export(auto=True)
    assert written["state"] == "failed"
    capsys.readouterr()
    exports_file.announce(written, desk.run)
    said = capsys.readouterr().err
    assert said.startswith("✗ The export to W&B failed: W&B at ")
    assert f"the scores are safe in results.json; try again with `make export RUN={RUN}`" in said
    desk.double.on()
    assert desk.export(auto=True)["state"] == "verified"
    calls = len(desk.double.calls)
    desk.export(auto=True)
    assert len(desk.double.calls) == calls, "what was verified is not asked for again"


def test_a_server_that_disappears_half_way_is_not_waited_for_long(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fill("t")
    answer = desk.double.answer

    def dying(call: Any, query: str) -> dict[str, Any]:
        data = answer(call, query)
        if call.operation == "UpsertBucket":
            desk.double.fail_with = 503
        return data

    monkeypatch.setattr(desk.double, "answer", dying)
    desk.failed(Unreachable)
    assert processes.marked(processes.JOB_MARK, f"export-{desk.run.resolve()}") == []


def test_a_missing_key_and_another_destination_are_bad_input(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fill("t")
    monkeypatch.delenv("WANDB_API_KEY")
    assert "WANDB_API_KEY" in desk.failed(BadInput)
    with pytest.raises(BadInput, match=f"DEST=mlflow: .* export {desk.invocation} --dest mlflow"):
        desk.export(dest="mlflow")
    assert desk.double.calls == []


def test_results_that_changed_since_they_were_collected_are_not_exported(desk: Desk) -> None:
    desk.fill("t")
    desk.export()
    (desk.run / "jobs/t.0/artifacts/results.yml").write_text(results_yml({"acc": {"acc": (0.9, 0.1, 4)}}))
    (desk.out).unlink()
    written = desk.export(auto=True)
    assert "is not the file that results.json was made from" in written["reason"]
    (desk.run / "results.json").unlink()  # as `make resume` does
    assert desk.export(auto=True)["state"] == "verified", "results that are not there are gathered first"
    assert desk.double.run(f"{desk.invocation}-t.0").summary["t_acc"] == 0.9


# ---- Offline and disabled -------------------------------------------------------------------------------------------------------------


def test_offline_everything_is_in_the_run_folder_and_reaches_the_server_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, clean_env: dict[str, str]
) -> None:
    desk.fill("t")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY")
    for _ in range(2):
        written = desk.export()
        assert (written["state"], written["runs"][0]["url"]) == ("offline", None)
        assert f"`make export RUN={RUN}` sends them to the server" in written["reason"]
    (log,) = (desk.run / "wandb").glob("offline-run-*/run-*.wandb")
    wandb = [str(Path(sys.executable).with_name("wandb"))]
    read = subprocess.run([*wandb, "leet", "inspect", "--json", str(log)], capture_output=True, text=True, timeout=60, check=True)
    records = [json.loads(line) for line in read.stdout.splitlines()]
    begun = next(record["run"] for record in records if record["type"] == "run")
    assert (begun["run_id"], begun["entity"], begun["project"]) == (f"{desk.invocation}-t.0", ENTITY, PROJECT)
    (history,) = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert {key: history[key] for key in HALF} == HALF
    assert desk.double.calls == []
    assert [path for path in Path(clean_env["HOME"]).rglob("*") if "wandb" in str(path.relative_to(clean_env["HOME"]))] == []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    subprocess.run([*wandb, "sync", str(log.parent)], check=True, timeout=60, capture_output=True)
    run = desk.double.run(f"{desk.invocation}-t.0")
    assert run.summary["t_acc"] == 0.5, "wandb's own sync brings it to the same run"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert desk.export()["state"] == "verified"
    assert len(desk.double.runs) == len(run.history) == 1
    assert not (desk.run / "wandb").exists()


def test_disabled_exports_nothing_and_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    desk.fill("t")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    written = desk.export()
    assert (written["state"], written["runs"]) == ("nothing", [])
    assert "WANDB_MODE=disabled: nothing is exported" in capsys.readouterr().err
    assert desk.double.calls == []
