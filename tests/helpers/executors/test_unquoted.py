"""executors/unquoted.py: each value that the launcher's scripts cannot hold is refused, by its key."""

from __future__ import annotations

import copy
import shlex
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.executors import unquoted
from helpers.executors.slurm import job_scripts, job_values


def config(**sections: Any) -> dict[str, Any]:
    return {
        "execution": {"type": "slurm", "account": "research", "partition": "batch", "output_dir": "/lustre/me/evals", "gres": "gpu:h100:8"},
        "deployment": {"type": "vllm", "image": "nvcr.io#nvidia/vllm@sha256:0", "checkpoint_path": "/ckpt/m_1.0", "command": "a $b; 'c'"},
        "evaluation": {"tasks": [{"name": "lm-evaluation-harness.ifeval"}]},
        **sections,
    }


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
    unquoted.refuse(with_value(path, "/plain-1.0_x:y,z@a#b%c+d=e~"))
    for character, named in {" ": "a space", "\n": "a space", "\t": "a space", "'": "'", '"': '"', "$": "$", ";": ";", "`": "`"}.items():
        value = f"/a{character}b"
        with pytest.raises(BadInput) as caught:
            unquoted.refuse(with_value(path, value))
        assert str(caught.value).startswith(f"{key}: {value!r} contains {named}, which the launcher's job scripts cannot quote")
        with pytest.raises(BadInput):
            job_values.complete(with_value(path, value), None)


def test_the_other_end_of_a_mount_is_looked_at_too() -> None:
    data = config()
    data["execution"]["mounts"] = {"mount_home": False, "evaluation": {"/a": "/b c"}}
    with pytest.raises(BadInput, match=r"execution.mounts.evaluation: '/b c' contains a space"):
        unquoted.refuse(data)


def test_every_character_that_bash_does_not_take_as_it_is_is_refused() -> None:
    """By Python's own list of what needs no quotes, and what of the rest bash leaves alone inside of a word."""
    for number in range(33, 127):
        character = chr(number)
        if shlex.quote(f"a{character}b") == f"a{character}b":
            unquoted.refuse(with_value(("execution", "output_dir"), f"/a{character}b"))
        elif character not in "#^~":
            with pytest.raises(BadInput):
                unquoted.refuse(with_value(("execution", "output_dir"), f"/a{character}b"))


def test_what_is_not_there_or_is_no_text_is_no_trouble() -> None:
    data = config(auxiliary_deployments={"judge": None}, deployment={"type": "none", "image": "not used"})
    data["execution"] |= {"mounts": None, "gpus_per_node": 8, "cpu_partition": None, "sbatch_comment": None}
    unquoted.refuse(data)
    data["execution"]["mounts"] = {"deployment": None, "auxiliary": {"judge": None}}
    unquoted.refuse(data)


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
    looked_at = {value for _, value in unquoted._pasted(copy.deepcopy(data)) if "PASTED" in value}
    ((_, script),) = job_scripts.texts(data)
    code = "\n".join(line for line in script.splitlines() if not line.startswith("#") or line.startswith("#SBATCH"))
    assert len(looked_at) == 22
    for value in looked_at:
        assert value in code, value
        assert f"'{value}'" not in code, value
