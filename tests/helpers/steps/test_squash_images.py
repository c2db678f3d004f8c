"""helpers/steps/squash_images.py: images.json, what prevents an import and what happens instead, and the plan of a dry run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiled import SLURM, compile_text
from compute_node import ComputeNode
from helpers.common import files
from helpers.common.errors import BadInput
from helpers.images import importing, references
from helpers.launcher import launcher_yaml
from helpers.steps import squash_images
from registry_double import RegistryDouble
from slurm_double import SlurmDouble

MODEL, TASK = "registry.example/team/model:1", "registry.example/team/tasks:1"
RUN = "20261122T013512Z-local-7f3a"


@pytest.fixture
def job_dir(tmp_path: Path, slurm: SlurmDouble, node: ComputeNode, registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A remote_job_dir on a cluster that is this machine; its registry has the model and the tasks' image."""
    monkeypatch.setattr(importing, "ASK_FIRST", 0.1)
    monkeypatch.setattr(importing, "ASK_MOST", 0.3)
    slurm.nodes_are("x86_64")
    for name in ("team/model", "team/tasks"):
        registry.put(name, "1")
    folder = tmp_path / "remote"
    folder.mkdir()
    return folder


def config(job_dir: Path | str | None, model: str = MODEL, **env: Any) -> dict[str, Any]:
    """A compiled config as far as images go, on a login node."""
    return {
        "execution": {"type": "slurm", "hostname": "localhost", "account": "acc", "partition": "batch", "walltime": "00:10:00"},
        "deployment": {"type": "vllm", "image": model},
        "evaluation": {"tasks": [{"name": "one", "container": TASK}]},
        "run": {"env": {"executor": "slurm", "tunnel": "local", "remote_job_dir": str(job_dir) if job_dir else None, **env}},
    }


def run_folder(tmp_path: Path, data: dict[str, Any]) -> Path:
    """A run's folder with this config.yaml in it."""
    run = tmp_path / RUN
    run.mkdir()
    files.write_yaml(run / "config.yaml", data, "config", "compile_config.py", {})
    return run


# ---- What prevents it ----------------------------------------------------------------------------------------------------------


def without(name: str, section: str = "env") -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        (data["run"]["env"] if section == "env" else data[section]).pop(name)

    return change


def having(section: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        (data["run"]["env"] if section == "env" else data[section]).update(values)

    return change


UNMET = [
    (having("execution", type="local"), "executor docker pulls its images itself"),
    (having("execution", hostname=None), "host is not set: name the cluster's login node in the profile"),
    (having("env", tunnel="rsh"), 'tunnel is \'rsh\': expected "ssh", or "local" on a login node'),
    (without("remote_job_dir"), "remote_job_dir is not set: give the profile a folder on the cluster"),
    (having("env", remote_job_dir=""), "remote_job_dir is not set"),
    (having("env", remote_job_dir="jobs"), "remote_job_dir jobs is not absolute: give its whole path on the cluster"),
]


@pytest.mark.parametrize(("change", "said"), UNMET)
def test_what_an_import_lacks_is_named_with_its_fix_and_images_are_left(
    slurm: SlurmDouble, change: Callable[[dict[str, Any]], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = config("/lustre/me")
    assert squash_images.obstacle(data) == ""
    change(data)
    assert said in squash_images.obstacle(data)
    made = squash_images.plan(data, force=True, at_once=4)
    assert (made["cluster"], made["folder"]) == (None, None)
    assert [(row["state"], row["path"]) for row in made["images"]] == [("left", None)] * 2
    assert all(said in row["why"] for row in made["images"])
    notice = capsys.readouterr().err
    if data["execution"]["type"] == "slurm":
        assert f"images are not squashed: {squash_images.obstacle(data)}; each job pulls them from their registry" in notice
    else:
        assert notice == ""
    assert slurm.calls() == []
    assert [words for *_, words in squash_images.foresee(data, remote_too=True)] == [f"left: {squash_images.obstacle(data)}"] * 2


def test_the_profile_s_user_and_tunnel_may_be_left_out() -> None:
    data = config("/lustre/me")
    del data["run"]["env"]["tunnel"]
    assert squash_images.obstacle(data) == ""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('remote_job_dir = "/lustre/me"\nhost = "login.example"', ""),
        ('remote_job_dir = "/lustre/me"\ntunnel = "local"', ""),
        ('host = "login.example"', "remote_job_dir is not set"),
    ],
)
def test_a_compiled_profile_meets_it_or_does_not(tmp_path: Path, lines: str, said: str) -> None:
    text = SLURM.replace("hostname: h, account: a, output_dir: /o", "output_dir: /o")
    made = compile_text(tmp_path, text, f'[C]\nexecutor = "slurm"\naccount = "acc"\n{lines}\n', "C")
    assert squash_images.obstacle(made.config).startswith(said)
    assert bool(squash_images.obstacle(made.config)) == bool(said)


def test_a_process_uses_no_images(slurm: SlurmDouble) -> None:
    data = {"execution": {"type": "process"}, "deployment": {"type": "none"}, "evaluation": {"tasks": [{"name": "capitals"}]}}
    assert squash_images.plan(data, False, 4) == {"cluster": None, "folder": None, "images": []}


def test_a_reference_that_is_none_is_refused_before_anything_is_contacted(job_dir: Path, slurm: SlurmDouble) -> None:
    with pytest.raises(BadInput, match="contains ;"):
        squash_images.plan(config(job_dir, "a:1;reboot"), False, 4)
    assert slurm.calls() == []


# ---- images.json ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_image_of_a_run_is_brought_and_written_down(
    job_dir: Path, tmp_path: Path, slurm: SlurmDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path, config(job_dir, "/lustre/model.sqsh"))
    squash_images.squash(str(run / "config.yaml"), str(run / "images.json"), force=False)
    made = files.read_json(run / "images.json", "images")
    assert (made["cluster"], made["folder"]) == ("this login node", f"{job_dir}/containers")
    assert made["made_from"] == {"config.yaml": files.read_yaml(run / "config.yaml", "config")[1]}
    model, task = made["images"]
    assert (model["path"], model["state"], model["users"]) == ("/lustre/model.sqsh", "left", ["deployment"])
    assert "used as it is" in model["why"]
    assert (task["state"], task["users"], Path(task["path"]).parent) == ("imported", ["task one"], job_dir / "containers")
    assert squash_images.paths_of(run / "launcher.yaml") == {"/lustre/model.sqsh": "/lustre/model.sqsh", TASK: task["path"]}


def test_what_is_a_path_already_contacts_nothing(tmp_path: Path, slurm: SlurmDouble) -> None:
    data = config("/lustre/me", "/lustre/model.sqsh")
    data["evaluation"]["tasks"] = [{"name": "one", "container": "/lustre/task.sqsh"}]
    assert {row["state"] for row in squash_images.plan(data, True, 4)["images"]} == {"left"}
    assert slurm.calls() == []


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "given"), [(True, False), (False, True)])
def test_force_counts_whether_the_run_was_asked_so_or_the_command_is(
    job_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool, given: bool
) -> None:
    run = run_folder(tmp_path, config(job_dir, "/lustre/model.sqsh"))
    first = squash_images.plan(config(job_dir, "/lustre/model.sqsh"), False, 4)["images"][1]
    (run / "request.json").write_text("{}")
    real = files.read_json
    monkeypatch.setattr(files, "read_json", lambda path, schema: {"force_squash": asked} if schema == "request" else real(path, schema))
    squash_images.squash(str(run / "config.yaml"), str(run / "images.json"), force=given)
    row = files.read_json(run / "images.json", "images")["images"][1]
    assert (row["state"], row["path"]) == ("imported", first["path"])
    assert row["job"] != first["job"]


@pytest.mark.slow
def test_where_the_digest_is_not_told_the_reference_stands_for_it_and_a_hit_says_of_when_it_is(
    job_dir: Path, registry: RegistryDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.rule(fails={"HEAD": 500})
    rows = squash_images.plan(config(job_dir), False, 4)["images"]
    assert {row["state"] for row in rows} == {"imported"}
    assert "it is cached by its reference, and FORCE_SQUASH=1 imports it again" in capsys.readouterr().err
    rows = squash_images.plan(config(job_dir), False, 4)["images"]
    assert {row["state"] for row in rows} == {"hit"}
    assert all("answers 500" in row["why"] for row in rows)
    said = capsys.readouterr().err
    assert "its digest is unknown (registry.example answers 500" in said
    assert "the import of 20" in said


def test_a_submitted_run_whose_images_json_is_gone_tells_it_from_launcher_yaml_and_contacts_nothing(
    tmp_path: Path, slurm: SlurmDouble
) -> None:
    data = config("/lustre/me", "/lustre/model.sqsh")
    run = run_folder(tmp_path, data)
    launcher = {key: value for key, value in config("", "/lustre/model.sqsh").items() if key != "run"}
    launcher_yaml.put_images(launcher, {("evaluation", "tasks", 0, "container"): "/lustre/me/containers/tasks-1-0123456789ab.sqsh"})
    files.write_yaml(run / "launcher.yaml", launcher, "launcher", "submit_eval.py", {})
    (run / "submission.json").touch()
    squash_images.squash(str(run / "config.yaml"), str(run / "images.json"), force=True)
    model, task = files.read_json(run / "images.json", "images")["images"]
    assert model["state"] == "left"
    assert (task["reference"], task["path"]) == (TASK, "/lustre/me/containers/tasks-1-0123456789ab.sqsh")
    assert "launcher.yaml" in task["why"]
    assert slurm.calls() == []
    assert squash_images.paths_of(run / "launcher.yaml")[TASK] == task["path"]


def test_a_reference_in_launcher_yaml_that_is_written_for_pyxis_is_no_path(tmp_path: Path) -> None:
    run = run_folder(tmp_path, config("/lustre/me", "/lustre/model.sqsh"))
    launcher = {key: value for key, value in config("", "/lustre/model.sqsh").items() if key != "run"}
    launcher_yaml.put_images(launcher, {("evaluation", "tasks", 0, "container"): references.parse(TASK).for_pyxis})
    files.write_yaml(run / "launcher.yaml", launcher, "launcher", "submit_eval.py", {})
    (run / "submission.json").touch()
    squash_images.squash(str(run / "config.yaml"), str(run / "images.json"), force=True)
    _, task = files.read_json(run / "images.json", "images")["images"]
    assert (task["reference"], task["state"], task["path"]) == (TASK, "left", None)


def test_outside_of_a_run_there_are_no_paths(tmp_path: Path) -> None:
    assert squash_images.paths_of(tmp_path / "config.yaml") == {}
    (tmp_path / RUN).mkdir()
    assert squash_images.paths_of(tmp_path / RUN / "config.yaml") == {}


# ---- The plan ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_plan_contacts_nothing_and_asked_to_it_asks_and_changes_nothing(
    job_dir: Path, slurm: SlurmDouble, registry: RegistryDouble
) -> None:
    data = config(job_dir)
    assert squash_images.foresee(data, remote_too=False) == [
        (MODEL, "deployment", f"imported into {job_dir}/containers, unless it is there already (REMOTE=1 asks)"),
        (TASK, "task one", f"imported into {job_dir}/containers, unless it is there already (REMOTE=1 asks)"),
    ]
    assert (slurm.calls(), registry.calls) == ([], [])
    assert {words for *_, words in squash_images.foresee(data, remote_too=True)} == {"will be imported"}
    assert list(job_dir.iterdir()) == []
    rows = squash_images.plan(data, False, 4)["images"]
    del registry.manifests["team/tasks", "1"]
    data["deployment"]["image"] = "registry.example/team/none:1"
    words = [words for *_, words in squash_images.foresee(data, remote_too=True)]
    assert words[0].startswith("cannot be imported: registry.example has no registry.example/team/none:1 (404)")
    assert words[1] == f"hit: {rows[1]['path']}"


def test_a_plan_refuses_a_reference_that_is_none() -> None:
    with pytest.raises(BadInput, match="not a tag"):
        squash_images.foresee(config("/lustre/me", "a:-x"), remote_too=False)


def test_a_plan_uses_a_path_as_it_is() -> None:
    assert squash_images.foresee(config("/lustre/me", "/a.sqsh"), remote_too=False)[0] == ("/a.sqsh", "deployment", "used as it is")


# ---- By hand -------------------------------------------------------------------------------------------------------------------------


def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in {"executor": "slurm", **fields}.items())
    (tmp_path / "env.toml").write_text(f"[CLUSTER]\n{lines}")
    monkeypatch.setenv("EVALMAKE_ENV_FILE", str(tmp_path / "env.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("host", [{}, {"host": "login.example"}])
def test_one_image_by_hand_on_a_login_node(
    job_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: dict[str, str]
) -> None:
    """A profile for the login node itself need not name a host."""
    profile(tmp_path, monkeypatch, account="acc", tunnel="local", remote_job_dir=str(job_dir), **host)
    squash_images.by_hand(f"docker://{MODEL}", "CLUSTER", str(tmp_path / "out.json"), force=False)
    made = files.read_json(tmp_path / "out.json", "images")
    (row,) = made["images"]
    assert (row["reference"], row["users"], row["state"]) == (f"docker://{MODEL}", ["by hand"], "imported")
    assert f"docker://{MODEL}: imported, {row['path']}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reference", "fields", "said"),
    [
        ("/lustre/a.sqsh", {}, "is a path on the cluster"),
        (MODEL, {"account": "a", "host": "h"}, "CLUSTER: remote_job_dir is not set"),
        (MODEL, {"account": "a", "host": "h", "remote_job_dir": "jobs"}, "is not absolute"),
        (MODEL, {"host": "h", "remote_job_dir": "/r"}, "CLUSTER: account is not set: a job needs one"),
        (MODEL, {"account": "a", "remote_job_dir": "/r"}, "and a host"),
        (MODEL, {"executor": "docker"}, 'expected a profile with executor = "slurm" and a host'),
        ("a b", {"account": "a"}, "contains a space"),
    ],
)
def test_by_hand_what_is_missing_is_refused_and_nothing_is_contacted(
    tmp_path: Path, slurm: SlurmDouble, monkeypatch: pytest.MonkeyPatch, reference: str, fields: dict[str, str], said: str
) -> None:
    profile(tmp_path, monkeypatch, **fields)
    with pytest.raises(BadInput, match=said):
        squash_images.by_hand(reference, "CLUSTER", str(tmp_path / "out.json"), force=False)
    assert slurm.calls() == []
    assert not (tmp_path / "out.json").exists()
