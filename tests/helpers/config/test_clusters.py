"""helpers/config/clusters.py: which cluster a config, a profile or a submission names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput
from helpers.config import clusters
from helpers.config.profiles import Profile


def config(env: dict[str, Any] | None = None, **execution: Any) -> dict[str, Any]:
    return {"execution": {"type": "slurm", "hostname": "h", **execution}, "run": {"env": env or {}}}


def test_a_config_says_how_its_cluster_is_reached() -> None:
    assert clusters.of_config(config()) == Cluster("h")
    assert clusters.of_config({"execution": {"hostname": "h", "username": None}, "run": None}) == Cluster("h")
    home = Path.home()
    whole = config({"tunnel": "ssh", "port": "2222", "identity": "~/.ssh/key"}, username="ann")
    assert clusters.of_config(whole) == Cluster("h", "ann", 2222, f"{home}/.ssh/key")
    assert clusters.of_config(config({"tunnel": "local"})) == Cluster("h", tunnel="local")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (config({"tunnel": "vpn"}), 'tunnel: "ssh" or "local" was expected, not \'vpn\''),
        (config({"port": "ssh"}), "port: a number from 1 to 65535 was expected, not 'ssh'"),
        (config({"port": 0}), "port: a number from 1 to 65535"),
        (config({"port": 65536}), "port: a number from 1 to 65535"),
        (config({"port": -1}), "port: a number from 1 to 65535"),
        (config(hostname="-oProxyCommand=x"), "host: the name of a login node was expected, not '-oProxyCommand=x'"),
        (config(hostname=" "), "host: the name of a login node was expected"),
    ],
)
def test_an_invalid_host_port_or_tunnel_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        clusters.of_config(given)


def test_a_profile_and_a_submission_name_the_same_cluster_as_the_config() -> None:
    profile = Profile("mine", {"host": "h", "user": "ann", "port": 22, "tunnel": "ssh"}, {})
    cluster = clusters.of_profile(profile)
    assert cluster == clusters.of_config(config({"port": 22}, username="ann"))
    assert clusters.of_submission({"cluster": cluster.document()}) == cluster
