"""hosted.yaml end to end, against a double of a hosted endpoint: keys arrive and stay secret, and each failure says its fix."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from checkout import Make
from endpoint import Endpoint
from local_jobs import left

pytestmark = pytest.mark.slow

HOSTILE = "a b'c\"d$HOME`id`\\ü;#e"


PARAMS = "+evaluation.nemo_evaluator_config.config.params"


def hosted(url: str, *more: str) -> tuple[str, ...]:
    """The variables for one sample of one task at this URL, without retries, and with more overrides."""
    overrides = [f"target.api_endpoint.url={url}", "target.api_endpoint.model_id=m", f"{PARAMS}.max_retries=0", *more]
    return ("CONFIG=hosted", "SET=" + " ".join(overrides), "TASKS=opposites", "QUICK=1")


def tree(*folders: Path) -> Iterator[Path]:
    """Every file below the folders, not following links (.venv is one)."""
    for folder in folders:
        for place, _, names in os.walk(folder):
            yield from (Path(place) / name for name in names)


def test_secrets_arrive_unchanged_and_are_nowhere_else(make: Make, project: Path, tmp_path: Path, clean_env: dict[str, str]) -> None:
    planted = {
        name: f"{kind}-{secrets.token_hex(20)}" for name, kind in (("OPENAI_API_KEY", "sk"), ("WANDB_API_KEY", "wb"), ("HF_TOKEN", "hf"))
    }
    for name in ("HF_TOKEN",):
        planted[name] += HOSTILE
    environment = project / ".env"
    quoted = planted["HF_TOKEN"].replace("\\", "\\\\").replace("'", "\\'")
    environment.write_text(f"WANDB_API_KEY={planted['WANDB_API_KEY']}\nHF_TOKEN='{quoted}'\n")
    environment.chmod(0o600)
    seen = tmp_path / "seen-by-harness"  # a fingerprint only: the value itself must be in no file
    show = f'printf %s "$HF_TOKEN" | sha256sum > {seen}; printf %s "$LITERAL" >> {seen}'
    (project / "configs/mine.yaml").write_text(
        "defaults: [hosted, _self_]\n"
        'env_vars: {HF_TOKEN: host:HF_TOKEN, LITERAL: "lit:it\'s \\"quoted\\"\\nand $broken"}\n'
        f"evaluation: {{tasks: [{{name: opposites, pre_cmd: '{show}'}}]}}\n"
    )
    arguments: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for process in psutil.process_iter():
                try:
                    arguments.add("\0".join(process.cmdline()))
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Endpoint(text="hot") as endpoint:
        trust = {"OPENAI_API_KEY": planted["OPENAI_API_KEY"], "TMPDIR": str(scratch), "NEMO_EVALUATOR_TRUST_PRE_CMD": "1"}
        done = make("CONFIG=mine", "eval", *hosted(endpoint.url)[1:], "VERBOSE=1", env=trust)
    over.set()
    watcher.join()
    assert done.returncode == 0, done.stderr
    assert endpoint.authorizations == [f"Bearer {planted['OPENAI_API_KEY']}"]
    fingerprint, _, literal = seen.read_text().partition("\n")
    assert fingerprint.split()[0] == hashlib.sha256(planted["HF_TOKEN"].encode()).hexdigest()
    assert literal == 'it\'s "quoted"\nand $broken'
    assert any("core_evals.starter.run" in line for line in arguments), "the watch saw the harness"
    for name, value in planted.items():
        bare = value.removesuffix(HOSTILE)
        assert bare not in done.stdout + done.stderr, name
        assert not [line for line in arguments if bare in line], name
        found = [
            path for path in tree(project, Path(clean_env["HOME"]), scratch) if path != environment and bare.encode() in path.read_bytes()
        ]
        assert found == [], name


def test_each_failure_of_an_endpoint_is_reported_in_one_line_with_its_url_and_the_fix(make: Make, project: Path) -> None:
    """Five tasks of one run, each with an endpoint that fails in its own way."""
    with Endpoint() as gone:  # nobody listens there any more
        pass
    with Endpoint(status=401) as closed, Endpoint(status=500) as broken, Endpoint(delay=3) as slow, Endpoint() as good:
        expected = [
            ("opposites", "opposites", closed.url, "OPENAI_API_KEY"),
            ("capitals", "capitals.1", f"{good.base}/v1", "/v1/chat/completions"),
            ("continents", "continents", broken.url, "endpoint"),
            ("languages", "languages", gone.url, "target.api_endpoint.url"),
            ("capitals", "capitals.4", slow.url, "params.request_timeout"),
        ]
        tasks = [
            {
                "name": name,
                "nemo_evaluator_config": {
                    "config": {"params": {"limit_samples": 1, "max_retries": 0, "request_timeout": 1 if url == slow.url else 20}},
                    "target": {"api_endpoint": {"url": url}},
                },
            }
            for name, _, url, _ in expected
        ]
        document = {
            "defaults": ["hosted", "_self_"],
            "target": {"api_endpoint": {"url": good.url, "model_id": "m"}},
            "evaluation": {"tasks": tasks},
        }
        (project / "configs/mine.yaml").write_text(json.dumps(document))
        done = make("eval", "CONFIG=mine", env={"OPENAI_API_KEY": "sk"})
    assert done.returncode == 2
    assert "Error 4" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("✗ ")]
    assert len(lines) == len(expected), done.stderr
    for line, (_, label, url, told) in zip(lines, expected, strict=True):
        assert line.startswith(f"✗ {label} FAILED: ")
        assert told in line
        assert url in line
    assert len(set(re.findall(r"runs/\S+/jobs/\S+\.log", done.stderr))) == len(expected)
    results = json.loads(next(project.glob("runs/*/results.json")).read_text())
    assert results["rows"] == [], "no answer is no zero"
    assert left(next(project.glob("runs/*/jobs"))) == []


def run_of(project: Path, make: Make, endpoints: Sequence[Endpoint], *more: str) -> subprocess.CompletedProcess[str]:
    """`make eval` of the task opposites with six samples, once for each endpoint."""
    params = {"limit_samples": 6, "max_retries": 0}
    document = {
        "defaults": ["hosted", "_self_"],
        "target": {"api_endpoint": {"url": endpoints[0].url, "model_id": "m"}},
        "evaluation": {
            "tasks": [
                {
                    "name": "opposites",
                    "nemo_evaluator_config": {"config": {"params": params}, "target": {"api_endpoint": {"url": endpoint.url}}},
                }
                for endpoint in endpoints
            ]
        },
    }
    (project / "configs/mine.yaml").write_text(json.dumps(document))
    return make("eval", "CONFIG=mine", *more, env={"OPENAI_API_KEY": KEY})


KEY = "0123456789abcdefghij"  # in no form that is known
REFUSED = {"message": "Unsupported value: 'temperature' does not support 0.", "param": "temperature", "code": "unsupported_value"}
BUSY = {"message": "no capacity", "type": "overloaded_error"}
QUOTA = {"message": f"You exceeded your current quota ({KEY})", "type": "insufficient_quota", "code": "insufficient_quota"}
FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"shape": "null"}, ["6 of 6 answers were empty"]),
    ({"shape": "cut"}, ["6 of 6 answers were cut", "max_new_tokens"]),
    ({"shape": "html"}, ["6 of 6 answers were an HTML page", "target.api_endpoint.url"]),
    ({"shape": "stream"}, ["6 of 6 answers were an event stream"]),
    ({"shape": "error"}, ["an error with status 200: the model is not deployed"]),
    ({"shape": "number"}, ["6 of 6 answers were content that is no text"]),
    (
        {"status": 400, "error": REFUSED},
        ["answers 400: Unsupported value: 'temperature'", "adapter_config.params_to_remove=[temperature]"],
    ),
    ({"status": 429, "error": QUOTA}, ["answers 429: You exceeded your current quota (***)", "the account's quota is used up"]),
]


def test_an_endpoint_s_own_words_and_answers_that_carry_nothing_are_told_with_the_fix_and_are_no_zero(make: Make, project: Path) -> None:
    with contextlib.ExitStack() as stack:
        done = run_of(project, make, [stack.enter_context(Endpoint(**fault)) for fault, _ in FAULTS])
    assert "Error 4" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("✗ ")]
    assert len(lines) == len(FAULTS), done.stderr
    for line, (_, told) in zip(lines, FAULTS, strict=True):
        assert [part for part in told if part not in line] == [], line
    assert "Traceback" not in done.stderr
    assert "object has no attribute" not in done.stdout + done.stderr
    results = json.loads(next(project.glob("runs/*/results.json")).read_text())
    assert results["rows"] == [], "no answer is no zero"
    found = [(one["state"], one["answers"] and one["answers"]["seen"] - one["answers"]["scorable"]) for one in results["tasks"]]
    assert found == [("FAILED", 6)] * 6 + [("FAILED", None)] * 2
    assert [path for path in tree(project / "runs") if KEY.encode() in path.read_bytes()] == []


def test_some_answers_without_content_are_told_with_their_share_and_are_in_no_score(make: Make, project: Path) -> None:
    with (
        Endpoint(text="cold", shape="null", every=2) as half,
        Endpoint(shape="parts") as parts,
        Endpoint(status=503, error=BUSY, only="up") as busy,
    ):
        done = run_of(project, make, [half, parts, busy])
    assert done.returncode == 0, done.stderr
    assert "1 of 6 samples failed and count in no score; the endpoint answers 503: no capacity; the endpoint is overloaded" in done.stderr
    assert "3 of 6 answers were empty; " in done.stderr
    first, second, _ = json.loads(next(project.glob("runs/*/results.json")).read_text())["tasks"]
    assert (first["answers"]["seen"], first["answers"]["scorable"], first["answers"]["empty"], first["samples_failed"]) == (6, 3, 3, 3)
    assert (second["answers"]["scorable"], second["samples_failed"]) == (6, 0)
    rows = json.loads(next(project.glob("runs/*/results.json")).read_text())["rows"]
    assert [row["n"] for row in rows] == [3, 6, 5]


@pytest.mark.parametrize("parameter", ["temperature", "max_tokens"])
def test_the_fix_for_a_refused_parameter_makes_the_model_answer(make: Make, project: Path, parameter: str) -> None:
    error = {"message": "no", "param": parameter, "code": "unsupported_parameter"}
    with Endpoint(status=400, error=error, only=f'"{parameter}"') as endpoint:
        failed = run_of(project, make, [endpoint])
        fix = re.search(r'SET="(\S+)"', failed.stderr)
        assert fix, failed.stderr
        done = run_of(project, make, [endpoint], f"SET={fix[1]}")
    assert done.returncode == 0, done.stderr


def test_without_its_key_nothing_is_submitted(make: Make, project: Path) -> None:
    done = make("eval", *hosted("http://127.0.0.1:9/v1/chat/completions"))
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert not list(project.glob("runs/*/jobs"))


def test_the_user_s_proxy_is_used_for_a_hosted_url(make: Make) -> None:
    with Endpoint(text="hot") as proxy:  # a proxy is sent the whole URL as the path
        done = make(
            "eval",
            *hosted("http://models.invalid/v1/chat/completions"),
            env={"OPENAI_API_KEY": "sk", "HTTP_PROXY": proxy.base, "http_proxy": proxy.base},
        )
    assert "http://models.invalid/v1/chat/completions" in proxy.paths, done.stderr
