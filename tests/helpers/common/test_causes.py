"""helpers/common/causes.py: the one table of texts that programs print when something fails."""

from __future__ import annotations

import re
import string

import pytest

from helpers.common import causes
from helpers.common.causes import ANY, CAUSES, UNNAMED, Cause, find, telling

# A log of each kind that shows what no other test of the table has: the kind, what is printed, words of the cause and of the fix.
SAID = [
    (
        "server",
        "(EngineCore_DP0 pid=9) ERROR 11-24 09:00:03 [core.py:708] torch.OutOfMemoryError: CUDA out of memory.",
        "GPU memory",
        "lower",
    ),
    ("server", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "GPU memory", "lower"),
    (
        "server",
        "User-specified max_model_len (65536) is greater than the derived max_model_len (max_position_embeddings=8192.0)",
        "--max-model-len is more than the checkpoint's config.json allows",
        "lower it",
    ),
    (
        "server",
        "ValueError: Total number of attention heads (9) must be divisible by tensor parallel size (8).",
        "attention heads",
        "divides",
    ),
    ("server", "OSError: [Errno 98] Address already in use", "another program on the node uses the server's port", "deployment.port="),
    ("server", "/bin/bash: line 1: deployment_cmd.sh: Read-only file system", "read-only", "PYXIS_CONTAINER_WRITABLE"),
    ("client", "/bin/bash: line 1: config_ef.yaml: Read-only file system", "read-only", "PYXIS_CONTAINER_WRITABLE"),
    ("client", "AssertionError: Tokenizer is required for loglikelihood tasks", "given no tokenizer", "tokenizer_backend=huggingface"),
    ("client", "ValueError: Couldn't instantiate the backend tokenizer from one of: ", "cannot read the tokenizer", "mounts.evaluation"),
    ("client", "401 Client Error: Unauthorized for url: https://huggingface.co/api/datasets/x", "Hugging Face refuses", "HF_TOKEN"),
    ("client", "403 Client Error: Forbidden for url: https://huggingface.co/datasets/x", "Hugging Face refuses", "HF_TOKEN"),
    ("client", "datasets.exceptions.DatasetNotFoundError: Dataset 'x' is a gated dataset on the Hub.", "Hugging Face refuses", "HF_TOKEN"),
    (
        "client",
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
        "Docker cannot give the container a GPU",
        "NVIDIA Container Toolkit",
    ),
    ("slurm", "srun: error: pyxis:     tar: ./opt/blob: Wrote only 5632 of 10240 bytes", "on the node", "another partition"),
    ("slurm", "pyxis:     [INFO] Authenticating with user: me", "refuses the credentials", "password that is valid"),
    ("client", "\x1b[31mValueError: Couldn't instantiate the backend tokenizer\x1b[0m", "cannot read the tokenizer", "mounts.evaluation"),
]

# What the tests of images and of Slurm's tasks go into.
MORE = [
    ("slurm", "Error running slurm prolog: 3"),
    ("import", "Error running slurm prolog: 3"),
    ("slurm", "srun: unrecognized option '--container-image'"),
    ("daemon", "Error: a/b:1: image not known"),
    ("known", "[ERROR] URL https://r.example/v2/a/b/manifests/1 returned error code: 404 Not Found"),
    ("import", "enroot-nsenter: failed to create user namespace: No space left on device"),
    ("import", "tar: x: Cannot write: No space left on device"),
    ("import", "/usr/bin/enroot: line 5:  4242 Killed   mksquashfs"),
    ("import", "[INFO] Downloading 5 missing layers...\n\ncurl: (22) The requested URL returned error: 404\n[INFO] x"),
    ("import", "curl: (6) Could not resolve host: r.example"),
    ("import", "curl: (60) SSL certificate problem: unable to get local issuer certificate"),
    ("import", "curl: (18) transfer closed with 5 bytes remaining to read"),
    ("import", "Checksum mismatch: 3c2cba919283"),
    ("import", "[ERROR] URL https://r.example/v2/a returned error code: 429 Too Many Requests"),
    ("import", "[ERROR] URL https://r.example/v2/a returned error code: 503 Service Unavailable"),
    ("import", "[ERROR] Could not process JSON input"),
    ("import", "[ERROR] URL https://r.example/v2/a returned error code: 401 Unauthorized"),
    ("import", "[ERROR] Command not found: jq"),
    ("import", "[ERROR] URL https://r.example/v2/a/b/manifests/1 returned error code: 404 Not Found"),
    ("import", "no image found in manifest list for architecture arm64"),
    ("import", "create_inode: could not create character device /dev/full"),
    ("import", "enroot-aufs2ovlfs: failed to set capabilities: Operation not permitted"),
    ("import", 'enroot-mksquashovlfs: Compressor "lzo" is not supported!'),
    ("import", "enroot-aufs2ovlfs: failed to create ovlfs whiteout: /x: Operation not permitted"),
    ("import", "[ERROR] Invalid image reference: docker://r.example/a:1"),
    ("import", "the image was not found"),
    ("import", "mkdir: cannot create directory '/x': Permission denied"),
    ("server", "slurmstepd: error: pyxis:     [ERROR] Invalid image format: /x.sqsh"),
    ("slurm", "Health check timeout after 600s for 127.0.0.1:8000"),
    ("slurm", "srun: error: Invalid MPI type 'pmix', --mpi=list for acceptable types"),
    ("slurm", "server process 4242 died"),
    ("slurm", "ERROR: Maximum total walltime (120:00:00) exceeded. Accumulated: 120:00:36"),
    ("slurm", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.1."),
    ("client", "OSError: [Errno 28] No space left on device: '/results/cache/x'"),
    ("client", "openai.APITimeoutError: Request timed out."),
    ("client", "ConnectionResetError: [Errno 104] Connection reset by peer"),
    ("client", "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: http://localhost:27130/v1"),
]


@pytest.mark.parametrize(("log", "said", "what", "fix"), SAID)
def test_a_text_has_its_cause_and_its_fix_whether_the_kind_of_its_log_is_known_or_not(log: str, said: str, what: str, fix: str) -> None:
    for kind in (log, ANY):
        found = find({kind: ["before", said, "after" if "[INFO]" not in said else ""]})
        assert found
        assert what in found.what
        assert fix in found.fix


def test_each_text_can_be_filled_in_and_is_an_expression_for_a_known_kind_of_log() -> None:
    for cause in CAUSES:
        re.compile(cause.words)
        assert set(cause.logs.split()) <= {*causes.NODE.split(), *causes.IMPORT_LOGS, "pyxis"}
        names = {name for text in (cause.what, cause.fix) for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        assert names <= set(UNNAMED)


def test_each_cause_is_shown_by_a_log_here() -> None:
    """So none is hidden by another one, and none has words that nothing says."""
    shown = [find({log: said.split("\n")}) for log, said, *_ in [*SAID, *MORE]]
    assert None not in shown
    assert [cause for cause in CAUSES if cause not in [found.cause for found in shown if found]] == []


def test_the_registry_is_that_of_the_address_in_the_log_unless_it_is_known() -> None:
    line = "[ERROR] URL https://r.example:5000/v2/a/b/manifests/1 returned error code: 404 Not Found"
    assert [found.what for found in [find({"import": [line]})] if found] == ["r.example:5000 has no such image (404)"]
    assert [found.what for found in [find({"import": [line]}, {"registry": "x", "name": "y"})] if found] == ["x has no y (404)"]


def test_what_enroot_says_counts_in_a_task_s_log_only_where_pyxis_quotes_it() -> None:
    assert find({"client": ["requests: 429 Too Many Requests", "model: manifest unknown", "Checksum mismatch"]}) is None
    found = find({"client": ["slurmstepd: error: pyxis:     [ERROR] URL https://r/v2/a returned error code: 429 Too Many Requests"]})
    assert found
    assert (found.log, found.line) == ("client", "[ERROR] URL https://r/v2/a returned error code: 429 Too Many Requests")


def test_of_several_lines_that_show_a_cause_the_one_that_says_why_is_taken() -> None:
    lines = ["pyxis: failed to import docker image", "pyxis:     [ERROR] No such file or directory: /x.sqsh", "spank: required plugin"]
    found = find({"slurm": lines})
    assert found
    assert found.line == "pyxis:     [ERROR] No such file or directory: /x.sqsh"


def test_the_name_of_a_step_is_no_cause() -> None:
    assert find({"import": ["[INFO] Converting whiteouts...", "[ERROR] something else"]}) is None


def test_the_first_cause_of_the_table_counts_in_whichever_log_it_is() -> None:
    first, second = Cause("server", "two", "a", "b"), Cause("client", "one", "c", "d")
    found = find({"client": ["one"], "server": ["two"]}, causes=[first, second])
    assert found
    assert found.cause is first


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["FATAL ERROR:Failed to write", "tar: it failed", "parallel: This job failed:"], "FATAL ERROR:Failed to write"),
        (["Compressor is not supported!", "something failed"], "Compressor is not supported!"),
        (["[INFO] Fetching", "[ERROR] odd", "pyxis: child 5 failed with error code: 1"], "[ERROR] odd"),
        (["[INFO] Fetching", "pyxis: child 5 failed with error code: 1"], "pyxis: child 5 failed with error code: 1"),
        (["ValueError: x", "[ERROR] logged on the way"], "ValueError: x"),
    ],
)
def test_a_line_with_an_error_wins_over_summaries_and_progress(lines: list[str], line: str) -> None:
    assert telling(lines)[-1] == line
