"""What failures of a hosted endpoint mean, with the fix. The harness only sees nemo-evaluator's proxy: `404 … http://localhost:27130/…`."""

import re
from pathlib import Path
from typing import Any

import yaml

from helpers.common import yaml_files
from helpers.executors import job_folder

LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1):\d+[^\s'\")]*|HTTPConnectionPool\(host='localhost', port=\d+\)")
STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error")
PATHS = ("/chat/completions", "/completions", "/embeddings")
# The proxy also answers 500 when it could not reach the endpoint; only its log tells the two apart.
UNREACHED = re.compile(
    r"Connection refused|Max retries exceeded|Timeout|timed out|Failed to (establish|resolve)|Name or service not known|No route to host"
)


def explain(reason: str, job_dir: Path) -> str:
    """The reason of a failed job with the endpoint's own URL and a fix, when a hosted endpoint is the cause; otherwise unchanged."""
    found = STATUS.search(reason)
    endpoint = _hosted(job_dir) if found or UNREACHED.search(reason) else None
    if not endpoint:
        return reason
    url, key = str(endpoint.get("url")), endpoint.get("api_key_name")
    shown = LOCAL.sub(lambda _: url, reason)
    code = int(found[1]) if found else 0
    if code in (401, 403) and key:
        fix = f"the endpoint refuses the key: check the value of {key}"
    elif code in (401, 403):
        fix = "the endpoint needs a key: name its variable in target.api_endpoint.api_key_name"
    elif code == 404 and not url.partition("?")[0].rstrip("/").endswith(PATHS):  # noqa: PLR2004  HTTP
        fix = "target.api_endpoint.url must be the whole URL, with /v1/chat/completions"
    elif code == 404:  # noqa: PLR2004
        fix = "check target.api_endpoint.url and model_id"
    elif code == 429:  # noqa: PLR2004
        fix = "the endpoint wants fewer requests: lower params.parallelism"
    elif code < 500 and found:  # noqa: PLR2004
        fix = "the endpoint refuses the request: see its log and the task's params"
    elif not found or _unreached(job_dir):
        fix = "the endpoint does not answer: check target.api_endpoint.url and the network, or raise params.request_timeout"
    else:
        fix = "the endpoint itself fails: try again later, or ask its operators"
    return f"{shown}; {fix}"


def _hosted(job_dir: Path) -> dict[str, Any] | None:
    """The endpoint of a task; None for one that we deployed."""
    try:
        config = yaml_files.load((job_dir / "run_config.yml").read_bytes())
        if config["metadata"]["launcher_resolved_config"]["deployment"]["type"] != "none":
            return None
        endpoint: dict[str, Any] = config["target"]["api_endpoint"]
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return None
    return endpoint


def _unreached(job_dir: Path) -> bool:
    try:
        lines = job_folder.tail(job_dir / "logs" / "client_stdout.log", 200_000)
    except OSError:
        return False
    return any(UNREACHED.search(line) for line in lines)
