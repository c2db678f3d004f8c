"""helpers/executors/slurm/failures.py: why a task failed, out of the ends of its logs, with the fix."""

from __future__ import annotations

import re

import pytest

from helpers.executors.slurm import failures
from helpers.executors.slurm.failures import CAUSES, Explained, explain, telling_lines
from helpers.executors.slurm.verdict import Job, Seen, Verdict
from helpers.executors.states import ENDED

# What a job's own log begins with, when it runs with `set -x`.
XTRACE = """\
+ srun --mpi pmix --overlap --container-image nvcr.io/x#y:1 --output /r/t.0/logs/client-5.log bash -c 'error: nothing'
+ for _pid in "${SERVER_PIDS[@]}"
+ echo 'Connection refused is what we print if it failed'
"""
PYXIS = """\
pyxis: importing docker image: nosuch.example/x:1
slurmstepd: error: pyxis: child 4711 failed with error code: 1
slurmstepd: error: pyxis: failed to import docker image
slurmstepd: error: pyxis: printing enroot log file:
slurmstepd: error: pyxis:     [ERROR] Could not process JSON input
slurmstepd: error: spank: required plugin spank_pyxis.so: task_init() failed with rc=-1
srun: error: n1: task 0: Exited with exit code 1
"""
SQSH = """\
slurmstepd: error: pyxis: container start failed with error code: 1
slurmstepd: error: pyxis:     [ERROR] No such file or directory: /lustre/images/gone.sqsh
slurmstepd: error: pyxis: couldn't start container
"""
NO_PYXIS = """\
srun: unrecognized option '--container-image'
Try "srun --help" for more information
HEAD_NODE_IPS: 10.0.0.5
"""
NO_PYXIS_ON_THE_NODE = 'error: Warning: SPANK plugin "pyxis" option "container-image" not found\n'
# Slurm 22.05 without the plugin, Slurm 23 without the library, and older ones.
NO_PMIX_PLUGIN = """\
srun: error: Couldn't find the specified plugin name for mpi/pmix looking at all files
srun: error: cannot find mpi plugin for mpi/pmix
srun: error: MPI: Unable to load any plugin
srun: error: Invalid MPI type 'pmix', --mpi=list for acceptable types
"""
NO_PMIX_LIBRARY = """\
srun: error:  mpi/pmix_v5: init: (null) [0]: mpi_pmix.c:193: pmi/pmix: can not load PMIx library
srun: error: Couldn't load specified plugin name for mpi/pmix: Plugin init() callback failed
srun: error: Invalid MPI type 'pmix', --mpi=list for acceptable types
"""
OLD_PMIX = 'srun: error: "--mpi=pmix" -- long invalid MPI type, --mpi=list for acceptable types.\n'
PROLOG = "Error running slurm prolog: 3\n"
STEP_PROLOG = "srun: error: Task launch for StepId=5.0 failed on node n1: Job prolog failed\n"
CUDA = """\
INFO 11-24 09:00:01 [gpu_model_runner.py:1] Starting to load model /checkpoint...
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB
[rank0]:[W1124] Warning: destroy_process_group() was not called
"""
HEALTH = """\
Waiting for server on port 8000 to be ready...
Health check timeout after 600s for 127.0.0.1:8000
"""
DIED = """\
Waiting for server on port 8000 to be ready...
server process 4242 died
"""
MAX_WALLTIME = """\
Previous job 4 ran for 04:00:12
Total accumulated walltime: 120:00:36 (max: 120:00:00)
ERROR: Maximum total walltime (120:00:00) exceeded. Accumulated: 120:00:36
Stopping job chain to prevent infinite resuming.
"""
OOM = """\
slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.1. Some of your processes may have been killed.
srun: error: n1: task 0: Out Of Memory
"""
DISK = """\
  File "/usr/lib/python3.12/shutil.py", line 1
OSError: [Errno 28] No space left on device: '/results/cache/x'
"""
QUOTA = "write /r/t.0/logs/slurm-5.log: Disk quota exceeded\n"
READ_TIMEOUT = """\
Traceback (most recent call last):
urllib3.exceptions.ReadTimeoutError: HTTPConnectionPool(host='127.0.0.1', port=8000): Read timed out. (read timeout=3600)
"""
OPENAI_TIMEOUT = "openai.APITimeoutError: Request timed out.\n"
ASYNC_TIMEOUT = "asyncio.exceptions.TimeoutError\n"
REFUSED = """\
requests.exceptions.ConnectionError: HTTPConnectionPool(host='127.0.0.1', port=8000): Max retries exceeded with url: /v1/chat/completions
(Caused by NewConnectionError('<urllib3.connection.HTTPConnection object at 0x7f>: Failed to establish: Connection refused'))
"""
RESET = "ConnectionResetError: [Errno 104] Connection reset by peer\n"
GATED = """\
huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1)
Cannot access gated repo for url https://huggingface.co/datasets/x.
"""
# As lm-evaluation-harness writes it, with vLLM's words.
CONTEXT = """\
API request failed with error message: {"error":{"message":"This model's maximum context length is 4096 tokens.","code":400}}. Retrying...
requests.exceptions.HTTPError: 400 Client Error: Bad Request for url: http://localhost:3825
"""

# name: the ends of the logs, the state that Slurm gave, the state and words that are told, and the log that is worth reading.
KNOWN: dict[str, tuple[dict[str, str], str, str, str, str]] = {
    **{
        f"{name} in {where}": ({"slurm": "server process 4711 died\n", where: text}, "FAILED", "FAILED", words, where)
        for name, text, words in (
            ("no Pyxis", NO_PYXIS, "no Pyxis.*unrecognized option '--container-image'.*choose a partition"),
            ("no Pyxis on the node", NO_PYXIS_ON_THE_NODE, "no Pyxis.*SPANK plugin.*choose a partition"),
            ("no PMIx plugin", NO_PMIX_PLUGIN, "cannot use PMIx.*plugin name for mpi/pmix.*libpmix"),
            ("no PMIx library", NO_PMIX_LIBRARY, "cannot use PMIx.*can not load PMIx library.*libpmix"),
            ("old PMIx", OLD_PMIX, "cannot use PMIx.*long invalid MPI type.*libpmix"),
            ("prolog", PROLOG, "(its prolog) failed.*Error running slurm prolog: 3.*exclude in env.toml"),
            ("prolog of a step", STEP_PROLOG, "(its prolog) failed.*Job prolog failed.*exclude in env.toml"),
        )
        for where in ("slurm", "server", "client")
    },
    "prolog by Slurm": ({"slurm": PROLOG}, "CANCELLED", "FAILED", "(its prolog) failed.*Error running slurm prolog: 3", "slurm"),
    "image": ({"slurm": XTRACE + PYXIS}, "FAILED", "FAILED", "image was not found or cannot be read.*check deployment.image", "slurm"),
    "image of the server": ({"slurm": "server process 4711 died\n", "server": PYXIS}, "FAILED", "FAILED", "image was not found", "server"),
    "image of the task": ({"slurm": XTRACE, "client": PYXIS}, "FAILED", "FAILED", "image was not found", "client"),
    "squashed image": ({"slurm": XTRACE + SQSH}, "FAILED", "FAILED", "image was not found or cannot be read", "slurm"),
    "GPU memory": (
        {"slurm": XTRACE + DIED, "server": CUDA}, "FAILED", "FAILED", "ran out of GPU memory.*tensor_parallel_size", "server",
    ),
    "health": (
        {"slurm": XTRACE + HEALTH, "server": "loading\n"},
        "FAILED",
        "FAILED",
        "health check timed out.*endpoint_readiness_timeout",
        "server",
    ),
    "server died": ({"slurm": XTRACE + DIED, "server": "x\n"}, "FAILED", "FAILED", "died before it was ready.*WHICH=server", "server"),
    "judge died": ({"slurm": "judge server process 7 died\n"}, "FAILED", "FAILED", "died before it was ready", "server"),
    "max_walltime": (
        {"slurm": MAX_WALLTIME, "client": "50%\n"}, "FAILED", "TIMED_OUT", "max_walltime was reached.*execution.max_walltime", "client",
    ),
    "memory": ({"slurm": XTRACE + OOM, "client": "x\n"}, "FAILED", "OUT_OF_MEMORY", "more memory than the job had.*mem in env", "client"),
    "memory by Slurm": ({"slurm": OOM}, "OUT_OF_MEMORY", "OUT_OF_MEMORY", "more memory than the job had", "client"),
    "disk": ({"client": DISK}, "FAILED", "FAILED", "the cluster's disk is full; .*free space there", "client"),
    "quota": ({"slurm": QUOTA}, "FAILED", "FAILED", "the cluster's disk is full", "slurm"),
    "read timeout": ({"client": READ_TIMEOUT}, "FAILED", "FAILED", "requests timed out.*request_timeout=7200", "client"),
    "openai timeout": ({"client": OPENAI_TIMEOUT}, "FAILED", "FAILED", "requests timed out", "client"),
    "async timeout": ({"client": ASYNC_TIMEOUT}, "FAILED", "FAILED", "requests timed out", "client"),
    "server gone": ({"client": REFUSED, "server": "Killed\n"}, "FAILED", "FAILED", "stopped answering.*WHICH=server", "server"),
    "server reset": ({"client": RESET, "server": "Killed\n"}, "FAILED", "FAILED", "the model server stopped answering", "server"),
    "context": ({"client": CONTEXT}, "FAILED", "FAILED", "answers 400: This model's maximum context.*max_new_tokens", "client"),
    "gated": ({"client": GATED}, "FAILED", "FAILED", "a key or a token was refused.*check env_vars", "client"),
}  # fmt: skip


def explained(logs: dict[str, str], state: str = "FAILED", reason: str = "", code: int | None = 1, scores: int | None = None) -> Explained:
    tails = {kind: [line.strip() for line in text.splitlines() if line.strip()] for kind, text in logs.items()}
    seen = Seen(first=5, tails=tails, logs=dict.fromkeys(tails, "x"), scores=scores)
    return explain(Verdict(state, reason, Job(5, state, exit_code=code), 1, (5,)), seen)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_failure_is_reported_with_its_fix_and_the_log_that_shows_it(name: str) -> None:
    logs, given, state, words, log = KNOWN[name]
    found = explained(logs, given)
    assert found.state == state
    assert found.log == log
    parts = words.split(".*")
    position = -1
    for part in parts:
        position = found.reason.index(part, position + 1)
    assert "exit code 1" in found.reason
    assert "\n" not in found.reason


def test_each_known_cause_has_a_log_that_shows_it_first() -> None:
    found = set()
    for logs, *_ in KNOWN.values():
        for number, cause in enumerate(CAUSES):
            lines = [line for line in logs.get(cause.where, "").splitlines() if not line.startswith("+")]
            if any(re.search(cause.words, line) for line in lines):
                found.add(number)
                break
    assert found == set(range(len(CAUSES)))


def test_a_request_that_times_out_is_fixed_by_the_very_words_that_make_takes() -> None:
    assert failures.REQUEST_TIMEOUT == 'SET="evaluation.nemo_evaluator_config.config.params.request_timeout=7200"'
    assert explained({"client": READ_TIMEOUT}).reason.endswith(failures.REQUEST_TIMEOUT)


def test_what_happened_first_is_reported_and_not_what_followed_from_it() -> None:
    logs = {"slurm": XTRACE + OOM + HEALTH, "server": CUDA, "client": REFUSED + READ_TIMEOUT}
    assert "ran out of GPU memory" in explained(logs).reason
    assert "health check timed out" in explained({**logs, "server": "x\n"}).reason
    assert "requests timed out" in explained({"client": logs["client"]}).reason


@pytest.mark.parametrize(
    "line",
    [
        "WARNING Failed to update progress: progress tracking server answers Connection refused",
        "HTTPConnectionPool(host='127.0.0.1', port=9): http://127.0.0.1:9 Max retries exceeded: Connection refused",
        "srun: forcing job termination",
        "slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 2026-11-24T09:00:00 DUE TO SIGNAL Terminated ***; Job step aborted",
        "srun: error: n1: task 0: Killed",
        "srun: error: n1: task 0: Terminated",
        "+ echo 'error: Connection refused, Read timed out'",
        "log_failed_requests: true",
    ],
)
def test_lines_that_speak_of_trouble_and_are_none_are_passed_over(line: str) -> None:
    assert telling_lines(["ValueError: the real one", line]) == ["ValueError: the real one"]
    assert telling_lines([line]) == []
    found = explained({"client": f"RuntimeError: the real one\n{line}\n"})
    assert "RuntimeError: the real one" in found.reason
    assert "stopped answering" not in found.reason
    assert "timed out" not in found.reason


def test_lines_of_trouble_are_the_last_three_of_the_best_kind() -> None:
    mixed = ["a warning: refused", *(f"ValueError: {number}" for number in range(5)), "connection failed"]
    assert telling_lines(mixed) == ["ValueError: 2", "ValueError: 3", "ValueError: 4"]
    assert telling_lines(["one", "it failed", "two"]) == ["it failed"]
    assert telling_lines(["one", "two"]) == ["two"], "nothing speaks of trouble: the very last line"
    assert telling_lines([]) == []
    assert telling_lines(["ValueError: " + "x" * 1000]) == ["ValueError: " + "x" * 288]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("TIMED_OUT", "the job reached its walltime; .*raise time in env.toml"),
        ("OUT_OF_MEMORY", "the job used more memory than it had; .*raise mem"),
        ("NODE_FAILED", "its node failed; .*`make resume` runs it again"),
        ("PREEMPTED", "a job of higher priority took its node; .*`make resume` runs it again"),
        ("CANCELLED", "it was cancelled; .*`make resume` runs it again"),
    ],
)
def test_a_state_tells_its_own_story_where_no_log_does(state: str, words: str) -> None:
    found = explained({"client": "50%|#####     | 20/40\n"}, state, code=None)
    assert found.state == state
    for part in words.split(".*"):
        assert part in found.reason
    assert set(failures.BY_STATE) == ENDED - {"SUCCEEDED", "FAILED"}


def test_of_a_cancelled_task_the_logs_do_not_count() -> None:
    found = explained({"client": READ_TIMEOUT, "slurm": OOM}, "CANCELLED", code=143)
    assert found.reason == "it was cancelled; exit code 143; `make resume` runs it again"
    assert found.errors == []


@pytest.mark.parametrize(("text", "line"), [(NO_PYXIS, "srun: unrecognized"), (PROLOG, "Error running slurm prolog: 3")])
def test_the_line_that_shows_why_a_step_cannot_start_is_among_the_errors(text: str, line: str) -> None:
    assert any(one.startswith(line) for one in explained({"slurm": XTRACE + text + DIED}).errors)


def test_a_notice_about_pmix_in_a_job_that_started_hides_no_other_cause() -> None:
    assert "ran out of GPU memory" in explained({"slurm": DIED, "server": NO_PMIX_LIBRARY + CUDA}).reason


def test_an_unknown_failure_is_reported_with_the_exit_code_and_the_line_that_tells() -> None:
    found = explained({"client": "10%\nValueError: no such subject: maths\ndone\n", "server": "ok\n"}, code=2)
    assert found.reason == "exit code 2; ValueError: no such subject: maths"
    assert (found.log, found.errors) == ("client", ["ValueError: no such subject: maths"])


def test_the_reason_of_the_verdict_comes_first_and_scores_are_not_kept_back() -> None:
    found = explained({}, reason="the job ended without results.yml", code=None, scores=3)
    assert found.reason == "the job ended without results.yml; results.yml has scores nevertheless"
    assert found.log == "slurm"


@pytest.mark.parametrize(
    ("logs", "log"), [({"client": "x", "server": "y", "slurm": "z"}, "client"), ({"server": "y", "slurm": "z"}, "server"), ({}, "slurm")]
)
def test_the_log_worth_reading_is_the_client_s_then_the_server_s_then_the_job_s(logs: dict[str, str], log: str) -> None:
    assert explained(logs).log == log


def test_a_reason_has_an_end() -> None:
    assert len(explained({"client": "ValueError: " + "x" * 5000}).reason) <= 600
