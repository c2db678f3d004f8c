"""credentials/wanted_variables.py: every variable that a config names, under the rules of the launcher."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.credentials import wanted_variables

SECRET = "planted-S3cret"


def test_every_env_vars_section_is_searched() -> None:
    config: dict[str, Any] = {
        "env_vars": {"A": "host:TOP", "L": "lit:host:NO", "R": "runtime:NO", "N": None},
        "deployment": {"env_vars": {"B": "host:DEPLOY"}},
        "auxiliary_deployments": {"judge": {"env_vars": {"J": "host:JUDGE"}}},
        "evaluation": {"env_vars": {"C": "host:EVAL"}, "tasks": [{"name": "t"}, {"name": "u", "env_vars": {"D": "host:TOP"}}]},
        "export": {"env_vars": {"E": "host:EXPORT"}},
        "execution": {"auto_export": {"destinations": ["wandb"], "env_vars": {"F": "host:AUTO"}}},
    }
    assert wanted_variables.of_config(config) == {
        "TOP": ["env_vars.A", "evaluation.tasks[1].env_vars.D"],
        "DEPLOY": ["deployment.env_vars.B"],
        "JUDGE": ["auxiliary_deployments.judge.env_vars.J"],
        "EVAL": ["evaluation.env_vars.C"],
        "EXPORT": ["export.env_vars.E"],
        "AUTO": ["execution.auto_export.env_vars.F"],
    }
    config["execution"] = {"auto_export": {"enabled": False, "destinations": ["wandb"], "env_vars": {"F": "host:AUTO"}}}
    assert not {"EXPORT", "AUTO"} & set(wanted_variables.of_config(config))


def test_api_keys_are_wanted_unless_env_vars_provide_them_under_that_name() -> None:
    inner = {"nemo_evaluator_config": {"target": {"api_endpoint": {"api_key_name": "TASK_KEY"}}}}
    config: dict[str, Any] = {
        "target": {"api_endpoint": {"api_key_name": "API_KEY"}},
        "evaluation": {
            "nemo_evaluator_config": {"target": {"api_endpoint": {"api_key_name": "EVAL_KEY"}}},
            "env_vars": {"EVAL_KEY": "host:MINE"},
            "tasks": [{"name": "t", "env_vars": {"API_KEY": "host:NGC"}}, {"name": "u", **inner}],
        },
    }
    assert wanted_variables.of_config(config) == {
        "MINE": ["evaluation.env_vars.EVAL_KEY"],
        "NGC": ["evaluation.tasks[0].env_vars.API_KEY"],
        "API_KEY": ["target.api_endpoint.api_key_name"],
        "TASK_KEY": ["evaluation.tasks[1].nemo_evaluator_config.target.api_endpoint.api_key_name"],
    }
    config["evaluation"]["tasks"] = []
    assert "API_KEY" in wanted_variables.of_config(config)


@pytest.mark.parametrize("config", [{"env_vars": {"A": f"host:{SECRET}"}}, {"target": {"api_endpoint": {"api_key_name": SECRET}}}])
def test_a_secret_in_the_place_of_a_name_is_refused_and_not_shown(config: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="the name of a variable") as caught:
        wanted_variables.of_config(config)
    assert SECRET not in str(caught.value)
