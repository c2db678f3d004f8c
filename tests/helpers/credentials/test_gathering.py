"""credentials/gathering.py: sources and their order, W&B's login by wandb's own code, what is wanted, what is missing, no value shown."""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.common import files
from helpers.common.errors import BadInput
from helpers.credentials import gathering

OLD_KEY = "0123456789abcdef0123456789abcdef01234567"
NEW_KEY = "wandb_v1_" + "Ab3_" * 19 + "9"
ON_PREM_KEY = "local-" + "f" * 40
SECRET = "planted-S3cret"
EXPORT: dict[str, Any] = {
    "run": {"wandb": {"project": "nemotron", "entity": "my-team"}},
    "execution": {"type": "slurm", "auto_export": {"enabled": True, "destinations": ["wandb"]}},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working directory, and no connection to anywhere."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"], **more}


def netrc(path: Path, key: str, host: str = "api.wandb.ai") -> Path:
    path.write_text(f"machine {host}\n  login user\n  password {key}\n")
    path.chmod(0o600)
    return path


def wandb_settings(home: Path, **settings: str) -> Path:
    path = home / ".config" / "wandb" / "settings"
    path.parent.mkdir(parents=True)
    path.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    return path


def dotenv(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / ".env"
    path.write_text(text)
    path.chmod(mode)
    return path


def sources(found: gathering.Credentials) -> dict[str, str]:
    return {variable.name: variable.source for variable in found.variables}


def missing(found: gathering.Credentials) -> dict[str, gathering.Missing]:
    return {one.name: one for one in found.missing}


# ---- .env ----


def test_dotenv_is_loaded_named_and_kept_literal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dotenv(home, f'# tokens\nHF_TOKEN={SECRET}$HOME${{PATH}}\n\nexport QUOTED=\'a "b" # c\'  # why\nEMPTY=\nTWO="x\\ny"\n')
    found = gathering.gather({}, home, environ(home))
    assert found.value("HF_TOKEN") == SECRET + "$HOME${PATH}"
    assert found.value("QUOTED") == 'a "b" # c'
    assert found.value("TWO") == "x\ny"
    assert sources(found) == {"HF_TOKEN": ".env", "QUOTED": ".env", "TWO": ".env"}
    found.announce()
    assert capsys.readouterr().err == "[info] Loaded .env: HF_TOKEN, QUOTED, TWO\n"


def test_the_environment_wins_over_dotenv_and_an_empty_value_is_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dotenv(home, "A=file\nB=file\n")
    found = gathering.gather({"env_vars": {"A": "host:A", "B": "host:B"}}, home, environ(home, A="shell", B=""))
    assert sources(found) == {"A": "environment", "B": ".env"}
    child = {"A": "shell", "B": ""}
    found.apply(child)
    assert child == {"A": "shell", "B": "file"}
    found.announce()
    assert "[info] Loaded .env: B (the environment's own value wins: A)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"A=1\n\n\n{SECRET}\n", 4),
        (f'A=1\nB = "{SECRET}\n', 2),
        (f"# c\nexport {SECRET}\n", 2),
        (f"A B={SECRET}\n", 1),
        (f"{SECRET}==\n", 1),
        (f"A={SECRET}\0\n", 1),
    ],
)
def test_a_malformed_line_of_dotenv_is_named_and_not_shown(home: Path, text: str, line: int) -> None:
    path = dotenv(home, text)
    with pytest.raises(BadInput) as caught:
        gathering.gather({}, home, environ(home))
    assert f"{files.shown(path)}:{line}: not NAME=value" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_dotenv_that_others_can_read_is_told(home: Path, mode: int, told: bool) -> None:
    dotenv(home, "A=1\n", mode)
    notices = gathering.gather({}, home, environ(home)).notices
    assert [("chmod 600 .env" in notice) for notice in notices] == [True] * told


def test_no_dotenv_a_folder_of_that_name_and_no_folder_at_all_are_nothing(home: Path) -> None:
    assert gathering.read_dotenv(home) == ({}, [])
    (home / ".env").mkdir()
    assert gathering.read_dotenv(home) == ({}, [])
    assert gathering.read_dotenv(None) == ({}, [])


# ---- the W&B key ----


def test_the_order_of_sources_is_environment_dotenv_netrc_settings(home: Path) -> None:
    settings = wandb_settings(home, api_key="d" * 40)
    assert gathering.gather({}, home, environ(home)).value("WANDB_API_KEY") == "d" * 40
    assert sources(gathering.gather({}, home, environ(home)))["WANDB_API_KEY"] == f"wandb settings ({settings})"
    path = netrc(home / ".netrc", "c" * 40)
    found = gathering.gather({}, home, environ(home))
    assert (found.value("WANDB_API_KEY"), sources(found)["WANDB_API_KEY"]) == ("c" * 40, f"netrc ({path})")
    dotenv(home, f"WANDB_API_KEY={'b' * 40}\n")
    found = gathering.gather({}, home, environ(home))
    assert (found.value("WANDB_API_KEY"), sources(found)["WANDB_API_KEY"]) == ("b" * 40, ".env")
    found = gathering.gather({}, home, environ(home, WANDB_API_KEY="a" * 40))
    assert (found.value("WANDB_API_KEY"), sources(found)["WANDB_API_KEY"]) == ("a" * 40, "environment")


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_each_place_of_a_netrc_file_is_read(home: Path, name: str) -> None:
    path = netrc(home / name, OLD_KEY)
    more = {"NETRC": str(path)} if name == "elsewhere" else {}
    assert sources(gathering.gather({}, None, environ(home, **more))) == {"WANDB_API_KEY": f"netrc ({path})"}


@pytest.mark.parametrize("key", [OLD_KEY, NEW_KEY, ON_PREM_KEY])
def test_old_and_new_keys_are_taken_from_the_environment_and_from_netrc(home: Path, key: str) -> None:
    assert not gathering.gather(EXPORT, None, environ(home, WANDB_API_KEY=key)).missing
    netrc(home / ".netrc", key)
    found = gathering.gather(EXPORT, None, environ(home))
    assert not found.missing
    assert found.value("WANDB_API_KEY") == key


@pytest.mark.parametrize("key", [SECRET, OLD_KEY + "\n", OLD_KEY[:-1], "é" * 3 + " " + OLD_KEY])
def test_an_ill_formed_key_is_told_where_an_export_needs_it_and_not_shown(home: Path, key: str) -> None:
    found = gathering.gather(EXPORT, None, environ(home, WANDB_API_KEY=key))
    assert "the one from environment is none (API key m" in missing(found)["WANDB_API_KEY"].mend
    assert found.value("WANDB_API_KEY") is None
    assert key not in repr(found.document({}))
    assert not gathering.gather({}, None, environ(home, WANDB_API_KEY=key)).missing


def test_an_ill_formed_key_in_netrc_is_told(home: Path) -> None:
    netrc(home / ".netrc", SECRET)
    mend = missing(gathering.gather(EXPORT, None, environ(home)))["WANDB_API_KEY"].mend
    assert "netrc" in mend
    assert "`wandb login --relogin`" in mend
    notices = gathering.gather({}, None, environ(home)).notices
    assert len(notices) == 1
    assert SECRET not in mend + notices[0]


def test_what_wandb_login_itself_writes_is_found(home: Path) -> None:
    """The real `wandb login`, which writes netrc; --no-verify, since it asks the server otherwise."""
    command = [sys.executable, "-m", "wandb", "login", "--no-verify", NEW_KEY]
    env = environ(home, HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    subprocess.run(command, env=env, cwd=home, check=True, capture_output=True, timeout=120)
    found = gathering.gather(EXPORT, None, environ(home))
    assert found.value("WANDB_API_KEY") == NEW_KEY
    assert sources(found)["WANDB_API_KEY"] == f"netrc ({home / '.netrc'})"


def test_a_self_hosted_server_has_its_own_login(home: Path) -> None:
    netrc(home / ".netrc", OLD_KEY)
    with (home / ".netrc").open("a") as handle:
        handle.write(f"machine wandb.example.com:8080\n  login user\n  password {ON_PREM_KEY}\n")
    url = "https://wandb.example.com:8080"
    assert gathering.gather(EXPORT, None, environ(home, WANDB_BASE_URL=url)).value("WANDB_API_KEY") == ON_PREM_KEY
    path = wandb_settings(home, base_url=url)
    found = gathering.gather(EXPORT, None, environ(home))
    assert found.value("WANDB_API_KEY") == ON_PREM_KEY
    # The job must talk to the same server, and has no settings file.
    assert found.value("WANDB_BASE_URL") == url
    assert sources(found)["WANDB_BASE_URL"] == f"wandb settings ({path})"
    other = gathering.gather(EXPORT, None, environ(home, WANDB_BASE_URL=f"https://me:{SECRET}@other.example.com"))
    assert "`wandb login --host=https://other.example.com`" in missing(other)["WANDB_API_KEY"].mend


@pytest.mark.parametrize("url", ["nonsense " + SECRET, "https://wandb.ai", "http://api.wandb.ai", "ftp://x"])
def test_a_server_address_that_wandb_refuses_is_bad_input(home: Path, url: str) -> None:
    with pytest.raises(BadInput, match="WANDB_BASE_URL") as caught:
        gathering.gather(EXPORT, None, environ(home, WANDB_BASE_URL=url))
    assert SECRET not in str(caught.value)


def test_files_that_wandb_cannot_read_are_told_by_name_and_line_alone(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wandb.errors.term._silent", False)  # another test of this process may have used the SDK silently
    (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password x {SECRET}\n")
    settings = wandb_settings(home, mode="online")
    settings.write_text(f"[default]\n{SECRET}\n")
    found = gathering.gather(EXPORT, None, environ(home))
    # Which line netrc's parser names, the bad one or the next, depends on the Python.
    told = [re.sub(r":[34]$", ":N", notice.split(": ")[0]) for notice in found.notices]
    assert told == [str(settings), f"{home / '.netrc'}:N"]
    assert SECRET not in "".join(found.notices)
    assert SECRET not in "".join(capfd.readouterr())


def test_nothing_of_the_process_is_changed(home: Path) -> None:
    netrc(home / ".netrc", OLD_KEY)
    before = dict(os.environ)
    given = environ(home, EMPTY="")
    as_given = copy.copy(given)
    found = gathering.gather(EXPORT, home, given)
    assert dict(os.environ) == before
    assert given == as_given
    found.apply(given)
    assert given == {**as_given, "WANDB_API_KEY": OLD_KEY, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "my-team"}


CHECK_PATHS = """
import os
from wandb.sdk import wandb_setup
from helpers.credentials import gathering as credentials
settings = wandb_setup.singleton().settings
assert [str(path) for path in credentials._settings_files()] == [settings.settings_system, settings.settings_workspace]
"""


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
@pytest.mark.parametrize("more", [{}, {"WANDB_CONFIG_DIR": "~/conf"}])
def test_the_settings_files_are_those_that_wandb_reads(home: Path, more: dict[str, str], folder: str) -> None:
    (home / folder).mkdir()
    env = environ(home, PYTHONPATH=str(files.ROOT), **more)
    subprocess.run([sys.executable, "-c", CHECK_PATHS], env=env, cwd=home, check=True, timeout=120)


SAME_KEY = """
import os
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth
from helpers.credentials import gathering as credentials
host = wandb_setup.singleton().settings.base_url
auth = wbauth.authenticate_session(host=host, source="test", prompt=False, update_session=False)
assert auth and credentials.gather({}, None, os.environ).value("WANDB_API_KEY") == auth.api_key
"""


@pytest.mark.parametrize("with_netrc", [False, True])
def test_the_key_is_the_one_that_wandb_itself_would_use(home: Path, with_netrc: bool) -> None:
    wandb_settings(home, api_key=OLD_KEY, base_url="https://wandb.example.com")
    if with_netrc:
        netrc(home / ".netrc", ON_PREM_KEY, "wandb.example.com")
    env = environ(home, PYTHONPATH=str(files.ROOT))
    subprocess.run([sys.executable, "-c", SAME_KEY], env=env, cwd=home, check=True, timeout=120)


IMPORTS_WANDB = """
import os, sys
from helpers.credentials import gathering as credentials
credentials.gather({}, None, os.environ)
print("wandb" in sys.modules)
"""


@pytest.mark.parametrize("with_login", [False, True])
def test_wandb_is_imported_only_where_there_is_something_to_read(home: Path, with_login: bool) -> None:
    if with_login:
        netrc(home / ".netrc", OLD_KEY)
    env = environ(home, PYTHONPATH=str(files.ROOT))
    done = subprocess.run([sys.executable, "-c", IMPORTS_WANDB], env=env, cwd=home, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{with_login}\n"
    assert done.stderr == ""


# ---- mode, project, entity, export ----


@pytest.mark.parametrize(("told", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_offline_and_disabled_need_no_key_but_the_exporter_still_needs_project_and_entity(home: Path, told: str, mode: str) -> None:
    netrc(home / ".netrc", OLD_KEY)
    found = gathering.gather(EXPORT, None, environ(home, WANDB_MODE=told))
    assert (found.mode, found.missing, found.value("WANDB_API_KEY")) == (mode, [], None)
    without = gathering.gather({**EXPORT, "run": {}}, None, environ(home, WANDB_MODE=told))
    assert set(missing(without)) == {"WANDB_PROJECT", "WANDB_ENTITY"}


def test_offline_by_wandbs_settings_is_handed_on(home: Path) -> None:
    path = wandb_settings(home, mode="offline")
    found = gathering.gather(EXPORT, None, environ(home))
    assert (found.mode, found.value("WANDB_MODE"), sources(found)["WANDB_MODE"]) == ("offline", "offline", f"wandb settings ({path})")
    assert gathering.gather(EXPORT, None, environ(home, WANDB_MODE="online")).mode == "online"


def test_an_unknown_mode_is_bad_input(home: Path) -> None:
    with pytest.raises(BadInput, match="WANDB_MODE from environment is none of online, offline, disabled"):
        gathering.gather({}, None, environ(home, WANDB_MODE="OFF"))


def test_project_and_entity_come_from_env_toml_where_the_environment_has_none(home: Path) -> None:
    found = gathering.gather(EXPORT, None, environ(home, WANDB_PROJECT="mine"))
    assert (found.value("WANDB_PROJECT"), found.value("WANDB_ENTITY")) == ("mine", "my-team")
    assert sources(found) == {"WANDB_PROJECT": "environment", "WANDB_ENTITY": "env.toml [wandb]"}
    config = {**EXPORT, "run": {"wandb": {"project": None, "entity": "???"}}, "export": {"wandb": {"project": "p", "entity": "e"}}}
    found = gathering.gather(config, None, environ(home))
    assert sources(found) == {"WANDB_PROJECT": "config export.wandb.project", "WANDB_ENTITY": "config export.wandb.entity"}


@pytest.mark.parametrize(
    ("auto_export", "asked"),
    [
        (None, False),
        ({}, False),
        ({"destinations": ["wandb"]}, True),
        ({"destinations": "wandb"}, True),
        ({"enabled": True, "destinations": ["local", "wandb"]}, True),
        ({"enabled": False, "destinations": ["wandb"]}, False),
        ({"destinations": ["mlflow"]}, False),
        (["wandb"], True),
    ],
)
def test_when_export_to_wandb_is_asked_for(auto_export: object, asked: bool) -> None:
    assert gathering.exports_to_wandb({"execution": {"auto_export": auto_export}}) is asked


def test_one_error_names_all_that_is_missing_and_the_mend(home: Path) -> None:
    config = {
        "execution": EXPORT["execution"],
        "evaluation": {"tasks": [{"name": "gpqa", "env_vars": {"TOKEN": "host:HF_TOKEN"}}]},
        "target": {"api_endpoint": {"api_key_name": "OPENAI_API_KEY"}},
    }
    found = gathering.gather(config, None, environ(home))
    with pytest.raises(BadInput) as caught:
        found.require()
    for part in (
        "WANDB_API_KEY (wanted by execution.auto_export): run `wandb login`",
        "WANDB_PROJECT",
        "WANDB_ENTITY",
        "[wandb] section of env.toml",
        'SET="execution.auto_export.enabled=false"',
        "HF_TOKEN (wanted by evaluation.tasks[0].env_vars.TOKEN): `export HF_TOKEN=…`, or a line HF_TOKEN=… in .env",
        "OPENAI_API_KEY (wanted by target.api_endpoint.api_key_name)",
    ):
        assert part in str(caught.value)
    config["execution"] = {"auto_export": {"enabled": False, "destinations": ["wandb"]}}
    found = gathering.gather(config, None, environ(home, HF_TOKEN="x", OPENAI_API_KEY="y"))
    found.require()


def test_an_identity_token_replaces_the_key_on_this_machine_only(home: Path) -> None:
    netrc(home / ".netrc", OLD_KEY)
    here = {**EXPORT, "execution": {**EXPORT["execution"], "type": "process"}}
    found = gathering.gather(here, None, environ(home, WANDB_IDENTITY_TOKEN_FILE="/t"))
    assert (found.missing, found.value("WANDB_API_KEY")) == ([], None)
    found = gathering.gather(EXPORT, None, environ(home, WANDB_IDENTITY_TOKEN_FILE="/t"))
    assert "names a file of this machine" in missing(found)["WANDB_API_KEY"].mend
    found = gathering.gather(here, None, environ(home, WANDB_IDENTITY_TOKEN_FILE="/t", WANDB_API_KEY=OLD_KEY))
    assert "unset one of the two" in missing(found)["WANDB_API_KEY"].mend


# ---- what the config wants ----


def test_every_env_vars_section_is_searched() -> None:
    config: dict[str, Any] = {
        "env_vars": {"A": "host:TOP", "L": "lit:host:NO", "R": "runtime:NO", "N": None},
        "deployment": {"env_vars": {"B": "host:DEPLOY"}},
        "auxiliary_deployments": {"judge": {"env_vars": {"J": "host:JUDGE"}}},
        "evaluation": {"env_vars": {"C": "host:EVAL"}, "tasks": [{"name": "t"}, {"name": "u", "env_vars": {"D": "host:TOP"}}]},
        "export": {"env_vars": {"E": "host:EXPORT"}},
        "execution": {"auto_export": {"destinations": ["wandb"], "env_vars": {"F": "host:AUTO"}}},
    }
    assert gathering.wanted_variables(config) == {
        "TOP": ["env_vars.A", "evaluation.tasks[1].env_vars.D"],
        "DEPLOY": ["deployment.env_vars.B"],
        "JUDGE": ["auxiliary_deployments.judge.env_vars.J"],
        "EVAL": ["evaluation.env_vars.C"],
        "EXPORT": ["export.env_vars.E"],
        "AUTO": ["execution.auto_export.env_vars.F"],
    }
    config["execution"] = {"auto_export": {"enabled": False, "destinations": ["wandb"], "env_vars": {"F": "host:AUTO"}}}
    assert not {"EXPORT", "AUTO"} & set(gathering.wanted_variables(config))


def test_api_keys_are_wanted_unless_env_vars_provide_them_under_that_name() -> None:
    inner = {"nemo_evaluator_config": {"target": {"api_endpoint": {"api_key_name": "TASK_KEY"}}}}
    config: dict[str, Any] = {
        "target": {"api_endpoint": {"api_key_name": "API_KEY"}},
        "evaluation": {
            "nemo_evaluator_config": {"target": {"api_endpoint": {"api_key_name": "EVAL_KEY"}}},
            "env_vars": {"EVAL_KEY": "host:MINE"},
            "tasks": [{"name": "t", "env_vars": {"API_KEY": "host:NGC"}}, {"name": "u", **inner}],
        },
    }
    assert gathering.wanted_variables(config) == {
        "MINE": ["evaluation.env_vars.EVAL_KEY"],
        "NGC": ["evaluation.tasks[0].env_vars.API_KEY"],
        "API_KEY": ["target.api_endpoint.api_key_name"],
        "TASK_KEY": ["evaluation.tasks[1].nemo_evaluator_config.target.api_endpoint.api_key_name"],
    }
    config["evaluation"]["tasks"] = []
    assert "API_KEY" in gathering.wanted_variables(config)


@pytest.mark.parametrize("config", [{"env_vars": {"A": f"host:{SECRET}"}}, {"target": {"api_endpoint": {"api_key_name": SECRET}}}])
def test_a_secret_in_the_place_of_a_name_is_refused_and_not_shown(config: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="the name of a variable") as caught:
        gathering.wanted_variables(config)
    assert SECRET not in str(caught.value)


# ---- nothing shows a value ----


def test_no_text_form_shows_a_value_and_the_document_fits_its_schema(home: Path, tmp_path: Path) -> None:
    dotenv(home, f"HF_TOKEN={SECRET}\n")
    netrc(home / ".netrc", NEW_KEY)
    found = gathering.gather(EXPORT | {"env_vars": {"A": "host:API"}}, home, environ(home, API=SECRET + "2"))
    out = tmp_path / "credentials.json"
    files.write_json(out, found.document({"config.yaml": files.sha256_bytes(b"")}), "credentials")
    everything = repr(found) + str(found) + json.dumps(found.document({})) + out.read_text()
    for secret in (SECRET, NEW_KEY):
        assert secret not in everything
    written = files.read_json(out, "credentials")
    where = {"server": "https://api.wandb.ai", "entity": "my-team", "project": "nemotron"}
    assert written["wandb"] == {"mode": "online", "export": True, **where}
    assert {"name": "HF_TOKEN", "source": ".env", "wanted_by": []} in written["variables"]
    assert {"name": "API", "source": "environment", "wanted_by": ["env_vars.A"]} in written["variables"]


def test_the_seeds_own_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netrc(home / ".netrc", OLD_KEY)
    gathering.gather(EXPORT, None, environ(home)).announce()
    assert capsys.readouterr().err == "[info] Detected W&B login, setting WANDB_API_KEY\n"


def test_what_a_run_recorded_before_there_were_exports_is_still_read(tmp_path: Path) -> None:
    document = {"made_by": "wandb_env.py", "made_from": {}, "variables": [], "missing": [], "wandb": {"mode": "offline", "export": False}}
    files.write_json(tmp_path / "credentials.json", document, "credentials")
    assert gathering.recorded(tmp_path / "config.yaml") == {"mode": "offline", "export": False}
