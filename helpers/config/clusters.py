"""Which cluster a config, a profile or a submission names, and how it is reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput
from helpers.config import profile_fields
from helpers.config.profiles import Profile


def of_config(config: Mapping[str, Any]) -> Cluster:
    """The cluster of a compiled Slurm config: execution.hostname and username, and run.env's tunnel, port and identity.

    Raises BadInput for a tunnel that is neither ssh nor local, a port that is no number, and a host that ssh would take for an option.
    """
    execution, env = config["execution"], (config.get("run") or {}).get("env") or {}
    host, tunnel, port = str(execution["hostname"]), env.get("tunnel") or "ssh", env.get("port")
    if tunnel not in ("ssh", "local"):
        raise BadInput(f'tunnel: "ssh" or "local" was expected, not {tunnel!r}')
    if host.startswith("-") or not host.strip():
        raise BadInput(f"host: the name of a login node was expected, not {host!r}")
    if port is not None and not (str(port).isdecimal() and 0 < int(port) < 65536):  # noqa: PLR2004  a TCP port
        raise BadInput(f"port: a number from 1 to 65535 was expected, not {port!r}")
    identity = str(Path(str(env["identity"])).expanduser()) if env.get("identity") else None
    user = str(execution["username"]) if execution.get("username") else None
    return Cluster(host, user, int(port) if port is not None else None, identity, str(tunnel))


def of_profile(profile: Profile) -> Cluster:
    """The cluster of a profile of one (profile_fields.of_cluster). Raises as of_config does."""
    execution = {"hostname": profile_fields.host_of(profile), "username": profile.fields.get("user")}
    return of_config({"execution": execution, "run": {"env": profile.fields}})


def of_submission(submission: Mapping[str, Any]) -> Cluster:
    """The cluster that a submission.json names."""
    return Cluster(**submission["cluster"])
