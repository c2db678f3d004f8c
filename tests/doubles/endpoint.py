"""A double of an OpenAI-compatible endpoint, for what no real one can be asked to do here: refuse keys, fail, be slow, or die.

In a test: `with Endpoint(status=401) as endpoint: endpoint.url`. As a server: `python tests/doubles/endpoint.py --port 8080 --delay 0.5`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import Self


def chosen(message: dict[str, Any], finish: str = "stop") -> bytes:
    """The body of an answer with this message."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()


CALL = {"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}
# Bodies with status 200 that endpoints really send, by name.
SHAPES = {
    "null": chosen({"content": None}),
    "empty": chosen({"content": ""}),
    "blank": chosen({"content": " \n"}),
    "reasoning": chosen({"content": None, "reasoning_content": "Let me think."}),
    "thinking": chosen({"content": "<think>Let me think.</think>"}),
    "cut": chosen({"content": None}, "length"),
    "cut thinking": chosen({"content": "<think>Let me"}, "length"),
    "tools": chosen({"content": None, "tool_calls": [CALL]}, "tool_calls"),
    "refusal": chosen({"content": None, "refusal": "I cannot help with that."}),
    "filtered": chosen({"content": ""}, "content_filter"),
    "parts": chosen({"content": [{"type": "text", "text": "co"}, {"type": "text", "text": "ld"}]}),
    "number": chosen({"content": 5}),
    "html": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
    "stream": b'data: {"choices": [{"index": 0, "delta": {"content": "co"}}]}\n\ndata: [DONE]\n\n',
    "chunk": b'{"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "co"}}]}',
    "no choices": b'{"id": "1", "choices": []}',
    "error": b'{"error": {"message": "the model is not deployed", "code": "model_not_found"}}',
    "list": b"[1]",
    "nothing": b"",
}


class Endpoint:
    """Answers `text` to every chat request, or `status`; keeps the Authorization headers and paths that it was sent.

    `error`: the `error` of the body of a failure. `only`: requests without this text are answered all the same. `shape`: a body of
    SHAPES instead of an answer, for every `every`th request.
    """

    def __init__(
        self,
        port: int = 0,
        status: int = 200,
        delay: float = 0.0,
        die_after: int = 0,
        text: str = "Paris",
        *,
        healthy: bool = True,
        error: Any = None,
        shape: str = "",
        every: int = 1,
        only: str = "",
    ):
        self.authorizations: list[str | None] = []
        self.paths: list[str] = []
        outer, numbers = self, itertools.count(1)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200 if healthy else 503, {})

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.authorizations.append(self.headers.get("Authorization"))
                outer.paths.append(self.path)
                number = next(numbers)  # of two requests at once each has its own
                if die_after and len(outer.paths) >= die_after:
                    os._exit(7)
                time.sleep(delay)
                code = status if self.path == "/v1/chat/completions" else 404
                if only not in sent.decode():
                    code = 200
                if code != 200:
                    self.answer(code, {"error": error or {"message": f"the double says {code}"}})
                else:
                    self.send(code, SHAPES[shape] if shape and number % every == 0 else chosen({"content": text}))

            def answer(self, code: int, body: dict[str, Any]) -> None:
                self.send(code, json.dumps(body).encode())

            def send(self, code: int, data: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.base}/v1/chat/completions"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--unhealthy", action="store_true")
    options = parser.parse_args()
    print("the double listens", flush=True)
    Endpoint(options.port, options.status, options.delay, options.die_after, healthy=not options.unhealthy).server.serve_forever()
