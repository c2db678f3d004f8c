"""scripts/squash_image.py and clean_images.py: what is typed wrong is refused in one line, and nothing is contacted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT

pytestmark = pytest.mark.slow

ENV = '[CLUSTER]\nexecutor = "slurm"\naccount = "a"\nhost = "login.invalid"\nremote_job_dir = "/r"\n[HERE]\nexecutor = "local"\n'


def run(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The script, with an env.toml of the test's own, and an ssh that must not be called."""
    (folder / "env.toml").write_text(ENV)
    (folder / "ssh").write_text(f"#!/bin/sh\ntouch '{folder}/called'\nexit 255\n")
    (folder / "ssh").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "EVALMAKE_ENV_FILE": str(folder / "env.toml")}
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


IMAGE = "--reference=nvcr.io/nvidia/nemo:25.11"


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("squash_image.py", [], "give either --config or --reference"),
        ("squash_image.py", ["--config=x", IMAGE], "give either --config or --reference"),
        ("squash_image.py", [IMAGE, "--profile=CLUSTER", "--imports=0"], "IMPORTS=0: expected a number"),
        ("squash_image.py", [IMAGE, "--profile=CLUSTER", "--imports=many"], "IMPORTS=many: expected a number"),
        ("squash_image.py", [IMAGE], "PROFILE is missing; name the profile of a cluster: CLUSTER"),
        ("squash_image.py", [IMAGE, "--profile=CLUSTR"], "CLUSTER"),
        ("squash_image.py", [IMAGE, "--profile=HERE"], 'expected a profile with executor = "slurm" and a host'),
        ("squash_image.py", ["--reference=a:$(reboot)", "--profile=CLUSTER"], "contains $("),
        ("clean_images.py", [], "PROFILE is missing"),
        ("clean_images.py", ["--profile=HERE"], 'expected a profile with executor = "slurm" and a host'),
    ],
)
def test_what_is_typed_wrong_is_refused_in_one_line(tmp_path: Path, script: str, words: list[str], said: str) -> None:
    done = run(tmp_path, script, *words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (tmp_path / "called").exists()
    assert done.stdout == ""


def test_a_cluster_that_cannot_be_reached_is_no_failed_import(tmp_path: Path) -> None:
    done = run(tmp_path, "squash_image.py", IMAGE, "--profile=CLUSTER")
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "called").exists()
