"""Serve one GGUF checkpoint over an OpenAI-compatible HTTP endpoint, with xllamacpp's own server.

It serves until SIGTERM or SIGINT, which end it at once. When it is ready it prints one line on stderr,
`serving NAME at http://HOST:PORT/v1/chat/completions`, and GET /health answers 200.

    python -m helpers.executors.process.local_model --checkpoint model.gguf --port 8080 --served-model-name smollm2

Exit codes: 1 it cannot serve (xllamacpp missing, port taken, checkpoint refused), 2 bad arguments, 128 + N ended by signal N.
"""

import argparse
import importlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from helpers.common import command_line
from helpers.common.errors import BadInput, StepFailed

GGUF_MAGIC = b"GGUF"
# Tokens of prompt and answer together, for one request. The starter benchmarks need fewer than 200.
DEFAULT_CONTEXT = 2048
# Four requests at a time keep two cores busy; more only wait for each other (see parallelism in the harness).
DEFAULT_PARALLEL = 4


def default_threads() -> int:
    """Return the number of threads to compute with: all cores but one, which the harness needs to keep the server busy.

    Measured with 16 short answers on two busy cores: 2 spinning threads 43 to 179 s, 2 sleeping threads 35 s, 1 sleeping thread 8 to 9 s.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # those that we may run on
    return max(1, cores - 1)


def check_checkpoint(path: Path) -> None:
    """Raise BadInput unless `path` is a readable file that begins as GGUF files do."""
    if not path.is_file():
        raise BadInput(f"no checkpoint file at {path}; give --checkpoint the path of a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as err:
        raise BadInput(f"cannot read the checkpoint {path}: {err.strerror}; give this user read permission") from err
    if magic != GGUF_MAGIC:
        raise BadInput(f"{path} is not a GGUF file (it begins with {magic!r}); convert the checkpoint to GGUF first")


def check_port(host: str, port: int) -> None:
    """Raise BadInput for an unknown host, StepFailed unless a server can listen on `host`:`port` now."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as err:
        raise BadInput(f"cannot listen on host {host!r}: {err.strerror}; give --host an address of this machine") from err
    with socket.socket(family, kind) as probe:
        # Without this, a port whose last connections are still in TIME_WAIT would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as err:
            raise StepFailed(f"cannot listen on {host} port {port}: {err.strerror}; stop what listens there or give another port") from err


def start_server(args: argparse.Namespace) -> Any:
    """Load the checkpoint and return the running xllamacpp.Server; raise BadInput or StepFailed when it cannot run."""
    # xllamacpp gives the same error for a missing file and a taken port, so both are checked first.
    check_checkpoint(args.checkpoint)
    check_port(args.host, args.port)
    try:
        xllamacpp = importlib.import_module("xllamacpp")
    except ImportError as err:
        raise StepFailed(f"xllamacpp cannot be imported ({err}); install it with `make .venv/installed/local`") from err
    params = xllamacpp.CommonParams()
    params.model.path = str(args.checkpoint)
    params.model_alias = {args.served_model_name}
    params.hostnames = [args.host]
    params.port = args.port
    params.n_parallel = args.parallel
    params.n_ctx = args.context * args.parallel  # the server divides n_ctx among its slots
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = args.threads
        cpu.poll = 0  # spinning threads cost minutes on a busy machine, see default_threads
    try:
        return xllamacpp.Server(params)
    except RuntimeError as err:
        message = f"xllamacpp cannot serve {args.checkpoint}: {err} The lines above say why; often the file is damaged or memory is short"
        raise StepFailed(message) from err


def positive(text: str) -> int:
    """Return `text` as an integer of at least 1; raise ValueError otherwise."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def port_number(text: str) -> int:
    """Return `text` as a port from 1 to 65535; raise ValueError otherwise."""
    number = positive(text)
    if number > 65535:  # noqa: PLR2004  the largest port there is
        raise ValueError(text)
    return number


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m helpers.executors.process.local_model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the GGUF file to serve")
    parser.add_argument("--port", type=port_number, required=True, metavar="N", help="port to listen on, 1 to 65535")
    parser.add_argument("--served-model-name", required=True, metavar="NAME", help="the name that requests and /v1/models use")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    for name, default, text in (
        ("--context", DEFAULT_CONTEXT, "tokens of a request and its answer (default: %(default)s)"),
        ("--parallel", DEFAULT_PARALLEL, "requests served at a time (default: %(default)s)"),
        ("--threads", default_threads(), "CPU threads (default: all usable cores but one, %(default)s)"),
    ):
        parser.add_argument(name, type=positive, default=default, metavar="N", help=text)
    return parser


def main(argv: list[str]) -> None:
    """Serve until a signal ends the process. Raises BadInput or StepFailed when serving is not possible."""
    # The system's own action ends the process at once, even while it loads; the server leaves no files behind.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_DFL)
    args = build_parser().parse_args(argv)
    server = start_server(args)
    print(f"serving {args.served_model_name} at {server.listening_address}/v1/chat/completions", file=sys.stderr, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    with command_line.errors_as_exit_codes():
        main(sys.argv[1:])
