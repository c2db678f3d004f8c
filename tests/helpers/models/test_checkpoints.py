"""helpers/models/checkpoints.py: where a checkpoint has its tokenizer, seen here and, by the same rule, on a cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import scripts
from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput
from helpers.models import checkpoints
from helpers.models.checkpoints import Checkpoint

CLUSTER = Cluster("h", "u")


@pytest.fixture(params=["here", "cluster"])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cluster | None:
    """This machine, or a cluster that is this machine without ssh: its bash runs the real script."""
    if request.param == "here":
        return None

    def run(_cluster: Cluster, text: str, **_: Any) -> list[scripts.Frame]:
        done = subprocess.run(["bash", "-s"], input=f"TOKEN=t\n{text}".encode(), capture_output=True, check=False)
        return scripts.answer(CLUSTER, done.stdout, done.stderr.decode(), done.returncode, "t")

    monkeypatch.setattr(scripts, "run", run)
    return CLUSTER


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["tokenizer.json"], ""),
        (["tokenizer_config.json", "tokenizer/tokenizer.json"], ""),
        (["tokenizer/tokenizer.model"], "/tokenizer"),
        (["weights.bin"], None),
    ],
)
def test_the_folder_with_the_tokenizer_is_found(files: list[str], folder: str | None, cluster: Cluster | None, tmp_path: Path) -> None:
    path = tmp_path / "check point"
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    assert checkpoints.look(str(path), cluster).tokenizer == (None if folder is None else f"{path}{folder}")


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        ({"max_position_embeddings": 2048, "num_attention_heads": 9}, {"max_position_embeddings": 2048, "num_attention_heads": 9}),
        ({"text_config": {"num_attention_heads": 9}}, {"num_attention_heads": 9}),
        ({"max_position_embeddings": 2048, "rope_scaling": {"factor": 4}}, {}),
        ({"max_position_embeddings": "2048"}, {}),
        ([], {}),
        ("no JSON", {}),
    ],
)
def test_what_the_config_says_is_read_as_far_as_it_is_sure(
    config: Any, numbers: dict[str, int], cluster: Cluster | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    assert checkpoints.look(str(tmp_path), cluster) == Checkpoint(None, numbers)


def test_a_checkpoint_that_does_not_exist_is_refused(cluster: Cluster | None, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"deployment\.checkpoint_path: {tmp_path}/nowhere does not exist on "):
        checkpoints.look(f"{tmp_path}/nowhere", cluster)
