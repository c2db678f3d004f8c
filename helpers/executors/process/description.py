"""What configs and profiles depend on in the process executor."""

from helpers.config import profile_fields
from helpers.config.executor_description import Description

# nemo-run, which profiles come from, calls processes of this machine `local`.
DESCRIPTION = Description(
    "process",
    "process",
    profile_words=("local",),
    fields=frozenset({"env_vars"}),
    effects=lambda profile, _mode: profile_fields.env_vars(profile),
    runs_containers=False,
)
