"""What each field of a profile does to the compiled configuration: one table, shown in the README."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput
from helpers.config import profiles
from helpers.config.profiles import EnvFile, Profile


@dataclass(frozen=True)
class Effect:
    """A value for a dotted key of the config, out of a field of the profile."""

    key: tuple[str, ...]
    value: Any
    field: str
    only_if_open: bool = False  # not over a group's default


# field: what it does, for people. Every field is here; one that is not is said to be unknown.
FIELDS = {
    "extends": "another profile, whose fields count where this one has none",
    "executor": "execution.type: local → process, docker → local, slurm, lepton",
    "account": "execution.account",
    "partition": "execution.partition",
    "run_partition": "execution.partition (and run.env.partition) of `make eval`, before partition",
    "batch_partition": "execution.partition (and run.env.partition) of `make batch`, before partition",
    "nodes": "execution.num_nodes",
    "ntasks_per_node": "execution.ntasks_per_node",
    "gpus_per_node": "execution.gres (gpu:N)",
    "cpus_per_task": "execution.sbatch_extra_flags.cpus-per-task",
    "time": "execution.walltime",
    "mem": "execution.sbatch_extra_flags.mem",
    "exclusive": "execution.sbatch_extra_flags.exclusive",
    "mounts": "execution.mounts.deployment and .evaluation: SOURCE:TARGET, or a path that is both",
    "startup_commands": "deployment.pre_cmd, run in the container before the server; asks for NEMO_EVALUATOR_TRUST_PRE_CMD=1",
    "container_image": "run.env.container, and deployment.image where the config leaves it open",
    "container": "the same as container_image",
    "remote_job_dir": "execution.output_dir (its folder evaluations); squashed images lie in its folder containers",
    "tunnel": "how the cluster is reached: ssh, or local on a login node",
    "host": "execution.hostname",
    "user": "execution.username; without it, what ssh itself would use",
    "identity": "the ssh key file for the connection",
    "port": "the ssh port for the connection",
    "build_partition": "partition of image imports, before run_partition and partition",
    "build_time": "walltime of image imports, before time",
    "build_include_gpus": "whether image imports ask for GPUs",
    "build_gpus_per_node": "how many",
    "wandb": "project and entity, before those of [wandb]",
}
# The fields that mean something everywhere, and those that mean something to an execution.type other than slurm, where all do.
EVERYWHERE = {"extends", "executor", "wandb"}
IMAGE = {"container_image", "container"}
MEANT = {"process": EVERYWHERE, "local": EVERYWHERE | IMAGE | {"mounts"}, "lepton": EVERYWHERE | IMAGE | {"startup_commands"}}
MOUNTING = ("slurm", "local")


def effects(profile: Profile, kind: str, mode: str) -> Iterator[Effect]:
    """The values that a profile gives to a config of this execution.type; `mode` is eval, batch or dry-run."""
    fields = profile.fields
    if kind == "process":
        return
    image = fields.get(image_field(profile))
    if image is not None:
        yield Effect(("deployment", "image"), image, image_field(profile), only_if_open=True)
    if kind in MOUNTING:
        for source, target in _mounts(profile):
            yield Effect(("execution", "mounts", "deployment", source), target, "mounts")
            if kind == "slurm":  # Docker: the launcher reads those of the deployment only
                yield Effect(("execution", "mounts", "evaluation", source), target, "mounts")
    if fields.get("startup_commands") and kind != "local":
        yield Effect(("deployment", "pre_cmd"), "\n".join(_texts(profile, "startup_commands")), "startup_commands")
    if kind == "slurm":
        yield from _slurm_effects(profile, mode)


def _slurm_effects(profile: Profile, mode: str) -> Iterator[Effect]:
    fields = profile.fields
    for field, key in (
        ("account", "account"),
        (partition_field(profile, mode), "partition"),
        ("nodes", "num_nodes"),
        ("ntasks_per_node", "ntasks_per_node"),
        ("time", "walltime"),
    ):
        if fields.get(field) is not None:
            yield Effect(("execution", key), fields[field], field)
    if fields.get("gpus_per_node") is not None:
        count = fields["gpus_per_node"]
        yield Effect(("execution", "gres"), f"gpu:{count}" if count else None, "gpus_per_node")
    for field, flag in (("cpus_per_task", "cpus-per-task"), ("mem", "mem"), ("exclusive", "exclusive")):
        if fields.get(field) is not None:
            yield Effect(("execution", "sbatch_extra_flags", flag), fields[field], field)
    if fields.get("remote_job_dir"):
        yield Effect(("execution", "output_dir"), f"{str(fields['remote_job_dir']).rstrip('/')}/evaluations", "remote_job_dir")
    if host := host_of(profile):
        yield Effect(("execution", "hostname"), host, "host" if fields.get("host") else "tunnel")
    if fields.get("user"):
        yield Effect(("execution", "username"), fields["user"], "user")


def host_of(profile: Profile) -> str | None:
    """The login node of a profile: its host, which a profile for the login node itself (tunnel = "local") need not name."""
    return profile.fields.get("host") or ("localhost" if profile.fields.get("tunnel") == "local" else None)


def of_cluster(name: str | None) -> Profile:
    """The profile of this name in the env.toml that counts. Raises BadInput for none, and for one that is no Slurm cluster."""
    env = profiles.find(Path.cwd())
    slurm = [one for one in env.names() if env.tables[one].get("executor") == "slurm" or "extends" in env.tables[one]]
    if not name:
        raise BadInput(f"PROFILE is missing: name a Slurm cluster of env.toml ({', '.join(slurm) or 'there is none'})")
    profile = profiles.get(env, name)
    if profile.fields["executor"] != "slurm" or not host_of(profile):
        raise BadInput(f'PROFILE={name}: executor = "slurm" and a host were expected; there are {", ".join(slurm) or "none"}')
    return profile


def partition_field(profile: Profile, mode: str) -> str:
    """The field that says the partition of a run of this mode."""
    special = "batch_partition" if mode == "batch" else "run_partition"
    return special if profile.fields.get(special) else "partition"


def run_values(env: EnvFile, profile: Profile | None, mode: str) -> Iterator[tuple[str, Any, str]]:
    """What env.toml puts below the config's `run`: dotted keys of wandb, artifacts and env, their values and places; a later one wins.

    Raises BadInput for a wandb that is no table.
    """
    for name, value in env.tables.get("artifacts", {}).items():
        yield f"artifacts.{name}", value, env.where(f"artifacts.{name}") if isinstance(value, dict) else env.where("artifacts", name)
    own = profile.fields.get("wandb", {}) if profile else {}
    for table, place in ((env.tables.get("wandb", {}), ""), (own, profile.origins.get("wandb", "") if profile else "")):
        if not isinstance(table, dict):
            raise BadInput(f"{place or env.where('wandb')}: wandb: a table with project and entity was expected, not {table!r}")
        for name, value in table.items():
            yield f"wandb.{name}", value, place or env.where("wandb", name)
    if profile is None:
        return
    for name, value in profile.fields.items():
        if name != "wandb":
            yield f"env.{name}", value, profile.origins[name]
    for name, field in (("container", image_field(profile)), ("partition", partition_field(profile, mode))):
        if field in profile.fields:
            yield f"env.{name}", profile.fields[field], profile.origins[field]


def image_field(profile: Profile) -> str:
    """The field that says the container image: container_image, or its other name."""
    return "container_image" if "container_image" in profile.fields else "container"


def without_effect(profile: Profile, kind: str) -> list[str]:
    """A notice for each field that means nothing for this execution.type."""
    notices = []
    for field in profile.fields:
        if field in FIELDS and field not in MEANT.get(kind, FIELDS):
            notices.append(f"{profile.origins[field]}: {field} has no effect: execution.type {kind} does not use it")
    return notices


def ssh_user(host: str | None) -> str:
    """The user that ssh would log in as on `host`: `ssh -G` reads ~/.ssh/config and contacts nothing. Without ssh, the user here."""
    if host and not host.startswith("-"):
        try:
            answer = subprocess.run(["ssh", "-G", host], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired):
            return getpass.getuser()
        for line in answer.stdout.splitlines():
            name, _, value = line.partition(" ")
            if name == "user" and value:
                return value
    return getpass.getuser()


def _mounts(profile: Profile) -> Iterator[tuple[str, str]]:
    for text in _texts(profile, "mounts"):
        source, _, target = text.partition(":")
        if not source.startswith("/") or (target and not target.startswith("/")):
            raise BadInput(f"{profile.origins['mounts']}: mounts: {text!r}: SOURCE:TARGET with absolute paths was expected")
        yield source, target or source


def _texts(profile: Profile, field: str) -> list[str]:
    """A field that is a list of texts. Raises BadInput for anything else."""
    listed = profile.fields.get(field) or []
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        example = "/data:/data" if field == "mounts" else "module load cuda"
        raise BadInput(f'{profile.origins[field]}: {field}: a list such as ["{example}"] was expected, not {listed!r}')
    return listed
