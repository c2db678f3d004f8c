"""Which cluster a config, a profile or a submission names, and how it is reached."""

import contextlib
import getpass
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput
from helpers.config import profile_effects, profiles
from helpers.config.executor_description import Executors
from helpers.config.profiles import EnvFile


def of_config(config: Mapping[str, Any]) -> Cluster:
    """The cluster of a compiled Slurm config: execution.hostname and username, and run.env's tunnel, port and identity.

    Raises BadInput for a tunnel other than ssh and local, an invalid port, and a host that ssh would take for an option.
    """
    execution, env = config["execution"], (config.get("run") or {}).get("env") or {}
    host, tunnel, port = str(execution["hostname"]), env.get("tunnel") or "ssh", env.get("port")
    if tunnel not in ("ssh", "local"):
        raise BadInput(f'tunnel: {tunnel!r}: expected "ssh" or "local"')
    if host.startswith("-") or not host.strip():
        raise BadInput(f"host: {host!r}: expected the name of a login node")
    if port is not None and not (str(port).isdecimal() and 0 < int(port) < 65536):  # noqa: PLR2004  a TCP port
        raise BadInput(f"port: {port!r}: expected a number from 1 to 65535")
    identity = str(Path(str(env["identity"])).expanduser()) if env.get("identity") else None
    user = str(execution["username"]) if execution.get("username") else None
    return Cluster(host, user, int(port) if port is not None else None, identity, str(tunnel))


def of_submission(submission: Mapping[str, Any]) -> Cluster:
    """The cluster that a submission.json names."""
    return Cluster(**submission["cluster"])


def config_of_profile(name: str | None, executors: Executors) -> dict[str, Any]:
    """`execution` and `run` of a config that says nothing but what this profile of the env.toml in use does.

    Raises BadInput without a name, for an invalid profile, and for one that names no cluster.
    """
    env = profiles.find(Path.cwd())
    if not name:
        raise BadInput(f"PROFILE is missing; name the profile of a cluster: {_listed(env, executors)}")
    profile = profiles.get(env, name)
    executor = profile_effects.executor_of(env, profile, executors)
    given = profile_effects.resolve(env, profile, executor, "eval")
    config: dict[str, Any] = {"execution": {"type": executor.name}, **given.node()}
    for effect in given.effects:
        node = config
        for part in effect.key[:-1]:
            node = node.setdefault(part, {})
        node[effect.key[-1]] = effect.value
    if not executor.logs_in_over_ssh or not config["execution"].get("hostname"):
        kinds = " or ".join(f'executor = "{one.name}"' for one in executors.descriptions() if one.logs_in_over_ssh)
        raise BadInput(f"PROFILE={name}: expected a profile with {kinds} and a host; there are {_listed(env, executors)}")
    return config


def _listed(env: EnvFile, executors: Executors) -> str:
    """The valid profiles of clusters, for a message."""
    found = []
    for name in env.names():
        with contextlib.suppress(BadInput):
            if profile_effects.executor_of(env, profiles.get(env, name), executors).logs_in_over_ssh:
                found.append(name)
    return ", ".join(found) or "none"


@cache
def ssh_user(host: str | None) -> str:
    """The user that ssh would log in as on `host`: `ssh -G` reads ~/.ssh/config and contacts nothing. Without ssh, the user here."""
    if host and not host.startswith("-"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run(["ssh", "-G", host], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
            if found := re.search(r"^user (.+)$", answer.stdout, re.MULTILINE):
                return found[1]
    return getpass.getuser()
