"""A double of vLLM for tasks that score log-likelihoods: a model of characters whose log-probabilities come from a hash, always the same.

    python tests/doubles/logprob_server.py serve CHECKPOINT --port 8080 --served-model-name toy (and any other flags of `vllm serve`)

POST /v1/completions with `echo` and `logprobs` answers as vLLM does: a log-probability for each token of the prompt, none for the first.
`write_checkpoint` writes the tokenizer that fits: each printable character of ASCII is a token.
"""

from __future__ import annotations

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHARACTERS = [chr(code) for code in range(32, 127)]
SEEN = 4  # the model sees this many characters before the one that it weighs


def logprob(before: str, character: str) -> float:
    """The log-probability of a character after others, between -6 and -1."""
    digest = hashlib.sha256(f"{before[-SEEN:]}|{character}".encode()).digest()
    return -1 - 5 * int.from_bytes(digest[:4], "big") / 2**32


def loglikelihood(context: str, continuation: str) -> float:
    """The log-likelihood of a text after another."""
    text = context + continuation
    return sum(logprob(text[:place], text[place]) for place in range(len(context), len(text)))


def completion(index: int, prompt: str) -> dict[str, Any]:
    """The choice that answers one prompt: its own characters and one more."""
    tokens = [*prompt, "."]
    chances = [None if place == 0 else logprob("".join(tokens[:place]), token) for place, token in enumerate(tokens)]
    top = [None if chance is None else {token: chance} for token, chance in zip(tokens, chances, strict=True)]
    found = {"tokens": tokens, "token_logprobs": chances, "top_logprobs": top}
    return {"index": index, "text": prompt + ".", "logprobs": found, "finish_reason": "length"}


class Handler(BaseHTTPRequestHandler):
    """Answers GET /health and POST /v1/completions."""

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions" or not asked.get("echo") or not asked.get("logprobs"):
            self.answer(404, {"error": {"message": "the double knows log-likelihoods only"}})
            return
        prompts = asked["prompt"] if isinstance(asked["prompt"], list) else [asked["prompt"]]
        choices = [completion(index, prompt) for index, prompt in enumerate(prompts)]
        self.answer(200, {"object": "text_completion", "model": asked["model"], "choices": choices, "usage": {"prompt_tokens": 1}})

    def answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


def write_checkpoint(folder: Path) -> None:
    """A checkpoint's folder without weights: the tokenizer as Hugging Face's library loads it, and config.json."""
    end = {"id": 0, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocabulary = {text: number for number, text in enumerate(["<end>", *CHARACTERS])}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<end>"},
    }
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "unk_token": "<end>", "model_max_length": 2048}
    folder.mkdir(parents=True)
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": about, "config.json": {"max_position_embeddings": 2048}}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    print("serving", *sys.argv[1:], flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
