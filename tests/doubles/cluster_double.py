"""A double of a cluster for tests of submissions to it, and a config to submit."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.executors.slurm import job_scripts
from helpers.executors.slurm.submission import Submission

CLUSTER = Cluster("login.example", "ann")
RUN = "20261122T013512Z-mine-7f3a"
SEAL = "sha256:" + "0" * 64
TASKS = ["hellaswag", "adlr_mmlu", "hellaswag"]
NASTY = 'it\'s "quoted" $HOME ${HOME} `id` $(id) \\n \\ !x ; & | > < # *\nsecond line \t é'


@dataclass
class ClusterDouble:
    """A double of what helpers/cluster reaches: it notes what it is given, and answers prepare and submit with these frames."""

    prepare: list[Frame] = field(default_factory=list)
    submit: list[Frame] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)  # by TASK.N/FILE
    modes: dict[str, int] = field(default_factory=dict)

    def script(self, path: str, **values: Any) -> str:
        return json.dumps([path.removeprefix("executors/slurm/").removesuffix(".sh"), values])

    def run(self, cluster: Cluster, text: str, timeout: float = 0) -> list[Frame]:
        name, values = json.loads(text)
        assert cluster == CLUSTER
        assert timeout >= 180
        self.calls.append(name)
        self.values[name] = values
        return self.prepare if name == "prepare" else self.submit

    def upload(self, cluster: Cluster, sources: list[Path], target: str) -> None:
        assert cluster == CLUSTER
        self.calls.append(f"upload {' '.join(source.name for source in sources)} to {target}")
        for source in sources:
            for path in source.rglob("*"):
                name = str(path.relative_to(source.parent))
                self.modes[name] = stat.S_IMODE(path.stat().st_mode)
                if path.is_file():
                    self.sent[name] = path.read_bytes()


def queued(*ids: str, kind: str = "queued") -> list[Frame]:
    return [Frame(kind, str(index), job.encode()) for index, job in enumerate(ids)]


def config(**sections: Any) -> dict[str, Any]:
    return {
        "execution": {
            "type": "slurm", "hostname": "login.example", "username": "ann", "account": "research", "partition": "batch",
            "output_dir": "/lustre/ann/", "walltime": "01:00:00", "num_nodes": 1, "ntasks_per_node": 1, "subproject": RUN,
            "mounts": {"mount_home": False, "evaluation": {"/data/e": "/e"}, "deployment": {"/data/d": "/d"}},
        },
        "deployment": {
            "type": "vllm", "image": "/images/vllm.sqsh", "checkpoint_path": "/ckpt", "served_model_name": "m", "port": 8000,
            "command": "serve", "endpoints": {"chat": "/v1/chat/completions", "completions": "/v1/completions", "health": "/health"},
            "env_vars": {"HF_TOKEN": "host:MY_TOKEN"},
        },
        "evaluation": {"tasks": [{"name": name} for name in TASKS], "env_vars": {"WORD": "host:MY_WORD"}},
        **sections,
    }  # fmt: skip


def submit(run: Path | None, monkeypatch: pytest.MonkeyPatch, seal: str = SEAL, **options: Any) -> Submission:
    """Submit the config through the real launcher, as helpers/executors/slurm/executor.py does."""
    monkeypatch.setenv("MY_TOKEN", "hf_$ecret")
    monkeypatch.setenv("MY_WORD", NASTY)
    submission = Submission(CLUSTER, run, seal, **options)
    job_scripts.submit(submission, config(), None)
    return submission
