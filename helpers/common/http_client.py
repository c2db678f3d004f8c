"""One HTTP request: this machine's certificate authorities and proxies, a time limit, no retry, and one error for "no answer"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


class NoAnswer(Exception):
    """No HTTP answer: no connection, no time left, or a certificate or proxy that does not work. The text says which."""


def request(method: str, url: str, seconds: float, *, follow_redirects: bool = False, **more: Any) -> httpx.Response:
    """The answer to one request, of any status; `more` is for httpx: headers, auth, json.

    Waits at most `seconds` for each step: to connect, to send, to receive. A redirect to another host loses the Authorization header.
    Raises NoAnswer.
    """
    import ssl

    import httpx  # 0.13 s

    # By default httpx trusts only a bundle of its own, without a site's private authority. This context reads SSL_CERT_FILE too.
    options: dict[str, Any] = {"verify": ssl.create_default_context(), "trust_env": False, "headers": {"User-Agent": "evalmake"}}
    try:
        with httpx.Client(timeout=seconds, follow_redirects=follow_redirects, proxy=_proxy(url), **options) as client:
            return client.request(method, url, **more)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, OSError, ValueError) as error:  # ImportError: a SOCKS proxy
        raise NoAnswer(str(error) or type(error).__name__) from error


def _proxy(url: str) -> str | None:
    """The proxy for an address, from http_proxy, https_proxy and no_proxy as the standard library reads them.

    httpx's own reading fails on ALL_PROXY=socks5://… and on IPv6 addresses in no_proxy, even where neither applies.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
