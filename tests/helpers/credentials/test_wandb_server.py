"""credentials/wandb_server.py against the double of a server: its answers about keys and projects, and a server that gives none."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from helpers.common.errors import BadInput, Unreachable
from helpers.credentials import wandb_server
from helpers.credentials.wandb_server import Server, run_id
from wandb_double import ENTITY, KEY, PROJECT, Run, WandbDouble

NEW_KEY = "wandb_v1_" + "Ab3_" * 19 + "9"


@pytest.fixture
def double(clean_env: dict[str, str]) -> Iterator[WandbDouble]:
    with WandbDouble() as double:
        yield double


def asked(double: WandbDouble, key: str = KEY) -> Server:
    return Server(double.url, key, "environment")


def known(double: WandbDouble, project: str = PROJECT) -> None:
    double.runs[(ENTITY, project, "r")] = Run(ENTITY, project, "r", summary={"m": 0.5}, state="finished")


@pytest.mark.parametrize("there", [True, False])
def test_a_valid_key_may_write_to_an_existing_or_new_project_and_one_call_tells(double: WandbDouble, there: bool) -> None:
    if there:
        known(double)
    assert asked(double).check(ENTITY, PROJECT) == "me"
    assert [(call.key, call.variables) for call in double.calls] == [(KEY, {"entity": ENTITY, "project": PROJECT})]
    assert double.unknown == []


def test_a_long_key_of_the_new_form_is_sent_as_it_is(double: WandbDouble) -> None:
    double.keys[NEW_KEY] = "robot"
    assert asked(double, NEW_KEY).check(ENTITY, PROJECT) == "robot"


def refused(double: WandbDouble, key: str = KEY, entity: str = ENTITY) -> str:
    with pytest.raises(BadInput) as caught:
        asked(double, key).check(entity, PROJECT)
    assert key not in str(caught.value)
    return str(caught.value)


def test_an_expired_and_an_unknown_key_are_refused_with_the_fix(double: WandbDouble) -> None:
    for key in (KEY, "f" * 40):
        double.expired = {KEY}
        text = refused(double, key)
        assert f"W&B at {double.url} refuses the key from environment: it has expired, was revoked, or belongs to another server" in text
        assert f"`wandb login --relogin --host={double.url}`" in text
    assert "`wandb login --relogin`, or" in str(Server(wandb_server.CLOUD, KEY, "netrc")._refused())


def test_a_project_that_may_only_be_read_or_not_be_seen_is_refused(double: WandbDouble) -> None:
    double.read_only = {f"{ENTITY}/{PROJECT}"}
    assert f"me, who owns this key, may read {ENTITY}/{PROJECT} but not write to it" in refused(double)
    assert "there is no entity other-team, or me is not a member of it (me can write to me, my-team)" in refused(
        double, entity="other-team"
    )


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_server_in_trouble_is_no_refusal(double: WandbDouble, status: int) -> None:
    double.fail_with = status
    with pytest.raises(Unreachable, match=f"answers with an error .status {status}"):
        asked(double).check(ENTITY, PROJECT)


def test_no_answer_is_unreachable_in_a_short_time(double: WandbDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_server, "TIMEOUT", 0.3)
    double.delay = 5
    began = time.monotonic()
    with pytest.raises(Unreachable, match="does not answer"):
        asked(double).check(ENTITY, PROJECT)
    double.off()
    with pytest.raises(Unreachable, match=r"does not answer .*refused"):
        asked(double).check(ENTITY, PROJECT)
    assert time.monotonic() - began < 4


def test_an_address_without_wandb_is_bad_input(double: WandbDouble) -> None:
    wrong = Server(f"{double.url}/nothing", KEY, "environment")
    with pytest.raises(BadInput, match=r"there is no W&B server at this address .*WANDB_BASE_URL"):
        wrong.check(ENTITY, PROJECT)


@pytest.mark.slow
@pytest.mark.parametrize(("status", "body"), [(301, b""), (200, b"<html>Please log in</html>")])
def test_the_key_goes_nowhere_else_and_a_proxy_s_page_is_no_answer(double: WandbDouble, status: int, body: bytes) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Location", f"{double.url}/graphql")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unreachable):
            Server(f"http://127.0.0.1:{server.server_port}", KEY, "environment").check(ENTITY, PROJECT)
        server.shutdown()
    assert double.calls == []


def test_no_text_has_the_key_or_the_password_of_the_address() -> None:
    server = Server("https://user:hunter2@wandb.example.com/", KEY, "environment")
    assert str(server) == "https://wandb.example.com"
    assert KEY not in repr(server)
    assert server.run_url("e", "p q", "r") == "https://wandb.example.com/e/p%20q/runs/r"
    assert Server(wandb_server.CLOUD, KEY, "").run_url("e", "p", "r") == "https://wandb.ai/e/p/runs/r"


def test_runs_are_looked_up_by_id_a_page_at_a_time(double: WandbDouble) -> None:
    known(double)
    assert asked(double).held(ENTITY, "none-yet", ["r"]) == {}
    found = asked(double).held(ENTITY, PROJECT, ["r", *(f"x{n}" for n in range(wandb_server.PAGE))])
    assert list(found) == ["r"]
    assert (found["r"].state, found["r"].summary) == ("finished", {"m": 0.5})
    assert len(double.calls) == 3


def test_an_id_is_the_same_every_time_and_valid_for_wandb() -> None:
    assert run_id("480d3c89bfe4a55c", "lm-evaluation-harness.hellaswag.0") == "480d3c89bfe4a55c-lm-evaluation-harness.hellaswag.0"
    assert run_id("480d3c89bfe4a55c") == "480d3c89bfe4a55c"
    assert run_id("i", "a b/c:d.0") == "i-a-b-c-d.0"
    assert len(run_id("i" * 16, "t" * 300)) == wandb_server.MAX_ID_LENGTH
