"""What configs and profiles depend on in the process executor."""

from helpers.config import profile_fields
from helpers.config.executor_description import Description

# Seconds until a server must be healthy. vLLM took 122 to load a model of 0.1 billion parameters on two CPUs for the first time.
READINESS, OTHERS = {"vllm": 900, "sglang": 900}, 120
# nemo-run, which profiles come from, calls processes of this machine `local`.
DESCRIPTION = Description(
    "process",
    "process",
    profile_words=("local",),
    fields=frozenset({"env_vars"}),
    effects=lambda profile, _mode: profile_fields.env_vars(profile),
    runs_containers=False,
    readiness=lambda kind: READINESS.get(kind, OTHERS),
)
