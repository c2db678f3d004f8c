"""What failures of an endpoint mean, with the fix. The harness only sees nemo-evaluator's proxy: `404 … http://localhost:27130/…`."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from helpers.common import yaml_files
from helpers.executors import answers, job_folder
from helpers.executors.refusals import ADAPTER, PARAMS, Refusal, in_lines

LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1):\d+[^\s'\")]*|HTTPConnectionPool\(host='localhost', port=\d+\)")
# How harnesses write that an endpoint refused: requests' way, the one of the package openai, ours.
STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error|Error code: ([45]\d\d)\b|\bHTTP ([45]\d\d)\b")
NOT_FOUND, SERVER_ERROR = 404, 500
PATHS = ("/chat/completions", "/completions", "/embeddings")
# The proxy also answers 500 when it could not reach the endpoint; only its log tells the two apart.
UNREACHED = re.compile(
    r"Connection refused|Max retries exceeded|Timeout|timed out|Failed to (establish|resolve)|Name or service not known|No route to host"
)
UNREACHED_FIX = "the endpoint does not answer: check target.api_endpoint.url and the network, or raise params.request_timeout"
# What answers are that carry nothing to score, after `2 of 6 answers`, and the fix.
NOTHING = {
    "cut": ("were cut before they said anything", f"raise {PARAMS}.max_new_tokens"),
    "reasoning": ("held reasoning only", f"raise {PARAMS}.max_new_tokens, or have the model answer without reasoning"),
    "tool_calls": ("were calls of tools", "the task offers none: have the server not look for them (vLLM: --enable-auto-tool-choice)"),
    "refused": ("were refused by the model or a content filter", "ask the endpoint's operators about the filter, or use another endpoint"),
    "empty": ("were empty", "check the model's chat template and the task's prompt, or choose another model"),
}
CUT_TEXT = ("were cut by the limit of tokens and scored as they are", f"raise {PARAMS}.max_new_tokens if the task needs whole answers")
# The fix for an answer that has no form of an answer; the words are those of answers.look.
SHAPES = {
    "an HTML page": "target.api_endpoint.url leads to a web page or a login: give the URL of the API, with /v1/chat/completions",
    "an event stream": f'the endpoint streams: SET="+{ADAPTER}.params_to_add={{stream:false}}", or choose one that answers in one piece',
    answers.ERROR: "`make logs` shows the endpoint's words",
}
OTHER_SHAPE = "check target.api_endpoint.url: the endpoint does not answer as OpenAI's API does"


def of_answers(counts: dict[str, Any]) -> list[str]:
    """A sentence for each reason why answers of a task carried nothing to score, with the fix, the most frequent first."""
    return [f"{what}; {fix}" for _, what, fix in kinds_of(counts)]


def kinds_of(counts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The kinds of answers that carried nothing to score, the most frequent first: the kind, how many of how many were so, and the fix."""
    found = []
    for kind in sorted((kind for kind in answers.NOTHING if counts[kind]), key=lambda kind: -int(counts[kind])):
        shape, _, words = (counts["shape"] or "").partition(": ")  # a harness of ours adds the words of an error
        other = Refusal(0, words).fix() or SHAPES.get(shape, OTHER_SHAPE)
        were, fix = NOTHING.get(kind) or (f"were {counts['shape']}", other)
        found.append((kind, f"{counts[kind]} of {counts['seen']} answers {were}", fix))
    return found


def none_scorable(counts: dict[str, Any] | None) -> str:
    """Why a task has no score although it was answered: no answer carried anything to score. Empty when one did, or nothing is known."""
    return f"there is nothing to score: {of_answers(counts)[0]}" if counts and not counts["scorable"] else ""


def explain(reason: str, job_dir: Path) -> str:
    """The reason of a failed job with the endpoint's own URL and words and a fix, when the endpoint is the cause; otherwise unchanged."""
    found, unreached = STATUS.search(reason), UNREACHED.search(reason)
    endpoint, is_hosted = _endpoint(job_dir) if found or unreached else ({}, False)
    if not endpoint:
        return reason
    code = int(next(filter(None, found.groups()))) if found else 0
    refusal = (_refusal(job_dir) if found else None) or Refusal(code)
    if refusal.status not in (0, code):
        refusal = Refusal(code)
    url = str(endpoint.get("url"))
    if not code or (code >= SERVER_ERROR and (unreached or UNREACHED.search(refusal.message) or _unreached(job_dir))):
        shown, fix = LOCAL.sub(lambda _: url, reason), UNREACHED_FIX
        if refusal.message:  # the proxy's, in Python's terms
            shown = f"{url}: {(UNREACHED.search(refusal.message) or refusal.message)[0]}"
    else:
        shown = f"{url} answers {refusal}" if refusal.message else LOCAL.sub(lambda _: url, reason)
        fix = _fix(replace(refusal, status=code), endpoint)
    return f"{shown}; {fix}" if is_hosted or refusal.message else reason


def most_frequent(job_dir: Path) -> str | None:
    """What the endpoint said most often to the failed samples of a task, with the fix; None when the harness did not count that."""
    refusal = _counted(job_dir)
    endpoint, _ = _endpoint(job_dir)
    return f"{refusal}; {_fix(refusal, endpoint)}" if refusal and refusal.message else None


def _fix(refusal: Refusal, endpoint: dict[str, Any]) -> str:
    """The fix for a refusal by this endpoint, which was reached."""
    url, key = str(endpoint.get("url")), endpoint.get("api_key_name")
    if refusal.kind == "key" and key:
        return f"the endpoint refuses the key: check the value of {key}"
    if refusal.kind == "key":
        return "the endpoint needs a key: name its variable in target.api_endpoint.api_key_name"
    if refusal.status == NOT_FOUND and not url.partition("?")[0].rstrip("/").endswith(PATHS):
        return "target.api_endpoint.url must be the whole URL, with /v1/chat/completions"
    if fix := refusal.fix((endpoint.get("adapter_config") or {}).get("params_to_remove") or []):
        return fix
    if refusal.status == NOT_FOUND:
        return "check target.api_endpoint.url and model_id"
    if refusal.status < SERVER_ERROR:
        return "the endpoint refuses the request: see its log and the task's params"
    return "the endpoint itself fails: try again later, or ask its operators"


def _refusal(job_dir: Path) -> Refusal | None:
    """What the endpoint said: the most frequent refusal that the harness counted, else the last one in its log."""
    if counted := _counted(job_dir):
        return counted
    try:
        return in_lines(job_folder.tail(job_dir / "logs" / "client_stdout.log", 200_000))
    except OSError:
        return None


def _counted(job_dir: Path) -> Refusal | None:
    """The most frequent refusal in samples.json, which our own harness writes."""
    try:
        first = (job_folder.read(job_dir / "artifacts" / "samples.json") or {})["refusals"][0]
        return Refusal(**{field.name: first[field.name] for field in fields(Refusal)})
    except (KeyError, IndexError, TypeError):
        return None


def _endpoint(job_dir: Path) -> tuple[dict[str, Any], bool]:
    """The endpoint of a task, and whether it is a hosted one, not one that we deployed. Empty when the job has no config."""
    try:
        config = yaml_files.load((job_dir / "run_config.yml").read_bytes())
        is_hosted = config["metadata"]["launcher_resolved_config"]["deployment"]["type"] == "none"
        endpoint: dict[str, Any] = config["target"]["api_endpoint"]
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return {}, False
    return endpoint, is_hosted


def _unreached(job_dir: Path) -> bool:
    try:
        lines = job_folder.tail(job_dir / "logs" / "client_stdout.log", 200_000)
    except OSError:
        return False
    return any(UNREACHED.search(line) for line in lines)
