"""The fields of a profile: what each one does, as the documentation shows it, and how those are read that several executors use."""

import re
from collections.abc import Iterator

from helpers.common import secrets
from helpers.common.errors import BadInput
from helpers.config.executor_description import Effect
from helpers.config.profiles import Profile
from helpers.config.translating import OC_ENV, PREFIXES

# Every field, and what it does.
FIELDS = {
    "extends": "another profile; its fields apply unless this profile sets them",
    "executor": "execution.type: process (or local, the same), docker or slurm",
    "account": "execution.account",
    "partition": "execution.partition",
    "run_partition": "execution.partition (and run.env.partition) of `make eval`; overrides partition",
    "batch_partition": "execution.partition (and run.env.partition) of `make batch`; overrides partition",
    "nodes": "execution.num_nodes",
    "ntasks_per_node": "execution.ntasks_per_node",
    "gpus_per_node": 'execution.gres: gpu:8 for 8, gpu:h100:8 for "h100:8", none for 0',
    "gres": "execution.gres; overrides gpus_per_node",
    "cpus_per_task": "execution.sbatch_extra_flags.cpus-per-task",
    "time": "execution.walltime",
    "mem": "execution.sbatch_extra_flags.mem",
    "exclusive": "execution.sbatch_extra_flags.exclusive",
    "qos": "execution.sbatch_extra_flags.qos",
    "constraint": "execution.sbatch_extra_flags.constraint",
    "reservation": "execution.sbatch_extra_flags.reservation",
    "nodelist": "execution.sbatch_extra_flags.nodelist",
    "exclude": "execution.sbatch_extra_flags.exclude",
    "licenses": "execution.sbatch_extra_flags.licenses",
    "mail_type": "execution.sbatch_extra_flags.mail-type",
    "mail_user": "execution.sbatch_extra_flags.mail-user",
    "comment": "execution.sbatch_comment",
    "mounts": "execution.mounts.deployment and .evaluation: SOURCE:TARGET, or one path for both",
    "startup_commands": "deployment.pre_cmd, which runs in the container before the server starts; needs NEMO_EVALUATOR_TRUST_PRE_CMD=1",
    "env_vars": "env_vars of the server and the evaluation: host:NAME, lit:TEXT or just text, runtime:NAME",
    "container_image": "run.env.container, and deployment.image if the config leaves it open",
    "container": "the same as container_image",
    "remote_job_dir": "execution.output_dir (its subfolder evaluations); squashed images go to its subfolder containers",
    "tunnel": "how to reach the cluster: ssh, or local on a login node",
    "host": "execution.hostname",
    "user": "execution.username; the default is the user that ssh would log in as",
    "identity": "the ssh key file for the connection",
    "port": "the ssh port for the connection",
    "build_partition": "partition of image imports; overrides run_partition and partition",
    "build_time": "walltime of image imports; overrides time",
    "build_include_gpus": "whether image imports request GPUs",
    "build_gpus_per_node": "how many GPUs they request",
    "wandb": "project and entity; overrides [wandb]",
}
# Fields of the training recipes' profiles that have no effect, and what has one.
OF_TRAINING = {
    "build_image": "evalmake imports images and builds none; name the finished image in container_image",
    "build_cache_dir": "image imports work in remote_job_dir",
    "build_cpus": "image imports use cpus_per_task",
    "build_mem": "image imports use mem",
    "lustre_mount": "write that mount into mounts",
}
# The fields that every executor uses.
EVERYWHERE = frozenset({"extends", "executor", "wandb"})


def image_field(profile: Profile) -> str:
    """The field that names the container image: container_image, or its other name."""
    return "container_image" if "container_image" in profile.fields else "container"


def partition_field(profile: Profile, mode: str) -> str:
    """The field that names the partition of a run in this mode."""
    special = "batch_partition" if mode == "batch" else "run_partition"
    return special if profile.fields.get(special) else "partition"


def image(profile: Profile) -> Iterator[Effect]:
    """The effect of the profile's container image, if it names one."""
    name = image_field(profile)
    if profile.fields.get(name) is not None:
        yield Effect(("deployment", "image"), profile.fields[name], name, only_if_open=True)


def mounts(profile: Profile) -> Iterator[tuple[str, str]]:
    """Source and target of each mount. Raises BadInput for anything but absolute paths."""
    for text in texts(profile, "mounts"):
        source, _, target = text.partition(":")
        if not source.startswith("/") or (target and not target.startswith("/")):
            raise BadInput(f"{profile.origins['mounts']}: mounts: {text!r}: expected SOURCE:TARGET with absolute paths")
        yield source, target or source


def env_vars(profile: Profile) -> Iterator[Effect]:
    """The effects of the profile's environment variables. Text without a prefix is literal, as the training recipes read it.

    `$X` and `${oc.env:X}` become host:X, so that no secret gets into a file. Other interpolations are resolved with the config. Raises
    BadInput for anything but a table.
    """
    variables = profile.fields.get("env_vars", {})
    if not isinstance(variables, dict):
        raise BadInput(f'{profile.origins["env_vars"]}: env_vars: expected a table such as {{ HF_TOKEN = "host:HF_TOKEN" }}')
    for name, value in variables.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found = OC_ENV.fullmatch(text) or re.fullmatch(r"\$([A-Za-z_]\w*)", text)
        if found and ("," not in text or secrets.is_secret_name(found[1])):
            text = f"host:{found[1]}"
        yield Effect(("env_vars", name), text if text.startswith(PREFIXES) else f"lit:{text}", f"env_vars.{name}")


def texts(profile: Profile, field: str) -> list[str]:
    """A field that is a list of texts; empty if it is not set. Raises BadInput for anything else."""
    listed = profile.fields.get(field) or []
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        example = "/data:/data" if field == "mounts" else "module load cuda"
        raise BadInput(f'{profile.origins[field]}: {field}: {listed!r}: expected a list such as ["{example}"]')
    return listed
