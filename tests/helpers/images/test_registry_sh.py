"""helpers/images/registry.sh, and registry.py where the cluster cannot ask: digests from a double of registries."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import ROOT
from image_cache import HOST, MODEL, PASSWORD, USER, ask, ask_all, credentials, log_in_here
from registry_double import INDEX, RegistryDouble, digest_of, index_of
from slurm_double import SlurmDouble

pytestmark = pytest.mark.slow  # each test starts several bash scripts, and together they take half a minute

AMD, ARM = digest_of(b"linux/amd64"), digest_of(b"linux/arm64")


# ---- Letting in --------------------------------------------------------------------------------------------------------------------------


def test_one_manifest_is_one_head_and_no_pull(registry: RegistryDouble, job_dir: Path) -> None:
    digest = registry.put("team/model", "1")
    assert ask(job_dir).digest == digest
    assert [call.method for call in registry.calls] == ["HEAD"]


def test_a_token_is_asked_of_another_host_with_that_host_s_line(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    registry.rule(auth="Bearer", realm="https://tokens.example/token", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    credentials(tmp_path, HOST, "tokens.example")
    one = ask(job_dir)
    assert (one.digest, one.trouble) == (digest, "")
    assert [(call.host, call.user, call.token) for call in registry.calls] == [
        (HOST, "", ""),
        ("tokens.example", USER, ""),
        (HOST, "", f"token-of-{USER}"),
    ]


def test_a_token_for_nobody_is_enough_where_anybody_may_read(registry: RegistryDouble, job_dir: Path) -> None:
    registry.rule(auth="Bearer", realm="https://tokens.example/token", anonymous=True)
    assert registry.put("team/model", "1") == ask(job_dir).digest


def test_basic_is_answered_with_the_registry_s_line(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    registry.rule(auth="Basic", accounts={USER: PASSWORD})
    digest = registry.put("team/model", "1")
    credentials(tmp_path, HOST)
    assert ask(job_dir).digest == digest


BEARER = {"auth": "Bearer", "realm": "https://tokens.example/token"}


@pytest.mark.parametrize(
    ("rule", "lines", "fix"),
    [
        ({"auth": "Basic"}, [], f"add the line `machine {HOST} login … password …` to "),
        ({"auth": "Basic"}, [HOST], "refuses the credentials in ~/.config/enroot/.credentials there: renew them"),
        (BEARER, [], f"`machine {HOST} login … password …` and `machine tokens.example login … password …`"),
        (BEARER, [HOST], "add the line `machine tokens.example login … password …` to"),
        (BEARER, ["tokens.example"], f"add the line `machine {HOST} login … password …` to"),
        (BEARER, [HOST, "tokens.example"], "refuses the credentials in ~/.config/enroot/.credentials there: renew them"),
    ],
)
def test_who_is_not_let_in_is_told_which_lines_are_missing(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path, rule: dict[str, str], lines: list[str], fix: str
) -> None:
    registry.rule(**rule, accounts={USER: PASSWORD})
    registry.put("team/model", "1")
    credentials(tmp_path, *lines, password="wrong")
    one = ask(job_dir)
    assert f"{HOST} refuses {MODEL} (401)" in one.fatal
    assert fix in one.fatal
    assert "wrong" not in one.fatal


@pytest.mark.parametrize(
    ("lines", "named", "fix"),
    [
        ([], ["nvcr.io", "authn.nvidia.com"], "add the line"),
        (["nvcr.io"], ["authn.nvidia.com"], "add the line"),
        (["authn.nvidia.com"], ["nvcr.io"], "add the line"),
        (["nvcr.io", "authn.nvidia.com"], [], "refuses the credentials in ~/.config/enroot/.credentials there: renew them"),
    ],
)
def test_nvcr_io_needs_the_lines_of_two_hosts(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path, lines: list[str], named: list[str], fix: str
) -> None:
    """It gives tokens itself, at /proxy_auth, which sends on to authn.nvidia.com."""
    registry.rule("nvcr.io", auth="Bearer", realm="https://nvcr.io/proxy_auth", accounts={USER: PASSWORD})
    credentials(tmp_path, *lines, password="stale")
    fatal = ask(job_dir, "nvcr.io/nvidia/nemo:25.11").fatal
    assert fix in fatal
    for host in ("nvcr.io", "authn.nvidia.com"):
        assert (f"`machine {host} login" in fatal) == (host in named)


def test_a_login_that_begins_with_a_dollar_is_no_command(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    """nvcr.io's login is `$oauthtoken`, to the letter."""
    registry.rule("nvcr.io", auth="Bearer", realm="https://nvcr.io/proxy_auth", accounts={"$oauthtoken": PASSWORD})
    path = credentials(tmp_path, "nvcr.io", "authn.nvidia.com", password="stale")
    path.write_text(path.read_text().replace(USER, "$oauthtoken"))
    digest = registry.put("nvidia/nemo", "25.11")
    assert "renew them" in ask(job_dir, "nvcr.io/nvidia/nemo:25.11").fatal
    path.write_text(path.read_text().replace("stale", PASSWORD))
    assert ask(job_dir, "nvcr.io/nvidia/nemo:25.11").digest == digest


def test_the_hub_s_tokens_come_from_auth_docker_io(registry: RegistryDouble, job_dir: Path, tmp_path: Path) -> None:
    registry.rule("registry-1.docker.io", auth="Bearer", realm="https://auth.docker.io/token", accounts={USER: PASSWORD})
    digest = registry.put("library/python", "3.12")
    credentials(tmp_path, "registry-1.docker.io", "auth.docker.io")
    assert ask(job_dir, "python:3.12").digest == digest


def test_a_password_that_enroot_makes_by_a_command_is_not_taken_for_a_wrong_one(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path
) -> None:
    """enroot's documentation has `password $(aws ecr get-login-password)`: enroot runs it, curl does not."""
    registry.rule(auth="Basic", accounts={USER: PASSWORD})
    registry.put("team/model", "1")
    credentials(tmp_path, HOST, password=f"$(echo {PASSWORD})")
    one = ask(job_dir)
    assert one.fatal == ""
    assert "comes from a command" in one.trouble


@pytest.mark.parametrize(
    ("status", "said", "is_final"),
    [
        (403, f"{HOST} refuses {MODEL} (403)", True),
        (404, f"{HOST} has no {MODEL} (404): check the name and the tag", True),
        (429, "(429, its rate limit): wait, or log in with a line in ~/.config/enroot/.credentials", False),
        (500, f"{HOST} answers 500 for {MODEL}", False),
        (503, f"{HOST} answers 503 for {MODEL}", False),
    ],
)
def test_what_a_registry_answers_is_reported_and_only_a_no_is_final(
    registry: RegistryDouble, job_dir: Path, status: int, said: str, is_final: bool
) -> None:
    registry.rule(fails={"HEAD": status, "GET": status})
    registry.put("team/model", "1")
    one = ask(job_dir)
    assert said in one.trouble
    assert one.fatal == (one.trouble if is_final else "")
    assert one.digest is None


def test_a_redirect_is_followed_and_no_token_goes_with_it(registry: RegistryDouble, job_dir: Path) -> None:
    registry.rule(**BEARER, anonymous=True, redirect="https://authn.nvidia.com")
    digest = registry.put("team/model", "1")
    assert ask(job_dir).digest == digest
    moved = [call for call in registry.calls if call.host == "authn.nvidia.com"]
    assert [(call.method, call.token) for call in moved] == [("HEAD", "")]


@pytest.mark.parametrize("platforms", [(), ("linux/amd64",)])
def test_a_registry_that_sends_no_digest_is_hashed(registry: RegistryDouble, job_dir: Path, platforms: tuple[str, ...]) -> None:
    registry.rule(tells_digest=False)
    digest = registry.put("team/model", "1", *((index_of(*platforms), INDEX) if platforms else ()))
    one = ask(job_dir)
    assert (one.index, one.digest) == (digest, AMD if platforms else digest)


def test_all_are_asked_at_once(registry: RegistryDouble, job_dir: Path) -> None:
    def seconds(count: int) -> float:
        began = time.monotonic()
        found = ask_all(job_dir, *(f"{HOST}/team/model:{number}" for number in range(count)))[1]
        assert all(one.digest for one in found)
        return time.monotonic() - began

    registry.rule(seconds=0.3)
    for number in range(8):
        registry.put("team/model", str(number))
    one, eight = seconds(1), seconds(8)
    assert eight < one + 0.9  # one after another: 2.1 s more


# ---- Asked from here ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_curl(tmp_path: Path, slurm: SlurmDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node without curl: every other program is there."""
    folder = tmp_path / "no-curl"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for path in Path(place).iterdir() if Path(place).is_dir() else ():
            if path.name != "curl" and not (folder / path.name).is_symlink():
                (folder / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def unreached(registry: RegistryDouble, tmp_path: Path) -> Iterator[None]:
    """A login node from which no registry answers: curl says 000."""
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        (tmp_path / "home/.curlrc").write_text(registry.curlrc(held.getsockname()[1]))
        yield


@pytest.mark.parametrize("login_node", ["no_curl", "unreached"])
def test_where_the_cluster_cannot_ask_this_machine_does(
    registry: RegistryDouble, job_dir: Path, tmp_path: Path, request: pytest.FixtureRequest, login_node: str
) -> None:
    request.getfixturevalue(login_node)
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    index = registry.put("team/model", "1", index_of("linux/amd64", "linux/arm64"), INDEX)
    log_in_here(tmp_path, registry.address)
    one = ask(job_dir, f"{registry.address}/team/model:1")
    assert (one.digest, one.index, one.trouble) == (AMD, index, "")


def test_what_this_machine_is_refused_is_not_final_since_nodes_may_be_let_in(
    registry: RegistryDouble, job_dir: Path, no_curl: None
) -> None:
    one = ask(job_dir, f"{registry.address}/team/model:1")
    assert "(404)" in one.trouble
    assert one.fatal == ""


def test_who_is_not_let_in_here_is_told_to_log_in_here(registry: RegistryDouble, job_dir: Path, no_curl: None) -> None:
    registry.rule("localhost", auth="Basic", accounts={USER: PASSWORD})
    one = ask(job_dir, f"{registry.address}/team/model:1")
    assert f"`docker login {registry.address}` here" in one.trouble
    assert one.fatal == ""


def test_without_any_network_it_is_reported_and_nothing_is_final(registry: RegistryDouble, job_dir: Path, unreached: None) -> None:
    one = ask(job_dir, "localhost:9/team/model:1")
    assert "neither the cluster nor this machine could reach localhost:9 (" in one.trouble
    assert "onnect" in one.trouble
    assert (one.fatal, one.digest) == ("", None)


# ---- enroot's own settings ---------------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, *files: str, **environment: str) -> tuple[str, str]:
    """The scheme and the credentials file for these contents of enroot.conf and of files in enroot.conf.d."""
    for number, text in enumerate(files):
        path = tmp_path / "enroot" / (f"enroot.conf.d/{number}.conf" if number else "enroot.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script = f'set -u; . {ROOT}/helpers/images/registry.sh; allow_http; printf \'%s %s\' "$scheme" "$credentials"'
    env = {"PATH": os.environ["PATH"], "HOME": "/home/me", "ENROOT_SYSCONF_PATH": str(tmp_path / "enroot"), **environment}
    scheme, _, path = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True).stdout.partition(" ")
    return scheme, path


@pytest.mark.parametrize("form", ["ENROOT_ALLOW_HTTP {}", "ENROOT_ALLOW_HTTP={}", "  ENROOT_ALLOW_HTTP\t=  '{}'  # why"])
@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        *((value, "http") for value in ("yes", "y", "true", "1", "on", "YES", "On", "True")),
        *((value, "https") for value in ("no", "No", "n", "false", "False", "FALSE", "0", "off", "maybe", "''")),
    ],
)
def test_plain_http_is_used_if_enroot_would_use_it(tmp_path: Path, form: str, value: str, scheme: str) -> None:
    """Otherwise credentials would go out in clear text."""
    assert settings(tmp_path, f"# ENROOT_ALLOW_HTTP yes and no\n{form.format(value)}\nOTHER x\n")[0] == scheme


def test_the_environment_comes_before_the_configuration_and_its_first_line_before_others(tmp_path: Path) -> None:
    assert settings(tmp_path, "ENROOT_ALLOW_HTTP yes\n", ENROOT_ALLOW_HTTP="no")[0] == "https"
    assert settings(tmp_path, "ENROOT_ALLOW_HTTP no\nENROOT_ALLOW_HTTP yes\n")[0] == "https"
    assert settings(tmp_path, "", "ENROOT_ALLOW_HTTP=yes\n")[0] == "http"
    assert settings(tmp_path, "", "")[0] == "https"


@pytest.mark.parametrize(
    ("line", "environment", "folder"),
    [
        ("", {}, "/home/me/.config/enroot"),
        ("", {"XDG_CONFIG_HOME": "/x"}, "/x/enroot"),
        ("ENROOT_CONFIG_PATH /etc/shared/enroot", {}, "/etc/shared/enroot"),
        ('ENROOT_CONFIG_PATH="${HOME}/.enroot of mine"', {}, "/home/me/.enroot of mine"),
        ("ENROOT_CONFIG_PATH /raid/$(echo me)/enroot", {}, "/raid/me/enroot"),
        ("ENROOT_CONFIG_PATH /etc/shared/enroot", {"ENROOT_CONFIG_PATH": "/y"}, "/y"),
        ("ENROOT_CONFIG_PATH $NOT_SET_AT_ALL/x", {}, "/home/me/.config/enroot"),
    ],
)
def test_credentials_are_where_enroot_looks_for_them(tmp_path: Path, line: str, environment: dict[str, str], folder: str) -> None:
    assert settings(tmp_path, f"{line}\n", **environment)[1] == f"{folder}/.credentials"
