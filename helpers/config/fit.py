"""Whether a deployment fits the GPUs that the job asks for, and the model: found before anything is queued."""

import math
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from helpers.common.errors import BadInput

TENSOR, PIPELINE, DATA = "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"
SHORT = {TENSOR: "-tp", PIPELINE: "-pp", DATA: "-dp"}  # vLLM's own short forms


def check_gpus(config: Mapping[str, Any], gpus_per_node: int, place: Callable[[str], str]) -> list[str]:
    """Refuse a deployment that uses more GPUs than the job asks for; a notice for one that leaves some idle.

    `gpus_per_node`: what the job asks for; 0: nothing, or not known, so nothing is checked. `place` gives file and line of a dotted key.
    """
    deployment, execution = config["deployment"], config["execution"]
    sizes = sizes_of(deployment)
    nodes, instances = execution.get("num_nodes") or 1, execution.get("num_instances") or 1
    if not gpus_per_node or not sizes or not isinstance(nodes, int) or not isinstance(instances, int) or nodes % instances:
        return []  # nothing is known, or the launcher refuses it in its own words
    there, used = gpus_per_node * (nodes // instances), math.prod(sizes.values())
    asked = f"{there} GPU{'s' if there > 1 else ''}" + (f" ({nodes // instances} × {gpus_per_node})" if nodes > instances else "")
    asked += " for each instance" if instances > 1 else ""
    product = " × ".join(f"{name} {size}" for name, size in sizes.items() if size != 1) or "one GPU"
    where = place(next((f"deployment.{name}" for name, size in sizes.items() if size != 1 and name in deployment), "deployment"))
    if used > there:
        settings = " ".join(f"deployment.{name}={size}" for name, size in _smaller(sizes, there).items() if size != sizes[name])
        fix = f'give SET="{settings}", or ask for more (execution.gres, execution.num_nodes)'
        if any(_in_arguments(deployment, name) is not None for name in sizes):
            fix = "lower the sizes in deployment.extra_args, or ask for more (execution.gres, execution.num_nodes)"
        raise BadInput(f"{where}: the deployment uses {used} GPUs ({product}), but the job asks for {asked}; {fix}")
    if used == there:
        return []
    fixes = []
    if there % used == 0 and DATA in deployment and _in_arguments(deployment, DATA) is None:
        fixes.append(f'SET="deployment.{DATA}={sizes.get(DATA, 1) * there // used}" uses them all')
    if nodes == instances:
        fixes.append(f'SET="execution.gres=gpu:{used}" asks for fewer')
    advice = f": {', '.join(fixes)}" if fixes else ""
    return [f"{where}: the job asks for {asked}, but the deployment uses {used} ({product}){advice}"]


def _smaller(sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """Sizes that fit `most` GPUs: what can be left out first is lowered first."""
    found = dict(sizes)
    for name in (DATA, TENSOR, PIPELINE):
        if name in found:
            others = math.prod(found.values()) // found[name]
            found[name] = max(1, most // others)
    return found


def sizes_of(deployment: Mapping[str, Any]) -> dict[str, int]:
    """The parallel sizes of one instance by the deployment's keys, which its extra_args overrule; empty: not known."""
    sizes = {name: found if (found := _in_arguments(deployment, name)) is not None else deployment.get(name) for name in SHORT}
    return {name: size for name, size in sizes.items() if isinstance(size, int) and not isinstance(size, bool) and size > 0}


def _in_arguments(deployment: Mapping[str, Any], name: str) -> int | None:
    long, short = flag(deployment, name.replace("_", "-")), flag(deployment, SHORT[name])
    return long if short is None else short


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
    heads, tensor = model.get("num_attention_heads"), deployment.get(TENSOR)
    if isinstance(heads, int) and isinstance(tensor, int) and tensor > 0 and heads % tensor:
        fits = ", ".join(str(size) for size in range(1, min(heads, 16) + 1) if heads % size == 0)
        fix = f"give one of {fits}"
        raise BadInput(f"{place}: deployment.tensor_parallel_size {tensor} does not divide the model's {heads} attention heads; {fix}")
