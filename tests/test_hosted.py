"""hosted.yaml end to end, against a double of a hosted endpoint: keys arrive and stay secret, and each failure says its fix."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

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
