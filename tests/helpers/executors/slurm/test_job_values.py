"""executors/slurm/job_values.py: what the launcher's Slurm executor is handed beside the config, and what its scripts cannot hold."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.executors.slurm import job_scripts, job_values
from helpers.executors.slurm.job_values import ADAPTER, complete, refuse_unquoted, samples

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


# Each place whose value the launcher writes into its scripts unquoted.
PASTED = [
    *((("execution", key), f"execution.{key}") for key in ("account", "partition", "cpu_partition", "gres", "subproject", "output_dir")),
    (("execution", "gpus_per_node"), "execution.gpus_per_node"),
    *((("deployment", key), f"deployment.{key}") for key in ("image", "checkpoint_path", "cache_path")),
    *(
        (("auxiliary_deployments", "judge", key), f"auxiliary_deployments.judge.{key}")
        for key in ("image", "checkpoint_path", "cache_path")
    ),
    (("execution", "mounts", "deployment", "SOURCE"), "execution.mounts.deployment"),
    (("execution", "mounts", "evaluation", "SOURCE"), "execution.mounts.evaluation"),
    (("execution", "mounts", "auxiliary", "judge", "SOURCE"), "execution.mounts.auxiliary.judge"),
    *((("evaluation", "tasks", 0, key), f"evaluation.tasks.0.{key}") for key in ("name", "container", "dataset_dir", "dataset_mount_path")),
]


def with_value(path: tuple[str | int, ...], value: str) -> dict[str, Any]:
    data = config()
    node: Any = data
    *parents, last = path
    for part in parents:
        node = node[part] if isinstance(node, list) else node.setdefault(part, {})
    if last == "SOURCE":
        node[value] = "/there"
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(("path", "key"), PASTED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_value_that_the_scripts_cannot_hold_is_refused_with_its_key(path: tuple[str | int, ...], key: str) -> None:
    refuse_unquoted(with_value(path, "/plain-1.0_x:y,z@a#b%c+d=e~"))
    for character, named in {" ": "a space", "\n": "a space", "\t": "a space", "'": "'", '"': '"', "$": "$", ";": ";", "`": "`"}.items():
        value = f"/a{character}b"
        with pytest.raises(BadInput) as caught:
            refuse_unquoted(with_value(path, value))
        assert str(caught.value).startswith(f"{key}: {value!r} contains {named}, which the launcher's job scripts cannot quote")
        with pytest.raises(BadInput):
            complete(with_value(path, value), RUN)


def test_the_other_end_of_a_mount_is_looked_at_too() -> None:
    data = config()
    data["execution"]["mounts"] = {"mount_home": False, "evaluation": {"/a": "/b c"}}
    with pytest.raises(BadInput, match=r"execution.mounts.evaluation: '/b c' contains a space"):
        refuse_unquoted(data)


def test_every_character_that_bash_does_not_take_as_it_is_is_refused() -> None:
    """By Python's own list of what needs no quotes, and what of the rest bash leaves alone inside of a word."""
    for number in range(33, 127):
        character = chr(number)
        if shlex.quote(f"a{character}b") == f"a{character}b":
            refuse_unquoted(with_value(("execution", "output_dir"), f"/a{character}b"))
        elif character not in "#^~":
            with pytest.raises(BadInput):
                refuse_unquoted(with_value(("execution", "output_dir"), f"/a{character}b"))


@pytest.mark.parametrize("flags", [None, {"exclusive": True}, {"comment": "other"}])
def test_a_comment_becomes_a_flag_which_the_launcher_quotes(flags: dict[str, Any] | None) -> None:
    data = config()
    data["execution"] |= {"sbatch_comment": """it's "cheap"; $5""", "sbatch_extra_flags": flags}
    complete(data, RUN)
    assert "sbatch_comment" not in data["execution"]
    assert data["execution"]["sbatch_extra_flags"] == {"comment": """it's "cheap"; $5""", **(flags or {})}


def test_what_is_not_there_or_is_no_text_is_no_trouble() -> None:
    data = config(auxiliary_deployments={"judge": None}, deployment={"type": "none", "image": "not used"})
    data["execution"] |= {"mounts": None, "gpus_per_node": 8, "cpu_partition": None, "sbatch_comment": None}
    refuse_unquoted(data)
    data["execution"]["mounts"] = {"deployment": None, "auxiliary": {"judge": None}}
    refuse_unquoted(data)


@pytest.mark.slow
def test_the_values_that_the_launcher_s_own_script_holds_are_those_that_are_looked_at() -> None:
    """Each value of PASTED stands in the script as it is: were one quoted by the launcher, refusing it would be needless."""

    data = config(
        auxiliary_deployments={
            "judge": {
                "type": "vllm", "image": "PASTED-jimage", "checkpoint_path": "/PASTED-jckpt", "cache_path": "/PASTED-jcache", "port": 9000,
                "served_model_name": "j", "command": "serve", "endpoints": {"chat": "/v1/chat/completions", "health": "/health"},
            }
        }
    )  # fmt: skip
    data["execution"] |= {
        "account": "PASTED-account", "partition": "PASTED-partition", "gres": "PASTED-gres", "subproject": "PASTED-subproject",
        "output_dir": "/PASTED-output", "gpus_per_node": "PASTED-gpus", "walltime": "01:00:00", "num_nodes": 1, "ntasks_per_node": 1,
        "cpu_partition": "PASTED-cpu", "auto_export": {"destinations": ["local"]}, "hostname": "h", "username": "u",
        "mounts": {
            "mount_home": True,
            "deployment": {"/PASTED-d": "/PASTED-dt"},
            "evaluation": {"/PASTED-e": "/PASTED-et"},
            "auxiliary": {"judge": {"/PASTED-a": "/PASTED-at"}},
        },
    }  # fmt: skip
    data["deployment"] |= {
        "image": "PASTED-image", "checkpoint_path": "/PASTED-ckpt", "cache_path": "/PASTED-cache", "served_model_name": "m", "port": 8000,
        "command": "serve", "endpoints": {"chat": "/v1/chat/completions", "health": "/health"},
    }  # fmt: skip
    data["evaluation"]["tasks"] = [
        {
            "name": "lm-evaluation-harness.ifeval",
            "container": "PASTED-container",
            "dataset_dir": "/PASTED-data",
            "dataset_mount_path": "/PASTED-mount",
        }
    ]
    looked_at = {value for _, value in job_values._pasted(copy.deepcopy(data)) if "PASTED" in value}
    ((_, script),) = job_scripts.texts(data)
    code = "\n".join(line for line in script.splitlines() if not line.startswith("#") or line.startswith("#SBATCH"))
    assert len(looked_at) == 22
    for value in looked_at:
        assert value in code, value
        assert f"'{value}'" not in code, value


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
