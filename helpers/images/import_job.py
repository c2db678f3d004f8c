"""The Slurm job of an image import: what it asks of Slurm, and its sbatch script, which nemo-run writes."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster import scripts
from helpers.common.errors import BadInput, one_line
from helpers.images import references
from helpers.images.cache import Lookup, Store


class NoImports(Exception):
    """Images cannot be imported here; the text says what is missing, with the fix."""


@dataclass(frozen=True)
class Resources:
    """What the job asks of Slurm. `gpus` 0: none; `time` and `partition` None: Slurm's defaults."""

    account: str
    partition: str | None = None
    time: str | None = None
    gpus: int = 0
    mem: str | None = None
    cpus: int | None = None
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
        int(gpus),
        str(mem) if mem is not None else None,
        int(cpus) if cpus is not None else None,
        env.get("exclusive") or None,
        {name: flags[name] for name in ("qos", "reservation") if flags.get(name)},
    )


def sbatch_script(resources: Resources, name: str) -> str:
    """The sbatch script of a job that runs `bash job.sh` in the folder `code` below the folder where it is submitted.

    All its paths are relative. Raises NoImports if nemo-run is not installed.
    """
    with _quiet():
        try:
            from nemo_run.core.execution.slurm import SlurmBatchRequest, SlurmExecutor, SlurmJobDetails
            from nemo_run.core.packaging.base import Packager
            from nemo_run.core.tunnel.client import LocalTunnel
        except ImportError as error:
            raise NoImports(f"nemo-run cannot be imported ({one_line(error)}): `make setup`, or `pip install nemo-run`") from error
    executor = SlurmExecutor(
        account=resources.account,
        partition=resources.partition,
        gpus_per_node=resources.gpus or None,
        mem=resources.mem,
        cpus_per_task=resources.cpus,
        exclusive=resources.exclusive,
        nodes=1,
        ntasks_per_node=1,
        tunnel=LocalTunnel(job_dir=""),  # only its job_dir is used
        packager=Packager(),
        job_details=SlurmJobDetails(job_name=name, folder="."),
        # Slurm would make a job whose node died wait for two minutes; we begin another one at once.
        additional_parameters={"output": "slurm.out", "no_requeue": True, **resources.others},
    )
    executor.job_dir = ""
    # None is left out of the script, so that Slurm's own walltime counts and not nemo-run's ten minutes.
    executor.time = resources.time  # type: ignore[assignment]
    request = SlurmBatchRequest(
        launch_cmd=["sbatch", "--parsable"],
        jobs=[name],
        command_groups=[["bash", "job.sh"]],
        executor=executor,
        max_retries=0,
        extra_env={},
    )
    return str(request.materialize())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """nemo-run and its dependencies print warnings on stderr while they are imported."""
    import io
    import warnings

    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def payload(lookup: Lookup, store: Store, *, key: str, stem: str, old: str, token: str) -> str:
    """What the job runs on its node: import_job.sh with its values. `old`: imports of this key that do not count."""
    image = lookup.image
    three, four = image.forms(lookup.digest) if image.kind not in references.ARCHIVES else ("", "")
    values = scripts.assigned(
        FOLDER=store.folder, KEY=key, STEM=stem, OLD=old, TOKEN=token, KIND=image.kind, PLACE=image.name, FORM3=three, FORM4=four,
        HOST=image.registry, REPO=image.name, TAG=image.tag, DIGEST=lookup.digest or "", INDEX=lookup.index or "",
        REFERENCE=image.reference, CANONICAL=image.canonical, PLATFORM=store.platform, MACHINE=store.machine, BY=store.who,
    )  # fmt: skip
    return values + scripts.text_of("images/import_job.sh")
