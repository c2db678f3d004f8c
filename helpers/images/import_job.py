"""The Slurm job of an image import: what it requests from Slurm, and its sbatch script, which nemo-run writes."""

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from helpers.common.errors import BadInput, one_line


class NoImports(Exception):
    """Images cannot be imported here; the text says what is missing, with the fix."""


@dataclass(frozen=True)
class Resources:
    """What the job requests from Slurm, named as nemo-run names it. None: no GPUs, and Slurm's defaults."""

    account: str
    partition: str | None = None
    time: str | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    cpus_per_task: int | None = None
    exclusive: bool | str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)  # further options of sbatch


def resources_of(config: Mapping[str, Any]) -> Resources:
    """The resources for a compiled config: build_partition > run_partition > partition, build_time > time, GPUs if build_include_gpus.

    The evaluation's QOS and reservation count too, unless build_partition sends imports elsewhere.
    Raises BadInput for a build_gpus_per_node that is not a number.
    """
    execution, env = config["execution"], (config.get("run") or {}).get("env") or {}
    gpus = env.get("build_gpus_per_node", 1) if env.get("build_include_gpus") else 0
    if isinstance(gpus, bool) or not str(gpus).isdecimal():
        raise BadInput(f"build_gpus_per_node: expected a number, not {gpus!r}")
    partition = env.get("build_partition") or env.get("run_partition") or env.get("partition") or execution.get("partition")
    time_limit = env.get("build_time") or env.get("time") or execution.get("walltime")
    mem, cpus = env.get("mem"), env.get("cpus_per_task")
    flags = {} if env.get("build_partition") else execution.get("sbatch_extra_flags") or {}
    return Resources(
        str(execution["account"]),
        str(partition) if partition else None,
        str(time_limit) if time_limit else None,
        int(gpus) or None,
        str(mem) if mem is not None else None,
        int(cpus) if cpus is not None else None,
        env.get("exclusive") or None,
        {name: flags[name] for name in ("qos", "reservation") if flags.get(name)},
    )


def sbatch_script(resources: Resources, name: str) -> str:
    """The sbatch script of a job that runs `bash job.sh` in the folder `code` below the folder where it is submitted.

    All its paths are relative. Raises NoImports if nemo-run is not installed.
    """
    # nemo-run and its dependencies print warnings on stderr while they are imported.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from nemo_run.core.execution.slurm import SlurmBatchRequest, SlurmExecutor, SlurmJobDetails
            from nemo_run.core.packaging.base import Packager
            from nemo_run.core.tunnel.client import LocalTunnel
        except ImportError as error:
            raise NoImports(f"nemo-run cannot be imported ({one_line(error)}): `make setup`, or `pip install nemo-run`") from error
    options = asdict(resources)
    others = options.pop("others")
    executor = SlurmExecutor(
        # A time of None is left out of the script, so that Slurm's own walltime counts and not nemo-run's ten minutes.
        **options,
        nodes=1,
        ntasks_per_node=1,
        tunnel=LocalTunnel(job_dir=""),  # only its job_dir is used
        packager=Packager(),
        job_details=SlurmJobDetails(job_name=name, folder="."),
        # Slurm would make a job whose node died wait for two minutes; we begin another one at once.
        additional_parameters={"output": "slurm.out", "no_requeue": True, **others},
    )
    executor.job_dir = ""
    command = {"launch_cmd": ["sbatch", "--parsable"], "jobs": [name], "command_groups": [["bash", "job.sh"]]}
    return str(SlurmBatchRequest(**command, executor=executor, max_retries=0, extra_env={}).materialize())
