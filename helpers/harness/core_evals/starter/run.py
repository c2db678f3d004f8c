"""Ask a chat endpoint the questions of one starter task and write the results.

    python -m core_evals.starter.run --task capitals --output-dir out --model-url http://127.0.0.1:8080/v1 --model-id smollm2

Writes into the output folder
    total               before the first request: how many samples are asked
    predictions.jsonl   one line per sample: prompt, response, target, scores, status, error, and the sample with its source
    samples.json        last: {"task", "asked", "scored", "failed", "errors": {message: how often}, "answers", "refusals"}
A sample whose request fails after all retries, or whose answer carries nothing to score, is failed, not wrong: output.py scores the others
and refuses a task without any. asking.py counts both.

It is the runner of nemo_evaluator.contrib.byob with four differences: parallelism, timeout and retries hold whether or not the
package openai is installed (with it that runner takes a client that ignores them), the failed samples are counted, the endpoint's own words
are kept, and a limit may be a fraction.
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
from typing import Any

from core_evals.starter.asking import Asker
from nemo_evaluator.contrib.byob.dataset import load_dataset
from nemo_evaluator.contrib.byob.eval_logic import import_benchmark, run_eval_loop

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


def run_task(args: argparse.Namespace) -> None:
    """Ask the questions and write the files. Raises ValueError for a bad limit or a missing API key, before anything is asked."""
    benchmark = import_benchmark("core_evals.starter.benchmarks", args.task)
    rows = limited(load_dataset(benchmark.dataset), args.limit_samples)
    asker = Asker(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "samples.json").unlink(missing_ok=True)
    (args.output_dir / "total").write_text(str(len(rows)), encoding="utf-8")

    _, results = run_eval_loop(
        bench=benchmark,
        dataset=rows,
        model_call_fn=asker,
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
        "errors": dict(Counter(re.sub(r"0x[0-9a-f]+", "0x…", str(result.error)) for result in failed).most_common()),
        **asker.counts(),
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
