"""Ask a chat endpoint the questions of one starter task and write the results.

    python -m core_evals.starter.run --task capitals --output-dir out --model-url http://127.0.0.1:8080/v1 --model-id smollm2

Writes into the output folder
    total               before the first request: how many samples are asked
    predictions.jsonl   one line per sample: prompt, response, target, scores, status, error, and the sample with its source
    samples.json        last: {"task", "asked", "scored", "failed", "errors": {message: how often}}
A sample whose request fails after all retries is failed, not wrong: output.py scores the others and refuses a task without any.

It is the runner of nemo_evaluator.contrib.byob with three differences: parallelism, timeout and retries hold whether or not the
package openai is installed (with it that runner takes a client that ignores them), the failed samples are counted, and a
limit may be a fraction.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_evaluator.contrib.byob.dataset import load_dataset
from nemo_evaluator.contrib.byob.eval_logic import import_benchmark, run_eval_loop
from nemo_evaluator.contrib.byob.runner import call_model_chat, create_session
from nemo_evaluator.core.utils import get_api_key_from_env

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = ("capitals", "continents", "languages", "opposites")


def limited(rows: list[dict[str, Any]], limit: float | None) -> list[dict[str, Any]]:
    """Return the first `limit` rows; below 1 it is a fraction of them, rounded up; None is all.

    Raises ValueError when the limit is not positive.
    """
    if limit is None:
        return rows
    if not limit > 0:
        message = f"limit_samples is {limit:g}: give a number of samples, or a fraction between 0 and 1"
        raise ValueError(message)
    return rows[: math.ceil(limit * len(rows)) if limit < 1 else int(limit)]


def chat_caller(args: argparse.Namespace) -> Callable[..., str]:
    """Return the function that sends one prompt and returns the response text; it raises requests' errors.

    Raises ValueError when the environment lacks the variable that --api-key-name names.
    """
    api_key = get_api_key_from_env(args.api_key_name)
    session = create_session(max_retries=args.max_retries)
    base = args.model_url.rstrip("/").removesuffix("/chat/completions")

    def call(prompt: str, _endpoint_type: str, *, system_prompt: str | None = None, timeout: float | None = None) -> str:
        text: str = call_model_chat(
            base,
            args.model_id,
            prompt,
            temperature=args.temperature,
            max_tokens=args.max_new_tokens,
            top_p=args.top_p,
            api_key=api_key,
            timeout=args.request_timeout if timeout is None else timeout,
            session=session,
            system_prompt=system_prompt,
        )
        return text

    return call


def run_task(args: argparse.Namespace) -> None:
    """Ask the questions and write the files. Raises ValueError for a bad limit or a missing API key, before anything is asked."""
    benchmark = import_benchmark("core_evals.starter.benchmarks", args.task)
    rows = limited(load_dataset(benchmark.dataset), args.limit_samples)
    call = chat_caller(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "samples.json").unlink(missing_ok=True)
    (args.output_dir / "total").write_text(str(len(rows)), encoding="utf-8")

    _, results = run_eval_loop(
        bench=benchmark,
        dataset=rows,
        model_call_fn=call,
        endpoint_type="chat",
        save_predictions=True,
        parallelism=args.parallelism,
        request_timeout=args.request_timeout,
    )
    failed = [result for result in results if result.status != "scored"]
    lines = (json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)
    (args.output_dir / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    summary = {
        "task": args.task,
        "asked": len(rows),
        "scored": len(rows) - len(failed),
        "failed": len(failed),
        "errors": dict(Counter(re.sub(r"0x[0-9a-f]+", "0x…", f"{result.status}: {result.error}") for result in failed).most_common()),
    }
    (args.output_dir / "samples.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the defaults that matter are in framework.yml."""
    parser = argparse.ArgumentParser(prog="python -m core_evals.starter.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--output-dir", required=True, type=Path, metavar="DIR", help="folder for the files")
    parser.add_argument("--model-url", required=True, metavar="URL", help="the endpoint, with or without /chat/completions at its end")
    parser.add_argument("--model-id", required=True, metavar="NAME", help="the model's name at the endpoint")
    parser.add_argument("--api-key-name", metavar="VARIABLE", help="the environment variable that holds the API key")
    parser.add_argument("--limit-samples", type=float, metavar="N", help="ask the first N samples; below 1 that fraction of them")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="sampling temperature (default: %(default)s)")
    parser.add_argument("--top-p", type=float, metavar="P", help="nucleus sampling; not sent when absent")
    parser.add_argument("--max-new-tokens", type=int, default=16, metavar="N", help="tokens of a response (default: %(default)s)")
    parser.add_argument("--parallelism", type=int, default=4, metavar="N", help="requests at a time (default: %(default)s)")
    parser.add_argument("--request-timeout", type=float, default=60.0, metavar="SECONDS", help="for one try (default: %(default)s)")
    parser.add_argument("--max-retries", type=int, default=3, metavar="N", help="after a first failure (default: %(default)s)")
    return parser


def main() -> int:
    """Run one task; return the exit code."""
    args = build_parser().parse_args()
    try:
        run_task(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
