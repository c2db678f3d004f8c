"""images/registry.py: answers of a double of registries, with the credentials of `docker login`."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from helpers.images import references
from helpers.images import registry as asking
from registry_double import DOCKER_LIST, INDEX, RegistryDouble, digest_of, index_of

USER, PASSWORD = "reader", "s3cret"


def ask(double: RegistryDouble, name: str = "team/model:1") -> asking.Reply:
    return asking.ask([references.parse(f"{double.address}/{name}")])[0]


def log_in(home: Path, host: str, password: str = PASSWORD, **more: object) -> None:
    """Write what `docker login` writes."""
    (home / ".docker").mkdir(exist_ok=True)
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}, **more}))


def test_a_digest_is_asked_for_with_head_which_is_not_a_pull(registry: RegistryDouble) -> None:
    digest = registry.put("team/model", "1")
    answer = ask(registry)
    assert (answer.status, answer.digest, answer.index, answer.here) == (200, digest, None, True)
    assert [call.method for call in registry.calls] == ["HEAD"]


@pytest.mark.parametrize("type_", [INDEX, DOCKER_LIST])
def test_an_index_is_fetched_with_its_digest(registry: RegistryDouble, type_: str) -> None:
    body = index_of("linux/amd64", "linux/arm64", "unknown/unknown")
    registry.put("team/model", "1", body, type_)
    answer = ask(registry)
    assert answer.type == type_
    assert answer.digest == digest_of(body)
    assert references.pick(answer.index or "", "linux/arm64") == (digest_of(b"linux/arm64"), ["linux/amd64", "linux/arm64"])


def test_a_registry_that_sends_no_digest_is_hashed(registry: RegistryDouble) -> None:
    registry.rule("localhost", tells_digest=False)
    assert registry.put("team/model", "1") == ask(registry).digest


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_an_error_status_is_passed_on(registry: RegistryDouble, status: int) -> None:
    registry.rule("localhost", fails={"HEAD": status, "GET": status})
    registry.put("team/model", "1")
    assert (ask(registry).status, ask(registry).digest) == (status, "")


def test_basic_is_answered_with_what_docker_login_stored(registry: RegistryDouble, tmp_path: Path) -> None:
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    assert ask(registry).status == 401
    log_in(tmp_path / "home", registry.address, "wrong")
    assert ask(registry).status == 401
    log_in(tmp_path / "home", registry.address)
    assert ask(registry).digest == digest
    log_in(tmp_path / "home", f"https://{registry.address}")  # as older Docker wrote it
    assert ask(registry).digest == digest


def test_the_host_that_the_registry_names_gives_the_token(registry: RegistryDouble, tmp_path: Path) -> None:
    registry.rule("localhost", auth="Bearer", realm=f"https://127.0.0.1:{registry.port}/token", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    assert ask(registry).status == 401
    log_in(tmp_path / "home", registry.address)
    registry.calls.clear()
    assert ask(registry).digest == digest
    assert [(call.method, call.host, call.user, call.token) for call in registry.calls] == [
        ("HEAD", "localhost", "", ""),
        ("GET", "127.0.0.1", USER, ""),
        ("HEAD", "localhost", "", f"token-of-{USER}"),
    ]


def test_an_anonymous_token_is_enough_for_public_images(registry: RegistryDouble) -> None:
    registry.rule("localhost", auth="Bearer", realm=f"https://127.0.0.1:{registry.port}/token", anonymous=True)
    assert registry.put("team/model", "1") == ask(registry).digest


def test_no_password_goes_to_a_realm_without_tls(registry: RegistryDouble, tmp_path: Path) -> None:
    registry.rule("localhost", auth="Bearer", realm=f"http://127.0.0.1:{registry.port}/token", accounts={USER: PASSWORD})
    log_in(tmp_path / "home", registry.address)
    assert ask(registry).status == 401
    assert {call.host for call in registry.calls} == {"localhost"}


@pytest.mark.parametrize("auth", ["Basic", "Bearer"])
def test_a_redirect_is_followed_and_no_credentials_go_with_it(registry: RegistryDouble, tmp_path: Path, auth: str) -> None:
    rule = registry.rule("localhost", auth=auth, accounts={USER: PASSWORD}, realm=f"https://localhost:{registry.port}/token")
    digest = registry.put("team/model", "1")
    log_in(tmp_path / "home", registry.address)
    rule.redirect = f"https://127.0.0.1:{registry.port}"
    assert ask(registry).digest == digest
    moved = [call for call in registry.calls if call.host == "127.0.0.1"]
    assert moved
    assert {(call.user, call.token) for call in moved} == {("", "")}


def helper(bin_: Path, name: str, body: str) -> None:
    bin_.mkdir(exist_ok=True)
    (bin_ / f"docker-credential-{name}").write_text(f"#!/bin/bash\n{body}\n")
    (bin_ / f"docker-credential-{name}").chmod(0o755)


@pytest.mark.parametrize("named", ["credHelpers", "credsStore"])
def test_a_credential_helper_is_asked(registry: RegistryDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Its protocol: `get`, the server's name on stdin, JSON on stdout."""
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    secret = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    helper(tmp_path / "bin", "double", f"read -r host; [ \"$1 $host\" = 'get {registry.address}' ] || exit 1; echo '{secret}'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "home/.docker").mkdir()
    config = {"credHelpers": {registry.address: "double"}} if named == "credHelpers" else {"credsStore": "double"}
    (tmp_path / "home/.docker/config.json").write_text(json.dumps(config))
    assert ask(registry).digest == digest


@pytest.mark.parametrize("body", ["exit 1", "echo 'credentials not found'", "echo '{}'", None])
@pytest.mark.parametrize("config", [{"credsStore": "double"}, None])
def test_without_usable_credentials_the_request_is_anonymous(
    registry: RegistryDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, config: dict[str, str] | None
) -> None:
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    if body:
        helper(tmp_path / "bin", "double", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "home/.docker").mkdir()
    (tmp_path / "home/.docker/config.json").write_text(json.dumps(config) if config else '{"auths": ')
    assert ask(registry).status == 401


def test_docker_config_names_another_folder(registry: RegistryDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    log_in(tmp_path, registry.address)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    assert ask(registry).digest == digest


def test_the_hub_s_credentials_are_found_under_docker_s_name_for_it(registry: RegistryDouble, tmp_path: Path) -> None:
    log_in(tmp_path / "home", "https://index.docker.io/v1/")
    for host in (references.HUB, references.HUB_REGISTRY):
        assert asking._stored(host) == base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert asking._stored("other.example") is None


def test_all_are_asked_at_once(registry: RegistryDouble) -> None:
    registry.rule("localhost", seconds=0.3)
    digests = [registry.put("team/model", str(number)) for number in range(8)]
    began = time.monotonic()
    answers = asking.ask([references.parse(f"{registry.address}/team/model:{number}") for number in range(8)])
    assert time.monotonic() - began < 1.2  # one after another: 2.4 s
    assert [answer.digest for answer in answers] == digests


def test_no_answer_is_status_0_with_the_reason(registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asking.ask([references.parse("localhost:9/team/model:1")])[0]
    assert answer.status == 0
    assert "refused" in answer.words
    monkeypatch.delenv("SSL_CERT_FILE")
    stranger = ask(registry)
    assert stranger.status == 0
    assert "certificate verify failed" in stranger.words
    assert asking.ask([]) == []
