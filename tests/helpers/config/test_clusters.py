"""helpers/config/clusters.py: which cluster a config, a profile or a submission names."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput
from helpers.config import clusters
from helpers.executors import registry


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
        (config({"tunnel": "vpn"}), 'tunnel: \'vpn\': expected "ssh" or "local"'),
        (config({"port": "ssh"}), "port: 'ssh': expected a number from 1 to 65535"),
        (config({"port": 0}), ": expected a number from 1 to 65535"),
        (config({"port": 65536}), ": expected a number from 1 to 65535"),
        (config({"port": -1}), ": expected a number from 1 to 65535"),
        (config(hostname="-oProxyCommand=x"), "host: '-oProxyCommand=x': expected the name of a login node"),
        (config(hostname=" "), ": expected the name of a login node"),
    ],
)
def test_an_invalid_host_port_or_tunnel_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        clusters.of_config(given)


ENV = """
[CLUSTER]
executor = "slurm"
host = "h"
user = "ann"
port = 22
run_partition = "interactive"
partition = "batch"

[NODE]
extends = "CLUSTER"
host = ""
tunnel = "local"

[HERE]
executor = "local"

[NOWHERE]
executor = "slurm"
"""


@pytest.fixture
def env_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env.toml").write_text(ENV.replace('host = ""\n', ""))
    monkeypatch.setenv("EVALMAKE_ENV_FILE", str(tmp_path / "env.toml"))


@pytest.mark.usefixtures("env_toml")
def test_a_profile_and_a_submission_name_the_same_cluster_as_the_config() -> None:
    made = clusters.config_of_profile("CLUSTER", registry)
    cluster = clusters.of_config(made)
    assert cluster == clusters.of_config(config({"port": 22}, username="ann"))
    assert clusters.of_submission({"cluster": asdict(cluster)}) == cluster
    assert (made["execution"]["type"], made["execution"]["partition"]) == ("slurm", "interactive")
    assert clusters.of_config(clusters.config_of_profile("NODE", registry)).tunnel == "local"


@pytest.mark.usefixtures("env_toml")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "PROFILE is missing; name the profile of a cluster: CLUSTER, NODE, NOWHERE"),
        ("HERE", 'PROFILE=HERE: expected a profile with executor = "slurm" and a host; there are CLUSTER, NODE, NOWHERE'),
        ("NOWHERE", 'PROFILE=NOWHERE: expected a profile with executor = "slurm" and a host'),
        ("CLUSTR", "did you mean CLUSTER?"),
    ],
)
def test_a_profile_that_names_no_cluster_is_refused(name: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        clusters.config_of_profile(name, registry)
