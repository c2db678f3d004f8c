"""scripts/wandb_env.py, run by hand as a person would: its output, its file, its exit codes, and that it contacts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.common import files
from wandb_double import WandbDouble

pytestmark = pytest.mark.slow

SCRIPT = files.ROOT / "scripts" / "wandb_env.py"
KEY = "0123456789abcdef0123456789abcdef01234567"
SECRET = "planted-S3cret"
# Loaded by Python before the script: every connection, name look-up and child process leaves a mark and fails.
TRIPWIRE = """
import os, socket, subprocess
def refuse(*args, **kwargs):
    open(os.environ["TRIPWIRE"], "a").write(repr(args[1:]))
    raise OSError("refused by the test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
subprocess.Popen.__init__ = refuse
"""


class Desk:
    """A folder with a home, an env.toml's folder, a compiled config, and the script to run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.env_dir = folder / "project"
        self.run = folder / "runs" / "20261122T013512Z-local-7f3a"
        self.out = self.run / "credentials.json"
        self.may_ask = False
        for made in (self.home, self.env_dir, self.run, folder / "site"):
            made.mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(TRIPWIRE)
        self.configure()

    def configure(self, **sections: Any) -> None:
        config: dict[str, Any] = {"run": {"wandb": {"project": "nemotron", "entity": "my-team"}}}
        config |= {"execution": {"type": "process"}, "deployment": {"type": "none"}, "evaluation": {"tasks": [{"name": "t"}]}} | sections
        files.write_yaml(self.run / "config.yaml", config, "config", "compile_config.py", {})

    def login(self) -> None:
        (self.home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")

    def start(self, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        options = arguments or ("--config", f"{self.run}/config.yaml", "--out", f"{self.out}", "--env-dir", f"{self.env_dir}")
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(self.folder / "site")}
        env |= {"TRIPWIRE": str(self.folder / "asked"), "HTTPS_PROXY": "http://127.0.0.1:9", **environ}
        if self.may_ask:
            del env["PYTHONPATH"]
        done = subprocess.run(
            [sys.executable, SCRIPT, *options],
            input=stdin,
            env=env,
            cwd=self.home,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not (self.folder / "asked").exists(), (self.folder / "asked").read_text()
        assert "Traceback" not in done.stderr
        return done

    def again(self, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.start("--config", f"{self.run}/config.yaml", "--out", f"{self.out}", "--env-dir", f"{self.env_dir}", *more, **environ)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


EXPORT = {"type": "slurm", "auto_export": {"enabled": True, "destinations": ["wandb"]}}


def test_the_sentence_about_a_detected_login_and_the_file(desk: Desk) -> None:
    desk.login()
    desk.configure(execution=EXPORT)
    done = desk.start()
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "[info] Detected W&B login, setting WANDB_API_KEY\n"
    written = files.read_json(desk.out, "credentials")
    _, seal, _ = files.read_yaml(desk.run / "config.yaml", "config")
    assert (written["made_by"], written["made_from"]) == ("wandb_env.py", {"config.yaml": seal})
    assert written["variables"] == [
        {"name": "WANDB_API_KEY", "source": f"netrc ({desk.home}/.netrc)", "wanted_by": ["execution.auto_export"]},
        {"name": "WANDB_ENTITY", "source": "env.toml [wandb]", "wanted_by": ["execution.auto_export"]},
        {"name": "WANDB_PROJECT", "source": "env.toml [wandb]", "wanted_by": ["execution.auto_export"]},
    ]
    where = {"server": "https://api.wandb.ai", "entity": "my-team", "project": "nemotron"}
    assert (written["missing"], written["wandb"]) == ([], {"mode": "online", "export": True, **where})


def test_nothing_is_printed_without_a_login_and_without_a_need_for_one(desk: Desk) -> None:
    done = desk.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    where = {"server": None, "entity": None, "project": None}
    assert files.read_json(desk.out, "credentials")["wandb"] == {"mode": "online", "export": False, **where}


def test_no_planted_secret_is_printed_or_written(desk: Desk) -> None:
    desk.login()
    (desk.env_dir / ".env").write_text(f"HF_TOKEN={SECRET}\n")
    desk.configure(execution=EXPORT, env_vars={"HF_TOKEN": "host:HF_TOKEN", "API": "host:API_KEY"})
    done = desk.start(API_KEY=SECRET + "2")
    assert done.returncode == 0
    assert "[info] Loaded .env: HF_TOKEN\n" in done.stderr
    assert "[notice]" in done.stderr
    assert "chmod 600" in done.stderr
    texts = [done.stderr, *(path.read_text() for path in desk.run.rglob("*") if path.is_file())]
    for secret in (KEY, SECRET):
        assert secret not in "".join(texts)


def test_missing_variables_are_one_error_and_no_file_and_a_dry_run_lists_them(desk: Desk) -> None:
    desk.configure(execution=EXPORT, run={}, env_vars={"HF_TOKEN": "host:HF_TOKEN"})
    done = desk.start()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for name in (
        "WANDB_API_KEY",
        "WANDB_PROJECT",
        "WANDB_ENTITY",
        "HF_TOKEN",
        "`wandb login`",
        'SET="execution.auto_export.enabled=false"',
    ):
        assert name in done.stderr
    assert not desk.out.exists()
    dry = desk.again("--dry-run")
    assert dry.returncode == 0
    assert dry.stderr.count("[notice] missing: ") == 4
    names = [one["name"] for one in files.read_json(desk.out, "credentials")["missing"]]
    assert names == ["HF_TOKEN", "WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT"]


def test_a_step_with_the_same_outcome_renews_only_the_time(desk: Desk) -> None:
    desk.start()
    before = desk.out.stat()
    os.utime(desk.out, (1, 1))
    assert desk.start().returncode == 0
    after = desk.out.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert after.st_mtime > 1
    content = desk.out.read_bytes()
    desk.start(WANDB_PROJECT="mine")
    assert desk.out.read_bytes() != content


def test_an_edited_file_and_an_edited_config_are_refused(desk: Desk) -> None:
    desk.start()
    content = desk.out.read_text()
    desk.out.write_text(content.replace("env.toml [wandb]", "environment"))
    done = desk.start()
    assert done.returncode == 2
    assert "edited" in done.stderr
    desk.out.write_text(content)
    config = desk.run / "config.yaml"
    config.write_text(config.read_text().replace("nemotron", "other"))
    assert desk.start().returncode == 2


def test_stdin_stdout_and_help(desk: Desk) -> None:
    text = (desk.run / "config.yaml").read_text()
    done = desk.start("--config", "-", "--out", "-", "--env-dir", str(desk.env_dir), stdin=text)
    assert done.returncode == 0
    assert json.loads(done.stdout)["made_by"] == "wandb_env.py"
    assert "--dry-run" in desk.start("--help").stdout
    assert desk.start("--config", "-").returncode == 2
    assert desk.again("--env-dir", "/nowhere").stderr == "error: --env-dir /nowhere: no such folder\n"


def test_the_dotenv_beside_the_env_toml_in_use_is_found(desk: Desk) -> None:
    (desk.folder / "env.toml").write_text('[wandb]\nproject = "nemotron"\n')
    (desk.folder / ".env").write_text("HF_TOKEN=x\n")
    (desk.folder / ".env").chmod(0o600)
    done = desk.start("--config", f"{desk.run}/config.yaml", "--out", f"{desk.out}")
    assert done.stderr == "[info] Loaded .env: HF_TOKEN\n"


def test_the_step_is_recorded_without_a_value(desk: Desk) -> None:
    desk.configure(env_vars={"A": "host:ABSENT"})
    assert desk.start(UNUSED=SECRET).returncode == 2
    events = [json.loads(line) for line in (desk.run / "events.jsonl").read_text().splitlines()]
    assert [(event["step"], event["event"]) for event in events] == [("wandb_env", "start"), ("wandb_env", "end")]
    assert events[1]["exit_code"] == 2
    assert "ABSENT" in events[1]["error"]


# ---- Asking W&B -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def double(desk: Desk) -> Iterator[WandbDouble]:
    """A server that the person is logged in to, and a config that exports to it."""
    desk.may_ask = True
    desk.configure(execution=EXPORT)
    with WandbDouble() as double:
        port = double.url.rpartition(":")[2]
        (desk.home / ".netrc").write_text(f"machine 127.0.0.1:{port}\n  login user\n  password {KEY}\n")
        yield double


def test_a_check_asks_the_configured_server_once_whether_the_key_may_write(desk: Desk, double: WandbDouble) -> None:
    done = desk.again("--check", WANDB_BASE_URL=double.url)
    assert done.returncode == 0, done.stderr
    assert f"[info] W&B at {double.url}: the key belongs to me and may write to my-team/nemotron\n" in done.stderr
    assert [(call.key, call.operation) for call in double.calls] == [(KEY, "Check")]
    where = {"server": double.url, "entity": "my-team", "project": "nemotron"}
    assert files.read_json(desk.out, "credentials")["wandb"] == {"mode": "online", "export": True, **where}


@pytest.mark.parametrize("option", ["--check", "--preflight"])
def test_a_refused_key_stops_and_nothing_is_written(desk: Desk, double: WandbDouble, option: str) -> None:
    double.expired.add(KEY)
    done = desk.again(option, WANDB_BASE_URL=double.url)
    assert done.returncode == 2
    assert f"error: W&B at {double.url} refuses the key from netrc ({desk.home}/.netrc)" in done.stderr
    assert KEY not in done.stderr
    assert not desk.out.exists()


def test_a_server_that_does_not_answer_is_exit_3_of_a_check_and_a_notice_of_a_preflight(desk: Desk, double: WandbDouble) -> None:
    double.off()
    assert desk.again("--check", WANDB_BASE_URL=double.url).returncode == 3
    assert not desk.out.exists()
    done = desk.again("--preflight", WANDB_BASE_URL=double.url)
    assert done.returncode == 0
    assert "[notice] W&B at " in done.stderr
    assert "the evaluation continues, and its export is verified at the end" in done.stderr
    assert desk.out.exists()


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_nothing_is_asked_where_nothing_is_exported_online_and_never_in_a_dry_run(desk: Desk, double: WandbDouble, mode: str) -> None:
    assert desk.again("--check", WANDB_BASE_URL=double.url, WANDB_MODE=mode).returncode == 0
    assert desk.again("--preflight", "--dry-run", WANDB_BASE_URL=double.url).returncode == 0
    desk.configure()
    assert desk.again("--check", WANDB_BASE_URL=double.url).returncode == 0
    assert double.calls == []


@pytest.mark.parametrize(
    "act", ["import urllib.request as r; r.urlopen('http://127.0.0.1:9')", "import subprocess; subprocess.run(['true'])"]
)
def test_the_tripwire_of_these_tests_trips(desk: Desk, act: str) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(desk.folder / "site"), "TRIPWIRE": str(desk.folder / "asked")}
    assert subprocess.run([sys.executable, "-c", act], env=env, check=False, capture_output=True, timeout=60).returncode == 1
    assert (desk.folder / "asked").exists()
