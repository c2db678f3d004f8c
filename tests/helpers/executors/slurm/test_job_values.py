"""executors/slurm/job_values.py: what the launcher's Slurm executor is handed beside the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.executors.containers import ADAPTER
from helpers.executors.slurm import job_values
from helpers.executors.slurm.job_values import complete, samples

RUN = Path("/runs/20261122T013512Z-mine-7f3a")


def config(**sections: Any) -> dict[str, Any]:
    return {
        "execution": {"type": "slurm", "account": "research", "partition": "batch", "output_dir": "/lustre/me/evals", "gres": "gpu:h100:8"},
        "deployment": {"type": "vllm", "image": "nvcr.io#nvidia/vllm@sha256:0", "checkpoint_path": "/ckpt/m_1.0", "command": "a $b; 'c'"},
        "evaluation": {"tasks": [{"name": "lm-evaluation-harness.ifeval"}]},
        **sections,
    }


def adapter(data: dict[str, Any]) -> Any:
    return data["evaluation"]["nemo_evaluator_config"]["target"]["api_endpoint"]["adapter_config"]


@pytest.mark.parametrize(
    ("own", "run", "name"),
    [
        (None, RUN, RUN.name),
        ("nemo-evaluator-launcher", RUN, RUN.name),
        ("nightly", RUN, f"nightly-{RUN.name}"),
        ("nightly", None, "nightly"),
        (None, None, None),
    ],
)
def test_the_run_s_id_is_in_the_job_names(own: str | None, run: Path | None, name: str | None) -> None:
    data = config()
    if own:
        data["execution"]["subproject"] = own
    complete(data, run)
    assert data["execution"].get("subproject") == name


def test_the_stock_subproject_is_the_launcher_s() -> None:
    import yaml
    from nemo_evaluator_launcher import configs

    stock = yaml.safe_load((Path(next(iter(configs.__path__))) / "execution" / "slurm" / "default.yaml").read_text())
    assert stock["subproject"] == job_values.STOCK_SUBPROJECT


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, {"PYXIS_CONTAINER_WRITABLE": "lit:1"}),
        ({"A": "lit:b"}, {"PYXIS_CONTAINER_WRITABLE": "lit:1", "A": "lit:b"}),
        ({"PYXIS_CONTAINER_WRITABLE": "lit:0"}, {"PYXIS_CONTAINER_WRITABLE": "lit:0"}),
    ],
)
def test_containers_are_writable_unless_the_config_says_otherwise(given: Any, made: Any) -> None:
    """enroot mounts them read-only, and the launcher's jobs write scripts into them."""
    data = config(env_vars=given)
    complete(data, RUN)
    assert data["env_vars"] == made


def test_requests_are_counted_unless_the_config_says_otherwise() -> None:
    data = config()
    complete(data, RUN)
    assert adapter(data) == ADAPTER


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, ADAPTER),
        ({}, ADAPTER),
        ({"use_caching": True}, {"use_caching": True, **ADAPTER}),
        ({"progress_tracking_interval": 1}, {**ADAPTER, "progress_tracking_interval": 1}),
        ({"progress_tracking_url": "http://x"}, {**ADAPTER, "progress_tracking_url": "http://x"}),
        ({"use_progress_tracking": False}, {"use_progress_tracking": False}),
        ({"use_progress_tracking": True, "x": 1}, {"use_progress_tracking": True, "x": 1}),
        ({"interceptors": []}, {"interceptors": []}),
    ],
)
def test_what_the_config_says_of_the_adapter_stays(given: Any, made: Any) -> None:
    data = config()
    data["evaluation"]["nemo_evaluator_config"] = {
        "config": {"params": {"limit_samples": 3}},
        "target": {"api_endpoint": {"api_key_name": "K", "adapter_config": given}},
    }
    complete(data, RUN)
    assert adapter(data) == made
    assert data["evaluation"]["nemo_evaluator_config"]["config"] == {"params": {"limit_samples": 3}}
    assert data["evaluation"]["nemo_evaluator_config"]["target"]["api_endpoint"]["api_key_name"] == "K"


def test_nemo_evaluator_takes_the_adapter_s_settings() -> None:
    from nemo_evaluator.adapters.adapter_config import AdapterConfig

    made = AdapterConfig.get_validated_config({"target": {"api_endpoint": {"adapter_config": dict(ADAPTER)}}})
    (progress,) = [one for one in made.interceptors if one.name == "progress_tracking"]
    assert progress.enabled
    assert progress.config["progress_tracking_url"] == ADAPTER["progress_tracking_url"]
    assert progress.config["progress_tracking_interval"] == ADAPTER["progress_tracking_interval"]


@pytest.mark.parametrize("flags", [None, {"exclusive": True}, {"comment": "other"}])
def test_a_comment_becomes_a_flag_which_the_launcher_quotes(flags: dict[str, Any] | None) -> None:
    data = config()
    data["execution"] |= {"sbatch_comment": """it's "cheap"; $5""", "sbatch_extra_flags": flags}
    complete(data, RUN)
    assert "sbatch_comment" not in data["execution"]
    assert data["execution"]["sbatch_extra_flags"] == {"comment": """it's "cheap"; $5""", **(flags or {})}


@pytest.mark.parametrize(
    ("own", "all_", "number"),
    [(3, 10, 3), (None, 10, 10), (None, None, None), (0.5, 10, 10), (None, 0.5, None), (True, None, None), (0, 10, 0)],
)
def test_how_many_samples_a_task_asks_is_its_own_limit_or_the_one_for_all(own: Any, all_: Any, number: int | None) -> None:
    def limited(value: Any) -> Any:
        return {"nemo_evaluator_config": {"config": {"params": {"limit_samples": value}}}}

    data = config()
    if all_ is not None:
        data["evaluation"] |= limited(all_)
    assert samples(data, {"name": "t", **(limited(own) if own is not None else {})}) == number


def test_a_config_with_holes_has_no_limit() -> None:
    for hole in (None, {}, {"config": None}, {"config": {"params": None}}, {"config": {"params": []}}):
        assert samples(config(), {"nemo_evaluator_config": hole}) is None
