"""helpers/executors/refusals.py: the words of endpoints, as their makers document them or as their servers send them."""

from __future__ import annotations

import json

import pytest

from helpers.executors import refusals
from helpers.executors.refusals import ADAPTER, Refusal, in_lines, of_body


def openai(message: str, **fields: str | int | None) -> str:
    return json.dumps({"error": {"message": message, **fields}})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # Fields decide before words, and before a status that means two things.
        (429, openai("Rate limit reached for gpt-4o", type="requests", code="rate_limit_exceeded"), "rate"),
        (
            429,
            openai("You exceeded your current quota, see billing.", type="insufficient_quota", code="insufficient_quota"),
            "quota",
        ),
        (403, openai("no", code="insufficient_quota"), "quota"),
        (
            400,
            openai("Unsupported parameter: 'logit_bias'", param="logit_bias", code="unsupported_parameter"),
            "parameter",
        ),
        (400, openai("no", code="context_length_exceeded", param="messages"), "context"),
        (404, openai("The model `m` does not exist", type="invalid_request_error", code="model_not_found"), "model"),
        (400, openai("The response was filtered", code="content_filter"), "filter"),
        (401, openai("Incorrect API key provided", code="invalid_api_key"), "key"),
        (529, '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}', "busy"),
        # Words alone.
        (429, openai("Your credit balance is too low"), "quota"),
        (429, "Too Many Requests", "rate"),
        (402, "", "quota"),
        (
            400,
            '{"object": "error", "message": "This model\'s maximum context length is 4096.", "type": "BadRequestError"}',
            "context",
        ),
        (400, openai("max_tokens is too large: 99999. This model supports at most 16384 completion tokens", param="max_tokens"), "context"),
        (400, openai("This model only supports stream mode, please enable the stream parameter."), "stream"),
        (400, '{"detail": "Streaming is required for this model"}', "stream"),
        (422, '{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}', "parameter"),
        (
            400,
            '[{"error": {"code": 400, "message": "API key not valid. Please pass a valid one.", "status": "INVALID_ARGUMENT"}}]',
            "key",
        ),
        (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", "context"),
        (400, openai("the sky is blue"), ""),
        (500, '{"detail": "Internal Server Error"}', ""),
    ],
)
def test_the_kind_of_a_refusal(status: int, body: str, kind: str) -> None:
    assert of_body(status, body.encode()).kind == kind


def test_each_kind_has_a_fix_that_speaks_of_it() -> None:
    kinds = {kind for kind, _ in refusals.WORDS} | set(refusals.FIELDS) | set(refusals.BY_STATUS.values())
    assert kinds == {*refusals.FIXES, "key", "parameter"}
    assert "parallelism" in Refusal(429, "Too many requests").fix()
    assert "parallelism" not in Refusal(429, "You exceeded your current quota").fix()
    assert "max_new_tokens" in Refusal(400, "the context length is 10").fix()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (
            openai("Unsupported value: 'temperature' does not support 0.", param="temperature", code="unsupported_value"),
            "temperature",
        ),
        (openai("Unrecognized request argument supplied: top_k"), "top_k"),
        (openai("`top_p` is deprecated for this model.", type="invalid_request_error"), "top_p"),
        ('{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}', "seed"),
        (openai("Completions.create() got an unexpected keyword argument 'logprobs'"), "logprobs"),
        (openai("extra fields not permitted"), ""),
    ],
)
def test_a_parameter_that_a_model_refuses_is_named_in_the_fix(body: str, name: str) -> None:
    refusal = of_body(400, body.encode())
    assert (refusal.kind, refusal.parameter) == ("parameter", name)
    assert (f"{ADAPTER}.params_to_remove=[{name}]" if name else f"{ADAPTER}.params_to_remove") in refusal.fix()


def test_a_second_refused_parameter_is_added_to_those_that_are_left_out_already() -> None:
    assert "params_to_remove=[temperature,top_p]" in Refusal(400, "top_p is not supported").fix(["temperature"])


def test_max_tokens_is_renamed_not_left_out() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    fix = of_body(400, openai(words, code="unsupported_parameter", param="max_tokens").encode()).fix()
    assert "params_to_rename={max_tokens:max_completion_tokens}" in fix


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, openai("two\nlines\x1b[31m\x00"), "two lines\\x1b[31m\\x00"),
        (400, openai("x" * 1000), "x" * 199 + "…"),
        (401, openai("Incorrect API key provided: sk-proj-abcdefghij0123456789"), "Incorrect API key provided: ***"),
        (401, openai("bad key 0123456789abcdef0123456789abcdef"), "bad key ***"),
        (400, openai("sent 'Authorization: Bearer abc.def-123456'"), "sent 'Authorization: Bearer ***'"),
        (502, "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"),
        (503, "<p>Down for <b>maintenance</b></p>", "Down for maintenance"),
        (500, "", ""),
        (500, "null", ""),
        (500, '{"error": null}', ""),
        (500, '{"error": "broken"}', "broken"),
        (403, '{"status": 403, "title": "Forbidden", "detail": "Authorization failed"}', "Authorization failed"),
    ],
)
def test_the_words_are_one_short_line_without_secrets(status: int, body: str, message: str) -> None:
    assert of_body(status, body.encode()).message == message


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("openai.BadRequestError: Error code: 400 - {'error': {'message': \"it's too long\", 'code': None, 'param': None}}", 400),
        ('2026 WARNING API request failed with error message: {"error":{"message":"it\'s too long","code":400}}. Retrying...', 400),
        ("[W 2026-11-27T12:37:05.444] failed error={'object': 'error', 'message': \"it's too long\", 'code': 422} logger=x", 422),
        ('HTTP 503 {"detail":"it\'s too long"}', 503),
    ],
)
def test_a_refusal_is_found_in_the_log_of_a_harness(line: str, status: int) -> None:
    refusal = in_lines(["{", line, "and more", "{'error': {'message': 'cut"])
    assert refusal
    assert (refusal.status, refusal.message) == (status, "it's too long")


def test_a_log_without_a_refusal_has_none() -> None:
    assert in_lines(["Traceback", "KeyError: 'choices'", "{'error': []}", 'config={"type": "chat"}', "[{'error'" * 1000]) is None
