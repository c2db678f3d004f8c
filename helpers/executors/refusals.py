"""What an endpoint says when it refuses a request: its own words, what kind of refusal that is, and the fix. Pure; the harness uses it too.

The HTTP status and the fields of the body that programs read (error.code, error.type, error.param) say which kind it is. Many servers send
only words: those are in WORDS. A kind only decides which fix is shown.
"""

import ast
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.common.errors import one_line
from helpers.common.secrets import masked

MOST = 200  # characters of an endpoint's words
PARAMS = "evaluation.nemo_evaluator_config.config.params"
# nemo-evaluator 0.2.8 makes its interceptor payload_modifier of these keys (adapters/adapter_config.py: LegacyAdapterConfig).
ADAPTER = "evaluation.nemo_evaluator_config.target.api_endpoint.adapter_config"

# Values of error.code and error.type, in lower case.
FIELDS = {
    "quota": {"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"},
    "rate": {"rate_limit_exceeded", "rate_limit_error", "too_many_requests"},
    "parameter": {"unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden"},
    "context": {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"},
    "key": {"invalid_api_key", "authentication_error", "permission_error"},
    "model": {"model_not_found", "not_found_error"},
    "filter": {"content_filter", "content_policy_violation"},
    "busy": {"overloaded_error", "server_overloaded", "engine_overloaded"},
}
# For servers that have only words. The first line that matches counts; it may name the parameter.
WORDS = [
    ("quota", r"exceeded your \w+ quota|insufficient (quota|credits?|balance|funds)|credit balance|out of credits?|payment required"),
    ("stream", r"only supports? stream|stream(ing)? (mode )?(is |must be )?(required|enabled|true)|requires? stream|stream=true"),
    ("context", r"context (length|window|size)|maximum (model|input|sequence) length|prompt is too long|too many (input )?tokens"),
    ("context", r"max_(completion_)?tokens.{0,30}(too large|at most|must be (less|smaller))|at most \d+ completion tokens"),
    ("parameter", r"(?:unsupported|unknown|unrecognized)[\w ]* (?:parameter|value|argument|field)[\w ]*:? *[`'\"]?(?P<name>\w+)"),
    ("parameter", r"[`'\"]?(?P<name>\w+)[`'\"]? (?:is|are) (?:not supported|unsupported|not allowed|deprecated)"),
    ("parameter", r"(?:does not support|unexpected keyword argument) (?:the )?(?:parameter )?[`'\"](?P<name>\w+)"),
    ("parameter", r"extra (inputs|fields) (are )?not permitted"),
    ("model", r"model\b.{0,100}\b(does not exist|not found|not exist)|no such model|unknown model"),
    ("key", r"api.?key (is )?(not valid|invalid|expired)|(invalid|incorrect) api.?key"),
    ("rate", r"rate.?limit|too many requests|(tokens|requests) per (second|minute|min|day)"),
    ("busy", r"overloaded|at capacity|is (currently )?loading"),
]
BY_STATUS = {401: "key", 402: "quota", 403: "key", 413: "context", 429: "rate", 529: "busy"}
FIXES = {
    "quota": "the account's quota is used up, which waiting does not change: add credit there, or use another key",
    "rate": f"the endpoint wants fewer requests: lower {PARAMS}.parallelism",
    "context": f"the prompt and {PARAMS}.max_new_tokens exceed what the model can take: lower it, or give the model a longer context",
    "stream": "this model answers in streams only, which harnesses do not read: choose another model or endpoint",
    "filter": "its content filter refuses the prompt: ask its operators, or use another endpoint",
    "busy": "the endpoint is overloaded: try again later, or ask its operators",
    "model": "the endpoint has no such model: check target.api_endpoint.model_id",
}
# A key in a form that is not known: what refuses a key may repeat it.
_LONG = re.compile(r"\b(?=\w*\d)[\w-]{20,}\b")
# An error body in the middle of a log line, as JSON or as Python writes a dictionary, and the status before it.
_BODY = re.compile(r"[\[{]\s*[{\"'](?:error|object|detail|message|type|status|code)[\"':]")
_STATUS = re.compile(r"(?i)(?:code|status|http|error)\W{0,3}([45]\d\d)\b")


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error. `status`: of HTTP, 0 if unknown. `message`: one line, secrets masked, at most MOST characters."""

    status: int
    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""

    @property
    def kind(self) -> str:
        """A key of FIXES, or `key`, `parameter`, or empty: not known."""
        for kind, values in FIELDS.items():
            if {self.code.lower(), self.type.lower()} & values:
                return kind
        told = BY_STATUS.get(self.status, "")
        if told in ("", "rate", "key"):  # some say with 403 or 429 that nothing is left to pay with
            return next((kind for kind, words in WORDS if re.search(words, self.message, re.IGNORECASE)), told)
        return told

    @property
    def parameter(self) -> str:
        """The name of the parameter that a refusal of kind `parameter` is about; empty if it names none."""
        found = (re.search(words, self.message, re.IGNORECASE) for kind, words in WORDS if kind == "parameter")
        names = [self.param.rpartition(".")[2], *(one.groupdict().get("name") or "" for one in found if one)]
        return next((name for name in names if re.fullmatch(r"[a-z]\w*", name)), "")

    def fix(self, removed: Iterable[str] = ()) -> str:
        """What to do; empty if nothing is known. `removed`: the parameters that the config leaves out already."""
        if self.kind != "parameter":
            return FIXES.get(self.kind, "")
        if not (name := self.parameter):
            return f"the model does not take a parameter of the requests: name it in {ADAPTER}.params_to_remove"
        if name == "max_tokens":
            return f'the model wants max_completion_tokens: SET="+{ADAPTER}.params_to_rename={{max_tokens:max_completion_tokens}}"'
        return f'the model does not take {name}: SET="+{ADAPTER}.params_to_remove=[{",".join([*removed, name])}]"'

    def __str__(self) -> str:
        """`400: its words`."""
        return ": ".join(filter(None, [str(self.status or ""), self.message]))


def of_body(status: int, body: bytes) -> Refusal:
    """The refusal in a response's status and body. Raises nothing: a body that is no JSON has its text as message."""
    text = body.decode("utf-8", "replace")
    try:
        return _of_data(status, json.loads(text))
    except ValueError:
        title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text)
        return Refusal(status, _words(status, title[1] if title else re.sub(r"(?s)<[^>]*>", " ", text)))


def in_lines(lines: Sequence[str]) -> Refusal | None:
    """The refusal in the last line of a log that holds the body of one."""
    for line in reversed(lines):
        found = _BODY.search(line)
        if not found:
            continue
        before = _STATUS.findall(line[: found.start()])
        refusal = _of_data(int(before[-1]) if before else 0, _data(line[found.start() :]))
        if refusal.message:
            return refusal
    return None


def _of_data(status: int, data: Any) -> Refusal:
    """The refusal in a body: OpenAI's {error: {…}}, FastAPI's {detail: …}, the fields alone, or a list of one of them."""
    whole = data[0] if isinstance(data, list) and data else data
    if not isinstance(whole, dict):
        return Refusal(status, _words(status, whole) if isinstance(whole, str) else "")
    error = next((whole[key] for key in ("error", "detail", "message") if isinstance(whole.get(key), (dict, list))), whole)
    error = error[0] if isinstance(error, list) and error else error
    if not isinstance(error, dict):
        return Refusal(status)
    message = next((error[key] for key in ("message", "msg", "detail", "error", "title") if isinstance(error.get(key), str)), "")
    place = error.get("loc")
    name = str(place[-1]) if isinstance(place, list) and place else ""
    code = error.get("code")
    if not status and str(code).isdecimal():
        status = int(str(code))
    fields = (("" if one is None else one_line(masked(str(one)))[:60]) for one in (code, error.get("type"), error.get("param") or name))
    return Refusal(status, _words(status, f"{name}: {message}" if name else message), *fields)


def _data(text: str) -> Any:
    """The JSON or the Python value that a text begins with; None if it is neither, or is cut."""
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        pass
    ends = [place + 1 for place, one in enumerate(text) if one in "}]"]
    for end in reversed(ends[-5:]):
        try:
            return ast.literal_eval(text[:end])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _words(status: int, text: str) -> str:
    said = one_line(masked(text))
    said = _LONG.sub("***", said) if BY_STATUS.get(status) == "key" else said
    return said if len(said) <= MOST else f"{said[: MOST - 1]}…"
