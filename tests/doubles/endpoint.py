"""A double of an OpenAI-compatible endpoint, for what no real one can be asked to do here: refuse keys, fail, be slow, or die.

In a test: `with Endpoint(status=401) as endpoint: endpoint.url`. As a server: `python tests/doubles/endpoint.py --port 8080 --delay 0.5`.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import Self


class Endpoint:
    """Answers `text` to every chat request, or `status`; keeps the Authorization headers and paths that it was sent."""

    def __init__(self, port: int = 0, status: int = 200, delay: float = 0.0, die_after: int = 0, text: str = "Paris", healthy: bool = True):
        self.authorizations: list[str | None] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200 if healthy else 503, {})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.authorizations.append(self.headers.get("Authorization"))
                outer.paths.append(self.path)
                if die_after and len(outer.paths) >= die_after:
                    os._exit(7)
                time.sleep(delay)
                code = status if self.path == "/v1/chat/completions" else 404
                message = {"role": "assistant", "content": text}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self.answer(
                    code, {"choices": [choice], "usage": usage} if code == 200 else {"error": {"message": f"the double says {code}"}}
                )

            def answer(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
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
