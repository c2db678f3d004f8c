"""scripts/compile_config.py and explain_value.py by hand: what they print, write, and refuse to write over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from checkout import ROOT
from compiled import HOSTED, PROFILE, SLURM

pytestmark = pytest.mark.slow


@pytest.fixture
def script(tmp_path: Path, clean_env: dict[str, str]):
    """Run a script in a folder of its own, with an empty env.toml; gives the completed process."""
    (tmp_path / "env.toml").write_text("")

    def run(name: str, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]
        return subprocess.run(command, cwd=cwd or tmp_path, env={**clean_env, **(env or {})}, capture_output=True, text=True, check=False)

    return run


def test_the_config_goes_to_stdout_and_the_talk_to_stderr(script, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(HOSTED + "zzz: 1\n")
    done = script("compile_config", "--config", "./mine.yaml")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["evaluation"]["tasks"] == [{"name": "capitals"}]
    assert "neither the launcher nor evalmake knows the key zzz" in done.stderr


def test_a_config_is_found_by_path_from_anywhere_and_by_name_in_evalmake_config_path(script, tmp_path: Path) -> None:
    folder = tmp_path / "a b" / "ünï,=code"
    folder.mkdir(parents=True)
    (folder / "it's.yaml").write_text(HOSTED)
    for name, cwd, env in (
        (str(folder / "it's.yaml"), None, {}),
        ("../ünï,=code/it's.yaml", folder, {}),
        ("it's", None, {"EVALMAKE_CONFIG_PATH": str(folder)}),
    ):
        done = script("compile_config", "--config", name, cwd=cwd, env=env)
        assert yaml.safe_load(done.stdout)["evaluation"]["tasks"] == [{"name": "capitals"}], done.stderr


def test_env_toml_is_found_upwards_from_the_config_or_named(script, tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(PROFILE)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "mine.yaml").write_text(SLURM.replace("hostname: h, account: a, output_dir: /o", "num_nodes: 1"))
    done = script("compile_config", "--config", str(deep / "mine.yaml"), "--profile", "C")
    assert yaml.safe_load(done.stdout)["execution"]["hostname"] == "host.example", done.stderr
    (tmp_path / "other.toml").write_text(PROFILE.replace("host.example", "other.example"))
    for extra, env in ((["--env-file", "other.toml"], {}), ([], {"EVALMAKE_ENV_FILE": str(tmp_path / "other.toml")})):
        done = script("compile_config", "--config", str(deep / "mine.yaml"), "--profile", "C", *extra, env=env)
        assert yaml.safe_load(done.stdout)["execution"]["hostname"] == "other.example", done.stderr


def test_overrides_keep_spaces_quotes_and_dollars(script, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SLURM)
    shell = "deployment.extra_args='--a \"b c\" --d=$HOME' deployment.port=1"
    done = script("compile_config", "--config", "./mine.yaml", "--overrides", shell, "--set", "run.model=rl:v1")
    config = yaml.safe_load(done.stdout)
    assert config["deployment"]["extra_args"] == '--a "b c" --d=$HOME', done.stderr
    assert (config["deployment"]["port"], config["run"]["model"]) == (1, "rl:v1")


def test_origins_are_written_and_explained(script, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SLURM)
    done = script("compile_config", "--config", "./mine.yaml", "--out", "c.yaml", "--origins", "o.json", "--set", "deployment.port=1")
    assert done.returncode == 0, done.stderr
    keys = json.loads((tmp_path / "o.json").read_text())["keys"]
    assert all(history for history in keys.values())
    told = script("explain_value", "--origins", "o.json", "--key", "deployment.port")
    assert told.stdout.splitlines() == [
        "deployment.port",
        "    8000                             nemo_evaluator_launcher/configs/deployment/vllm.yaml:20",
        "  = 1                                SET deployment.port",
    ]
    below = script("explain_value", "--origins", "o.json", "--key", "deployment.endpoints").stdout
    assert below.count("  = ") == 5
    wrong = script("explain_value", "--origins", "o.json", "--key", "deployment.prt")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "(did you mean deployment.port?)" in wrong.stderr


def test_a_config_by_its_name_alone_is_the_local_one(script, tmp_path: Path) -> None:
    config = yaml.safe_load(script("compile_config", "--env-file", "env.toml").stdout)
    assert config["execution"]["type"] == "process"
