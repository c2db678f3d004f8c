"""The fields of a profile: what each one does, as the documentation shows it, and how those are read that several executors use."""

from collections.abc import Iterator

from helpers.common.errors import BadInput
from helpers.config.executor_description import Effect
from helpers.config.profiles import Profile

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
    "gpus_per_node": "execution.gres (gpu:N)",
    "cpus_per_task": "execution.sbatch_extra_flags.cpus-per-task",
    "time": "execution.walltime",
    "mem": "execution.sbatch_extra_flags.mem",
    "exclusive": "execution.sbatch_extra_flags.exclusive",
    "mounts": "execution.mounts.deployment and .evaluation: SOURCE:TARGET, or one path for both",
    "startup_commands": "deployment.pre_cmd, which runs in the container before the server starts; needs NEMO_EVALUATOR_TRUST_PRE_CMD=1",
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


def texts(profile: Profile, field: str) -> list[str]:
    """A field that is a list of texts; empty if it is not set. Raises BadInput for anything else."""
    listed = profile.fields.get(field) or []
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        example = "/data:/data" if field == "mounts" else "module load cuda"
        raise BadInput(f'{profile.origins[field]}: {field}: {listed!r}: expected a list such as ["{example}"]')
    return listed
