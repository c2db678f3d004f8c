"""Send prompts to a chat endpoint, and keep count of what came back: answers, answers without anything to score, and refusals.

How an answer is read and what a refusal says are rules of evalmake's own: helpers.executors.answers and helpers.executors.refusals, which
are on the PYTHONPATH with this package.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import requests
from nemo_evaluator.contrib.byob.runner import create_session
from nemo_evaluator.core.utils import get_api_key_from_env

from helpers.executors import answers, refusals

if TYPE_CHECKING:
    import argparse

OK = 200
# What an answer is that carries nothing to score; an unreadable one says itself what it is.
NOTHING = {
    "cut": "the limit of tokens cut the answer before it said anything",
    "reasoning": "the answer holds reasoning only",
    "tool_calls": "the answer is a call of a tool",
    "refused": "the endpoint's content filter, or the model, refused the answer",
    "empty": "the answer is empty",
}


class UnscorableError(Exception):
    """A response that cannot be scored: a refusal with the endpoint's words, or an answer that carries nothing."""


class Asker:
    """Sends one prompt at a time, from any number of threads."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Take the arguments of run.py. Raises ValueError when the environment lacks the variable that --api-key-name names."""
        self.args = args
        self.key = get_api_key_from_env(args.api_key_name)
        self.session = create_session(max_retries=args.max_retries)
        self.url = args.model_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.seen: Counter[str] = Counter()
        self.shapes: Counter[str] = Counter()
        self.refused: Counter[refusals.Refusal] = Counter()
        self.lock = threading.Lock()

    def __call__(self, prompt: str, _endpoint_type: str, *, system_prompt: str | None = None, timeout: float | None = None) -> str:
        """Return the text of the answer to one prompt. Raises UnscorableError, and requests' errors when there is no response."""
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        payload = {
            "model": self.args.model_id,
            "messages": [*system, {"role": "user", "content": prompt}],
            "temperature": self.args.temperature,
            "max_tokens": self.args.max_new_tokens,
        }
        if self.args.top_p is not None:
            payload["top_p"] = self.args.top_p
        response: requests.Response = self.session.post(
            self.url,
            json=payload,
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=self.args.request_timeout if timeout is None else timeout,
        )
        return self.read(response.status_code, response.content)

    def read(self, status: int, body: bytes) -> str:
        """Return the text of a response, and count it. Raises UnscorableError."""
        # The endpoint may repeat the key, which may have any form.
        body = body.replace(self.key.encode(), b"***") if self.key else body
        refusal = refusals.of_body(status, body)
        kind, text = answers.look(body) if status == OK else ("", "")
        is_error = status != OK or (kind, text) == ("unreadable", answers.ERROR)
        if is_error and kind:
            text = f"{text}: {refusal.message}"
        with self.lock:
            if kind:
                self.seen[kind] += 1
            if kind == "unreadable":
                self.shapes[text] += 1
            if is_error:
                self.refused[refusal] += 1
        if not kind:
            message = f"HTTP {refusal}"
            raise UnscorableError(message)
        if kind in answers.NOTHING:
            raise UnscorableError(NOTHING.get(kind, f"instead of an answer the endpoint sent {text}"))
        return text

    def counts(self) -> dict[str, Any]:
        """Return `answers`, the counts of helpers.executors.answers, and `refusals`, the most frequent first, each with its `count`."""
        return {
            "answers": answers.counts(self.seen, self.shapes),
            "refusals": [{**asdict(one), "count": number} for one, number in self.refused.most_common()],
        }
