"""common/http_client.py: proxies of the environment, one error for no answer. Redirects and certificates: images/test_registry.py."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from helpers.common import http_client


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that answers anything, and the request lines it saw: a proxy sees the whole URL."""
    lines: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", lines
        server.shutdown()


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_the_proxy_of_the_environment_is_used(asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("http_proxy", scheme + asked[0])
    assert http_client.request("GET", "http://far.example/x", 5).status_code == 200
    assert asked[1] == ["http://far.example/x"]


@pytest.mark.parametrize("no_proxy", ["*", "127.0.0.1", "[::1],127.0.0.1"])
def test_no_proxy_is_respected(asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert http_client.request("GET", f"http://{asked[0]}/x", 5).status_code == 200


def test_a_socks_proxy_for_all_does_not_stand_in_the_way(asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert http_client.request("GET", f"http://{asked[0]}/x", 5).status_code == 200


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://[", "ftp://x", "http://a b/"])
@pytest.mark.parametrize("proxy", ["", "socks5://127.0.0.1:9", "nonsense://x"])
def test_no_answer_is_one_error_with_a_reason(monkeypatch: pytest.MonkeyPatch, url: str, proxy: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(http_client.NoAnswer, match=r"."):
        http_client.request("GET", url, 1)
