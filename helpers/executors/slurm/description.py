"""What configs and profiles depend on in the Slurm executor."""

from collections.abc import Iterator

from helpers.config import profile_fields
from helpers.config.executor_description import Description, Effect
from helpers.config.profiles import Profile
from helpers.executors.slurm.cost import gpus_per_node

# sbatch's options are written like these fields, but with dashes.
SBATCH_FLAGS = (
    *("cpus_per_task", "mem", "exclusive", "qos", "constraint", "reservation"),
    *("nodelist", "exclude", "licenses", "mail_type", "mail_user"),
)


def _effects(profile: Profile, mode: str) -> Iterator[Effect]:
    fields = profile.fields
    yield from profile_fields.image(profile)
    for source, target in profile_fields.mounts(profile):
        for container in ("deployment", "evaluation"):
            yield Effect(("execution", "mounts", container, source), target, "mounts")
    if commands := profile_fields.texts(profile, "startup_commands"):
        yield Effect(("deployment", "pre_cmd"), "\n".join(commands), "startup_commands")
    yield from profile_fields.env_vars(profile)
    for field, key in (
        ("account", "account"),
        (profile_fields.partition_field(profile, mode), "partition"),
        ("nodes", "num_nodes"),
        ("ntasks_per_node", "ntasks_per_node"),
        ("time", "walltime"),
        ("comment", "sbatch_comment"),
    ):
        if fields.get(field) not in (None, ""):
            yield Effect(("execution", key), fields[field], field)
    if (count := fields.get("gpus_per_node")) is not None:
        yield Effect(("execution", "gres"), f"gpu:{count}" if count else None, "gpus_per_node")
    if fields.get("gres"):
        yield Effect(("execution", "gres"), fields["gres"], "gres")
    for field in SBATCH_FLAGS:
        if fields.get(field) not in (None, ""):  # sbatch would take the next option for an empty value
            yield Effect(("execution", "sbatch_extra_flags", field.replace("_", "-")), fields[field], field)
    if fields.get("remote_job_dir"):
        yield Effect(("execution", "output_dir"), f"{str(fields['remote_job_dir']).rstrip('/')}/evaluations", "remote_job_dir")
    if fields.get("host"):
        yield Effect(("execution", "hostname"), fields["host"], "host")
    elif fields.get("tunnel") == "local":
        yield Effect(("execution", "hostname"), "localhost", "tunnel")
    if fields.get("user"):
        yield Effect(("execution", "username"), fields["user"], "user")


DESCRIPTION = Description(
    "slurm",
    "slurm",
    effects=_effects,
    required=("execution.hostname", "execution.account", "execution.output_dir"),
    has_walltime=True,
    gpus_per_node=gpus_per_node,
    logs_in_over_ssh=True,
)
