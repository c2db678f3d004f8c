"""A toy model with an OpenAI-like interface, for jobs in the container: it adds and subtracts. It can be told to fail as models do.

toy_model.py --port 8000                    answers `7+5` with 12
toy_model.py --port 8000 --wrong-every 3    every third answer is wrong
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--startup-delay", type=float, default=0, metavar="SECONDS", help="before it listens")
parser.add_argument("--delay", type=float, default=0, metavar="SECONDS", help="before each answer")
parser.add_argument("--wrong-every", type=int, default=0, metavar="N", help="the answer to each Nth question is wrong")
parser.add_argument("--exit-at-once", type=int, default=0, metavar="CODE", help="end with this code instead of listening")
parser.add_argument("--die-after", type=int, default=0, metavar="N", help="end with code 7 instead of answering the Nth question")
parser.add_argument("--unhealthy", action="store_true", help="answer 503 to health checks for ever")
options = parser.parse_args()
asked = 0
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """GET is a health check, POST a question."""

    def answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer(503 if options.unhealthy else 200, {"status": "ok", "data": [{"id": "toy"}]})

    def do_POST(self) -> None:
        global asked  # noqa: PLW0603 (one server a process)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            asked += 1
            number = asked
        if options.die_after and number >= options.die_after:
            print("the toy model dies", flush=True)
            os._exit(7)
        time.sleep(options.delay)
        prompt = str(body.get("messages", [{}])[-1].get("content", "")) if "messages" in body else str(body.get("prompt", ""))
        sum_ = re.search(r"(\d+)\s*([-+])\s*(\d+)", prompt)
        value = (int(sum_[1]) + int(sum_[3]) if sum_[2] == "+" else int(sum_[1]) - int(sum_[3])) if sum_ else 0
        if options.wrong_every and number % options.wrong_every == 0:
            value += 1
        choice = {"index": 0, "finish_reason": "stop", "text": str(value), "message": {"role": "assistant", "content": str(value)}}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        self.answer(
            200,
            {"id": "toy", "object": "chat.completion", "created": int(time.time()), "model": "toy", "choices": [choice], "usage": usage},
        )


if options.exit_at_once:
    print("RuntimeError: CUDA out of memory (the toy model was told to say so)", file=sys.stderr, flush=True)
    sys.exit(options.exit_at_once)
time.sleep(options.startup_delay)
print(f"the toy model listens on {options.port}", flush=True)
ThreadingHTTPServer(("0.0.0.0", options.port), Handler).serve_forever()
