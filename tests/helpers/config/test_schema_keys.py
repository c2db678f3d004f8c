"""helpers/config/schema_keys.py: which keys and fields the schemas know."""

import pytest

from helpers.config import profile_fields, schema_keys


@pytest.mark.parametrize(
    "key",
    [
        "run.model",
        "run.env.anything.at.all",
        "execution.walltime",
        "execution.mounts.deployment./lustre/a.b/c",
        "execution.mounts.auxiliary.judge./data",
        "execution.sbatch_extra_flags.cpus-per-task",
        "execution.auto_export.destinations.0",
        "execution.lepton_platform.tasks.mounts.0.path",
        "deployment.endpoints.health",
        "deployment.endpoints.my_own",
        "deployment.env_vars.HF_TOKEN",
        "deployment.multiple_instances",
        "evaluation.tasks",
        "evaluation.tasks.0",
        "evaluation.tasks.12.name",
        "evaluation.tasks.0.nemo_evaluator_config.config.params.extra.tokenizer",
        "evaluation.nemo_evaluator_config.config.params.limit_samples",
        "evaluation.nemo_evaluator_config.target.api_endpoint.adapter_config.interceptors.0.config.cache_dir",
        "export.wandb.extra_metadata.stage",
        "auxiliary_deployments.judge.checkpoint_path",
        "auxiliary_deployments.judge.endpoints.chat",
        "env_vars.X",
    ],
)
def test_a_known_key_is_known(key):
    assert schema_keys.is_known(key)


@pytest.mark.parametrize(
    "key",
    [
        "excution",
        "execution.wall_time",
        "execution.walltime.hours",
        "execution.mounts.deployments",
        "deployment.tensor_paralel_size",
        "evaluation.tasks.name",
        "evaluation.tasks.0.nmae",
        "evaluation.nemo_evaluator_config.config.params.limit_sample",
        "auxiliary_deployments.judge.checkpoint",
        "export.wandb.projct",
    ],
)
def test_an_unknown_key_is_not(key):
    assert not schema_keys.is_known(key)


def test_all_keys_are_known_each_once_and_sections_too():
    keys = schema_keys.all_keys()
    assert len(keys) == len(set(keys)) > 300
    assert {"execution", "execution.walltime", "evaluation.nemo_evaluator_config.config.params.limit_samples"} <= set(keys)
    assert [key for key in keys if not schema_keys.is_known(key)] == []


def test_names_below_serve_did_you_mean_also_in_lists_and_below_chosen_names():
    assert "container" in schema_keys.names_below("evaluation.tasks.3")
    assert "env_prefix" in schema_keys.names_below("auxiliary_deployments.judge")
    assert {"execution", "deployment"} <= set(schema_keys.names_below(""))
    assert schema_keys.names_below("run.env") == []
    assert schema_keys.names_below("no.such.key") == []


def test_subschema_says_what_a_key_is():
    walltime = schema_keys.subschema("execution.walltime")
    assert walltime is not None
    assert walltime["description"].startswith("slurm: how long a job may run")
    assert walltime["type"] == ["string", "null"]
    assert schema_keys.subschema("run.env.x") is schema_keys.FREE
    assert schema_keys.subschema("nothing") is None


def test_the_fields_of_profiles_are_those_that_have_an_effect():
    assert set(schema_keys.profile_fields()) == set(profile_fields.FIELDS)
