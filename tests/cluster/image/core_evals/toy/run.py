"""Ask the toy model sums or differences. Each answer is a line of answers.jsonl; a resumed job continues after the last whole line."""

import argparse
import json
import os
import time
from pathlib import Path

import requests

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=("sums", "differences"), required=True)
parser.add_argument("--url", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--samples", type=int, default=3)
parser.add_argument("--seconds", type=float, default=0, help="between two questions")
parser.add_argument("--api-key-name")
options = parser.parse_args()

answers = options.out / "answers.jsonl"
whole = [line for line in answers.read_text().splitlines(keepends=True) if line.endswith("\n")] if answers.exists() else []
answers.write_text("".join(whole))
key = os.environ.get(options.api_key_name or "", "none")
with answers.open("a") as file:
    for number in range(len(whole), options.samples):
        question, right = (f"{number}+{number}", 2 * number) if options.task == "sums" else (f"{2 * number}-{number}", number)
        message = {"role": "user", "content": question}
        response = requests.post(
            options.url, json={"model": options.model, "messages": [message]}, headers={"Authorization": f"Bearer {key}"}, timeout=30
        )
        response.raise_for_status()
        text = response.json()["choices"][0]["message"]["content"]
        row = {"task": options.task, "question": question, "answer": text, "right": text.strip() == str(right)}
        file.write(json.dumps(row) + "\n")
        file.flush()
        print(json.dumps(row), flush=True)
        time.sleep(options.seconds)
