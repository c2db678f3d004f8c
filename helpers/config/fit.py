"""Whether a deployment fits the GPUs that the job asks for, and the model: found before anything is queued."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from helpers.common.errors import BadInput

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_SHORT = {"-tp": PARALLEL[0], "-pp": PARALLEL[1], "-dp": PARALLEL[2]}


@dataclass(frozen=True)
class Need:
    """The GPUs that one instance of a deployment uses (`gpus`), and the sizes that multiply to it, as text."""

    gpus: int
    sizes: str


def check_gpus(config: Mapping[str, Any], gpus_per_node: int, place: Callable[[str], str]) -> list[str]:
    """Refuse a deployment that uses more GPUs than the job asks for; a notice for one that leaves some idle.

    `gpus_per_node`: what the job asks for; 0: nothing, or not known, so nothing is checked. `place` gives file and line of a dotted key.
    """
    need = needed(config["deployment"])
    if not gpus_per_node or need is None:
        return []
    execution = config["execution"]
    nodes, instances = execution.get("num_nodes") or 1, execution.get("num_instances") or 1
    if not isinstance(nodes, int) or not isinstance(instances, int) or nodes % instances:
        return []  # the launcher refuses it in its own words
    there = gpus_per_node * (nodes // instances)
    asked = f"{there} GPUs ({nodes // instances} × {gpus_per_node})" if nodes > instances else f"{there} GPU{'s' if there > 1 else ''}"
    of = " for each instance" if instances > 1 else ""
    key = next((f"deployment.{name}" for name in PARALLEL if (config["deployment"].get(name) or 1) != 1), "deployment")
    if need.gpus > there:
        fix = f'give SET="deployment.tensor_parallel_size={there}", or ask for more (execution.gres, execution.num_nodes)'
        raise BadInput(f"{place(key)}: the deployment uses {need.gpus} GPUs ({need.sizes}), but the job asks for {asked}{of}; {fix}")
    if need.gpus < there:
        fixes = []
        if there % need.gpus == 0 and PARALLEL[2] in config["deployment"]:
            data = (config["deployment"].get(PARALLEL[2]) or 1) * there // need.gpus
            fixes.append(f'SET="deployment.data_parallel_size={data}" uses them all')
        if nodes == instances:
            fixes.append(f'SET="execution.gres=gpu:{need.gpus}" asks for fewer')
        return [f"{place(key)}: the job asks for {asked}{of}, but the deployment uses {need.gpus} ({need.sizes}): {', '.join(fixes)}"]
    return []


def needed(deployment: Mapping[str, Any]) -> Need | None:
    """The GPUs of one instance: tensor × pipeline × data parallel size, by the deployment's keys and its extra_args; None: not known."""
    sizes = {name: deployment.get(name) for name in PARALLEL}
    sizes |= {name: value for name in PARALLEL if (value := flag(deployment, name.replace("_", "-"))) is not None}
    sizes |= {name: value for short, name in _SHORT.items() if (value := flag(deployment, short)) is not None}
    known = {name: size for name, size in sizes.items() if isinstance(size, int) and not isinstance(size, bool)}
    if not known:
        return None
    total = 1
    for size in known.values():
        total *= size
    return Need(total, " × ".join(f"{name} {size}" for name, size in known.items() if size != 1 or len(known) == 1) or "one each")


def flag(deployment: Mapping[str, Any], name: str) -> int | None:
    """The number that `--NAME N`, `--NAME=N` or a short `-x N` has in deployment.extra_args; None without it."""
    try:
        words = shlex.split(str(deployment.get("extra_args") or ""))
    except ValueError:
        return None
    wanted, found = name if name.startswith("-") else f"--{name}", None
    for word, after in zip(words, [*words[1:], ""], strict=False):
        head, equals, value = word.partition("=")
        if head.replace("_", "-") == wanted and (number := re.fullmatch(r"(\d+)([kK]?)", value if equals else after)):
            found = int(number[1]) * (1000 if number[2] == "k" else 1024 if number[2] else 1)
    return found


def check_model(deployment: Mapping[str, Any], model: Mapping[str, Any], place: str) -> None:
    """Refuse what the model's config.json rules out, as vLLM does when it starts: a context that is too long, heads that cannot be split.

    `model` has max_position_embeddings and num_attention_heads, as far as they are known.
    """
    most, length = model.get("max_position_embeddings"), flag(deployment, "max-model-len")
    if isinstance(most, int) and length and length > most:
        fix = f"give --max-model-len {most} or less in deployment.extra_args"
        raise BadInput(
            f"{place}: deployment.extra_args has --max-model-len {length}, and the checkpoint's config.json allows {most}; {fix}"
        )
    heads, tensor = model.get("num_attention_heads"), deployment.get(PARALLEL[0])
    if isinstance(heads, int) and isinstance(tensor, int) and tensor > 0 and heads % tensor:
        fits = ", ".join(str(size) for size in range(1, min(heads, 16) + 1) if heads % size == 0)
        fix = f"give one of {fits}"
        raise BadInput(f"{place}: deployment.tensor_parallel_size {tensor} does not divide the model's {heads} attention heads; {fix}")
