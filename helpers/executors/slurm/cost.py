"""What an evaluation on Slurm takes at most: jobs, nodes, GPUs and hours."""

import re
from collections.abc import Mapping
from typing import Any

from helpers.common import walltime


def cost(config: Mapping[str, Any]) -> str:
    """One line: jobs × nodes × GPUs × walltime = GPU-hours at most, and the GPU-hours if jobs are resumed until max_walltime."""
    execution = config["execution"]
    jobs, nodes, gpus = len(config["evaluation"]["tasks"]), execution.get("num_nodes") or 1, gpus_per_node(execution)

    def hours(key: str) -> str:
        return f"{round(jobs * nodes * gpus * walltime.seconds(execution[key], f'execution.{key}') / 3600, 2):g}"

    sizes = f"{_counted(jobs, 'job')} × {_counted(nodes, 'node')} × {_counted(gpus, 'GPU')} × {execution['walltime']}"
    most = execution.get("max_walltime")
    resumed = f" ({hours('max_walltime')} if jobs are resumed until max_walltime {most})" if most else ""
    return f"{sizes} = {hours('walltime')} GPU-hours at most{resumed}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def gpus_per_node(execution: Mapping[str, Any]) -> int:
    """The GPUs that a job asks for on each node, from gpus_per_node, gres (gpu:8, gpu:h100:4), or the extra sbatch flags."""
    flags = execution.get("sbatch_extra_flags") or {}
    for value in (execution.get("gpus_per_node"), flags.get("gpus-per-node"), execution.get("gres"), flags.get("gres")):
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, int):
            return value
        for part in str(value).split(","):
            if part.split(":")[0] == "gpu" or part.isdecimal() or re.fullmatch(r"[a-z]\w*:\d+", part):
                last = part.split(":")[-1]
                return int(last) if last.isdecimal() else 1
    return 0
