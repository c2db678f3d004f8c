"""What the odd tasks do: see framework.yml."""

import argparse
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--task", required=True)
parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--samples", type=int, required=True)
parser.add_argument("--seconds", type=float, required=True, help="after each line")
parser.add_argument("--url", required=True)
options = parser.parse_args()

if options.task == "rude":
    print("\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m words\x08\x08\rlast words", flush=True)
elif options.task == "impatient":
    import requests

    requests.post(options.url, json={"model": "toy", "messages": [{"role": "user", "content": "1+1"}]}, timeout=0.5)
elif options.task == "failing" and not (options.out / "fixed").exists():
    sys.exit("ValueError: the odd task fails as it was told")

done = options.out / "lines"
begin = len(done.read_text()) if done.exists() else 0
with done.open("a") as file:
    for number in range(begin, options.samples):
        print(f"line {number + 1} of {options.samples}.", flush=True)
        file.write("x")
        file.flush()
        time.sleep(options.seconds)
(options.out / "task").write_text(options.task)
