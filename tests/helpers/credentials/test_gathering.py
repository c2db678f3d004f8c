"""credentials/gathering.py: the sources and their order, W&B's login as wandb reads it, what is missing, and that no value is shown."""

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


def gather(config: dict[str, Any], folder: Path | None, environ: dict[str, str], **more: Any) -> gathering.Credentials:
    return gathering.gather(config, folder, environ, **{"reads_local_files": False, **more})


def sources(found: gathering.Credentials) -> dict[str, str]:
    return {variable.name: variable.source for variable in found.variables}


def missing(found: gathering.Credentials) -> dict[str, gathering.Missing]:
    return {one.name: one for one in found.missing}


# ---- .env ----


def test_dotenv_is_loaded_named_and_kept_literal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dotenv(home, f'# tokens\nHF_TOKEN={SECRET}$HOME${{PATH}}\n\nexport QUOTED=\'a "b" # c\'  # why\nEMPTY=\nTWO="x\\ny"\n')
    found = gather({}, home, environ(home))
    assert found.value("HF_TOKEN") == SECRET + "$HOME${PATH}"
    assert found.value("QUOTED") == 'a "b" # c'
    assert found.value("TWO") == "x\ny"
    assert sources(found) == {"HF_TOKEN": ".env", "QUOTED": ".env", "TWO": ".env"}
    found.announce()
    assert capsys.readouterr().err == "[info] Loaded .env: HF_TOKEN, QUOTED, TWO\n"


def test_the_environment_wins_over_dotenv_and_an_empty_value_is_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dotenv(home, "A=file\nB=file\n")
    found = gather({"env_vars": {"A": "host:A", "B": "host:B"}}, home, environ(home, A="shell", B=""))
    assert sources(found) == {"A": "environment", "B": ".env"}
    child = {"A": "shell", "B": ""}
    found.apply(child)
    assert child == {"A": "shell", "B": "file"}
    found.announce()
    assert "[info] Loaded .env: B (the environment's own value wins: A)" in capsys.readouterr().err


# ---- the W&B key ----


def test_the_order_of_sources_is_environment_dotenv_netrc_settings(home: Path) -> None:
    settings = wandb_settings(home, api_key="d" * 40)
    assert gather({}, home, environ(home)).value("WANDB_API_KEY") == "d" * 40
    assert sources(gather({}, home, environ(home)))["WANDB_API_KEY"] == f"wandb settings ({settings})"
    path = netrc(home / ".netrc", "c" * 40)
    found = gather({}, home, environ(home))
    assert (found.value("WANDB_API_KEY"), sources(found)["WANDB_API_KEY"]) == ("c" * 40, f"netrc ({path})")
    dotenv(home, f"WANDB_API_KEY={'b' * 40}\n")
    found = gather({}, home, environ(home))
    assert (found.value("WANDB_API_KEY"), sources(found)["WANDB_API_KEY"]) == ("b" * 40, ".env")
    found = gather({}, home, environ(home, WANDB_API_KEY="a" * 40))
    assert (found.value("WANDB_API_KEY"), sources(found)["WANDB_API_KEY"]) == ("a" * 40, "environment")


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_each_place_of_a_netrc_file_is_read(home: Path, name: str) -> None:
    path = netrc(home / name, OLD_KEY)
    more = {"NETRC": str(path)} if name == "elsewhere" else {}
    assert sources(gather({}, None, environ(home, **more))) == {"WANDB_API_KEY": f"netrc ({path})"}


@pytest.mark.parametrize("key", [OLD_KEY, NEW_KEY, ON_PREM_KEY])
def test_old_and_new_keys_are_taken_from_the_environment_and_from_netrc(home: Path, key: str) -> None:
    assert not gather(EXPORT, None, environ(home, WANDB_API_KEY=key)).missing
    netrc(home / ".netrc", key)
    found = gather(EXPORT, None, environ(home))
    assert not found.missing
    assert found.value("WANDB_API_KEY") == key


@pytest.mark.parametrize("key", [SECRET, OLD_KEY + "\n", OLD_KEY[:-1], "é" * 3 + " " + OLD_KEY])
def test_an_invalid_key_is_an_error_only_for_an_export_and_not_shown(home: Path, key: str) -> None:
    found = gather(EXPORT, None, environ(home, WANDB_API_KEY=key))
    assert "the key from environment is invalid (API key m" in missing(found)["WANDB_API_KEY"].fix
    assert found.value("WANDB_API_KEY") is None
    assert key not in repr(found.document({}))
    assert not gather({}, None, environ(home, WANDB_API_KEY=key)).missing


def test_an_invalid_key_in_netrc_is_reported(home: Path) -> None:
    netrc(home / ".netrc", SECRET)
    fix = missing(gather(EXPORT, None, environ(home)))["WANDB_API_KEY"].fix
    assert "netrc" in fix
    assert "`wandb login --relogin`" in fix
    notices = gather({}, None, environ(home)).notices
    assert len(notices) == 1
    assert SECRET not in fix + notices[0]


@pytest.mark.slow
def test_what_wandb_login_itself_writes_is_found(home: Path) -> None:
    """The real `wandb login`, which writes netrc; --no-verify, since it asks the server otherwise."""
    command = [sys.executable, "-m", "wandb", "login", "--no-verify", NEW_KEY]
    env = environ(home, HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    subprocess.run(command, env=env, cwd=home, check=True, capture_output=True, timeout=120)
    found = gather(EXPORT, None, environ(home))
    assert found.value("WANDB_API_KEY") == NEW_KEY
    assert sources(found)["WANDB_API_KEY"] == f"netrc ({home / '.netrc'})"


def test_a_self_hosted_server_has_its_own_login(home: Path) -> None:
    netrc(home / ".netrc", OLD_KEY)
    with (home / ".netrc").open("a") as handle:
        handle.write(f"machine wandb.example.com:8080\n  login user\n  password {ON_PREM_KEY}\n")
    url = "https://wandb.example.com:8080"
    assert gather(EXPORT, None, environ(home, WANDB_BASE_URL=url)).value("WANDB_API_KEY") == ON_PREM_KEY
    path = wandb_settings(home, base_url=url)
    found = gather(EXPORT, None, environ(home))
    assert found.value("WANDB_API_KEY") == ON_PREM_KEY
    # The job must talk to the same server, and has no settings file.
    assert found.value("WANDB_BASE_URL") == url
    assert sources(found)["WANDB_BASE_URL"] == f"wandb settings ({path})"
    other = gather(EXPORT, None, environ(home, WANDB_BASE_URL=f"https://me:{SECRET}@other.example.com"))
    assert "`wandb login --host=https://other.example.com`" in missing(other)["WANDB_API_KEY"].fix


@pytest.mark.parametrize("url", ["nonsense " + SECRET, "https://wandb.ai", "http://api.wandb.ai", "ftp://x"])
def test_a_server_address_that_wandb_refuses_is_bad_input(home: Path, url: str) -> None:
    with pytest.raises(BadInput, match="WANDB_BASE_URL") as caught:
        gather(EXPORT, None, environ(home, WANDB_BASE_URL=url))
    assert SECRET not in str(caught.value)


def test_files_that_wandb_cannot_read_are_named_with_the_line_and_not_quoted(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wandb.errors.term._silent", False)  # another test of this process may have used the SDK silently
    (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password x {SECRET}\n")
    settings = wandb_settings(home, mode="online")
    settings.write_text(f"[default]\n{SECRET}\n")
    found = gather(EXPORT, None, environ(home))
    # Which line netrc's parser names, the bad one or the next, depends on the Python.
    places = [re.sub(r":[34]$", ":N", notice.split(": ")[0]) for notice in found.notices]
    assert places == [str(settings), f"{home / '.netrc'}:N"]
    assert SECRET not in "".join(found.notices)
    assert SECRET not in "".join(capfd.readouterr())


def test_nothing_of_the_process_is_changed(home: Path) -> None:
    netrc(home / ".netrc", OLD_KEY)
    before = dict(os.environ)
    given = environ(home, EMPTY="")
    as_given = copy.copy(given)
    found = gather(EXPORT, home, given)
    assert dict(os.environ) == before
    assert given == as_given
    found.apply(given)
    assert given == {**as_given, "WANDB_API_KEY": OLD_KEY, "WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "my-team"}


SAME_KEY = """
import os
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth
from helpers.credentials import gathering as credentials
host = wandb_setup.singleton().settings.base_url
auth = wbauth.authenticate_session(host=host, source="test", prompt=False, update_session=False)
assert auth and credentials.gather({}, None, os.environ, reads_local_files=True).value("WANDB_API_KEY") == auth.api_key
"""


@pytest.mark.slow
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
credentials.gather({}, None, os.environ, reads_local_files=True)
print("wandb" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("with_login", [False, True])
def test_wandb_is_imported_only_where_there_is_something_to_read(home: Path, with_login: bool) -> None:
    if with_login:
        netrc(home / ".netrc", OLD_KEY)
    env = environ(home, PYTHONPATH=str(files.ROOT))
    done = subprocess.run([sys.executable, "-c", IMPORTS_WANDB], env=env, cwd=home, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{with_login}\n"
    assert done.stderr == ""


# ---- mode, project, entity, export ----


@pytest.mark.parametrize(("given", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_offline_and_disabled_need_no_key_but_the_exporter_still_needs_project_and_entity(home: Path, given: str, mode: str) -> None:
    netrc(home / ".netrc", OLD_KEY)
    found = gather(EXPORT, None, environ(home, WANDB_MODE=given))
    assert (found.mode, found.missing, found.value("WANDB_API_KEY")) == (mode, [], None)
    without = gather({**EXPORT, "run": {}}, None, environ(home, WANDB_MODE=given))
    assert set(missing(without)) == {"WANDB_PROJECT", "WANDB_ENTITY"}


def test_offline_in_wandbs_settings_is_passed_on(home: Path) -> None:
    path = wandb_settings(home, mode="offline")
    found = gather(EXPORT, None, environ(home))
    assert (found.mode, found.value("WANDB_MODE"), sources(found)["WANDB_MODE"]) == ("offline", "offline", f"wandb settings ({path})")
    assert gather(EXPORT, None, environ(home, WANDB_MODE="online")).mode == "online"


def test_an_unknown_mode_is_bad_input(home: Path) -> None:
    with pytest.raises(BadInput, match="WANDB_MODE from environment: expected online, offline or disabled"):
        gather({}, None, environ(home, WANDB_MODE="OFF"))


def test_project_and_entity_come_from_env_toml_where_the_environment_has_none(home: Path) -> None:
    found = gather(EXPORT, None, environ(home, WANDB_PROJECT="mine"))
    assert (found.value("WANDB_PROJECT"), found.value("WANDB_ENTITY")) == ("mine", "my-team")
    assert sources(found) == {"WANDB_PROJECT": "environment", "WANDB_ENTITY": "env.toml [wandb]"}
    config = {**EXPORT, "run": {"wandb": {"project": None, "entity": "???"}}, "export": {"wandb": {"project": "p", "entity": "e"}}}
    found = gather(config, None, environ(home))
    assert sources(found) == {"WANDB_PROJECT": "config export.wandb.project", "WANDB_ENTITY": "config export.wandb.entity"}


def test_one_error_lists_everything_missing_with_the_fixes(home: Path) -> None:
    config = {
        "execution": EXPORT["execution"],
        "evaluation": {"tasks": [{"name": "gpqa", "env_vars": {"TOKEN": "host:HF_TOKEN"}}]},
        "target": {"api_endpoint": {"api_key_name": "OPENAI_API_KEY"}},
    }
    found = gather(config, None, environ(home))
    with pytest.raises(BadInput) as caught:
        found.require()
    for part in (
        "WANDB_API_KEY (needed by execution.auto_export): run `wandb login`",
        "WANDB_PROJECT",
        "WANDB_ENTITY",
        "[wandb] section of env.toml",
        'SET="execution.auto_export.enabled=false"',
        "HF_TOKEN (needed by evaluation.tasks[0].env_vars.TOKEN): `export HF_TOKEN=…`, or a line HF_TOKEN=… in .env",
        "OPENAI_API_KEY (needed by target.api_endpoint.api_key_name)",
    ):
        assert part in str(caught.value)
    config["execution"] = {"auto_export": {"enabled": False, "destinations": ["wandb"]}}
    found = gather(config, None, environ(home, HF_TOKEN="x", OPENAI_API_KEY="y"))
    found.require()


def test_an_identity_token_replaces_the_key_where_a_job_can_read_its_file(home: Path) -> None:
    netrc(home / ".netrc", OLD_KEY)
    found = gather(EXPORT, None, environ(home, WANDB_IDENTITY_TOKEN_FILE="/t"), reads_local_files=True)
    assert (found.missing, found.value("WANDB_API_KEY")) == ([], None)
    found = gather(EXPORT, None, environ(home, WANDB_IDENTITY_TOKEN_FILE="/t"))
    assert "names a file of this machine" in missing(found)["WANDB_API_KEY"].fix
    given = environ(home, WANDB_IDENTITY_TOKEN_FILE="/t", WANDB_API_KEY=OLD_KEY)
    found = gather(EXPORT, None, given, reads_local_files=True)
    assert "unset one of the two" in missing(found)["WANDB_API_KEY"].fix


# ---- nothing shows a value ----


def test_no_text_shows_a_value_and_the_document_fits_its_schema(home: Path, tmp_path: Path) -> None:
    dotenv(home, f"HF_TOKEN={SECRET}\n")
    netrc(home / ".netrc", NEW_KEY)
    found = gather(EXPORT | {"env_vars": {"A": "host:API"}}, home, environ(home, API=SECRET + "2"))
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


def test_the_sentence_about_a_detected_login(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netrc(home / ".netrc", OLD_KEY)
    gather(EXPORT, None, environ(home)).announce()
    assert capsys.readouterr().err == "[info] Detected W&B login, setting WANDB_API_KEY\n"


def test_the_file_of_a_run_from_before_there_were_exports_is_still_read(tmp_path: Path) -> None:
    document = {"made_by": "wandb_env.py", "made_from": {}, "variables": [], "missing": [], "wandb": {"mode": "offline", "export": False}}
    files.write_json(tmp_path / "credentials.json", document, "credentials")
    assert gathering.recorded(tmp_path / "config.yaml") == {"mode": "offline", "export": False}
